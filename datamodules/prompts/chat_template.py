"""Render questions with a chat template, and encode them."""

from collections.abc import Callable, Sequence
from pathlib import Path

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from datamodules.batch import IGNORE_INDEX, System
from datamodules.completions.thoughts import thought_tokens
from datamodules.errors import InputError

SYSTEM1_SUFFIX = " Please provide as a brief reasoning process as possible, and put your final answer within \\boxed{}"
"""Instruction for fast thinking, appended to the user turn (paper, word for word)."""
SYSTEM2_SUFFIX = " Please reason step by step, and put your final answer within \\boxed{}"
"""Instruction for slow thinking, appended to the user turn (paper, word for word)."""
_SUFFIXES: dict[System, str] = {"system1": SYSTEM1_SUFFIX, "system2": SYSTEM2_SUFFIX, "plain": ""}

PLAIN_TEMPLATE = (
    "{% for message in messages %}{{ message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% else %}{{ '\\n\\n' }}{% endif %}{% endfor %}"
)
"""Template for base models without one: each turn, then an empty line."""

_MARKER = "@@response@@"

Turns = list[dict[str, str]]
"""A conversation: ``role`` and ``content`` of each turn."""


def user_turn(question: str, system: System) -> str:
    r"""Return the question with the instruction of System 1 or 2 appended (paper), or unchanged for ``plain``.

    >>> user_turn("What is 1 + 1?", "system2")
    'What is 1 + 1? Please reason step by step, and put your final answer within \\boxed{}'
    """
    return question + _SUFFIXES[system]


def render_prompt(
    tokenizer: PreTrainedTokenizerBase, user: str, *, system_prompt: str | None = None, template: str | None = None
) -> str:
    """Render system and user turn as text, up to where the assistant's turn begins.

    Args:
        tokenizer: A tokenizer; its own chat template is the default.
        user: The user turn, see `user_turn`.
        system_prompt: The system turn. None leaves it to the template; some templates have a default.
        template: ``plain`` (`PLAIN_TEMPLATE`, with a BOS if the tokenizer adds one itself) or a jinja file.

    Raises:
        InputError: There is no template, or it cannot render these turns.
    """
    return _renderer(tokenizer, template)(_turns(user, system_prompt), True)


def render_turns(tokenizer: PreTrainedTokenizerBase, turns: Turns, *, template: str | None = None) -> str:
    """Render a conversation whose last turn is the user's; arguments and errors as in `render_prompt`."""
    return _renderer(tokenizer, template)(turns, True)


def encode_prompt(tokenizer: PreTrainedTokenizerBase, prompt: str) -> list[int]:
    """Encode a rendered prompt. No BOS is added: if there is one, the template has rendered it."""
    return tokenizer.encode(prompt, add_special_tokens=False)


def decode_completion(tokenizer: PreTrainedTokenizerBase, token_ids: Sequence[int]) -> str:
    """Decode a completion without special tokens, except those that part its thought from its answer."""
    decoder = tokenizer.added_tokens_decoder
    special = {number: token.content for number, token in decoder.items() if token.special}
    kept = thought_tokens(set(special.values()))
    if not kept:
        return str(tokenizer.decode(list(token_ids), skip_special_tokens=True))
    return str(tokenizer.decode([number for number in token_ids if special.get(number) in {None, *kept}]))


def encode_pair(
    tokenizer: PreTrainedTokenizerBase,
    user: str,
    response: str,
    *,
    system_prompt: str | None = None,
    template: str | None = None,
) -> tuple[list[int], list[int]]:
    """Encode a prompt and the response to learn.

    The chat template renders the response as an assistant turn, up to and including EOS. Some templates change what
    the model said: R1-style ones remove the think block, which their prompts open. Then the response follows the
    prompt unchanged, and only the end of the turn comes from the template (ours).

    Returns:
        ``(ids, labels)`` of equal length. Labels are ``IGNORE_INDEX`` on the prompt, whose ids are those of
        `encode_prompt`, and the ids on the response, EOS included.

    Raises:
        InputError: As `render_prompt`; or the tokenizer has no EOS.
    """
    require_eos(tokenizer)
    render = _renderer(tokenizer, template)
    turns = _turns(user, system_prompt)
    prompt = render(turns, True)
    tail = _assistant_tail(render, turns, prompt, response)
    prompt_ids = encode_prompt(tokenizer, prompt)
    response_ids = _encode_tail(tokenizer, prompt, prompt_ids, tail)
    if tokenizer.eos_token_id in response_ids:
        # The model never generates what a template writes after EOS, mostly a line break.
        response_ids = response_ids[: len(response_ids) - response_ids[::-1].index(tokenizer.eos_token_id)]
    else:
        response_ids.append(int(tokenizer.eos_token_id))
    return prompt_ids + response_ids, [IGNORE_INDEX] * len(prompt_ids) + response_ids


def require_eos(tokenizer: PreTrainedTokenizerBase) -> None:
    """Raise `InputError` if the tokenizer has no EOS token: a model could not learn when to stop."""
    if tokenizer.eos_token_id is None:
        raise InputError(
            f"tokenizer {_name(tokenizer)}: it has no EOS token to end a response with; "
            "set `eos_token` in its tokenizer_config.json"
        )


def _turns(user: str, system_prompt: str | None) -> Turns:
    turns = [{"role": "user", "content": user}]
    return turns if system_prompt is None else [{"role": "system", "content": system_prompt}, *turns]


def _renderer(tokenizer: PreTrainedTokenizerBase, template: str | None) -> Callable[[Turns, bool], str]:
    """Resolve the template; return a function of (turns, whether the assistant comes next)."""
    if template is None and not tokenizer.chat_template:
        raise InputError(
            f"tokenizer {_name(tokenizer)}: it has no chat template; give one with `--data.chat_template FILE.jinja`, "
            "or `--data.chat_template plain` for a base model"
        )
    source, bos = None, ""
    if template == "plain":
        source, bos = PLAIN_TEMPLATE, _automatic_bos(tokenizer)
    elif template is not None:
        path = Path(template)
        if not path.is_file():
            raise InputError(f"chat template {template}: no such file; give a jinja file or `plain`")
        source = path.read_text(encoding="utf-8")

    def render(turns: Turns, assistant_next: bool) -> str:
        try:
            text = tokenizer.apply_chat_template(
                turns, chat_template=source, tokenize=False, add_generation_prompt=assistant_next
            )
        except TemplateError as error:
            where = f"chat template {template}" if template else f"chat template of tokenizer {_name(tokenizer)}"
            roles = ", ".join(turn["role"] for turn in turns)
            raise InputError(f"{where}: it cannot render the turns ({roles}): {error}") from error
        return bos + str(text)

    return render


def _automatic_bos(tokenizer: PreTrainedTokenizerBase) -> str:
    """Return the BOS that the tokenizer adds to every text, or an empty text."""
    ids = tokenizer.encode("a")
    return str(tokenizer.bos_token) if ids and ids[0] == tokenizer.bos_token_id else ""


def _assistant_tail(render: Callable[[Turns, bool], str], turns: Turns, prompt: str, response: str) -> str:
    """Return the text after the prompt in the conversation that ends with the response."""
    marked = render([*turns, {"role": "assistant", "content": _MARKER}], False)
    before, _, ending = marked.rpartition(_MARKER)
    # White space around the response is not doubled if both the template and the response have it.
    if before.startswith(prompt) and before[len(prompt) :][-1:].isspace():
        response = response.lstrip()
    if ending[:1].isspace():
        response = response.rstrip()
    full = render([*turns, {"role": "assistant", "content": response}], False)
    if full.startswith(prompt) and _squeeze(response) in _squeeze(full[len(prompt) :]):
        return full[len(prompt) :]
    return response + ending


def _squeeze(text: str) -> str:
    """Remove all white space: templates add and trim it."""
    return "".join(text.split())


def _encode_tail(tokenizer: PreTrainedTokenizerBase, prompt: str, prompt_ids: list[int], tail: str) -> list[int]:
    """Encode ``tail`` so that it follows ``prompt_ids`` and changes none of them."""
    ids = tokenizer.encode(prompt + tail, add_special_tokens=False)
    if ids[: len(prompt_ids)] == prompt_ids:
        return ids[len(prompt_ids) :]
    # A token would span prompt and tail. With EOS in front, the tail is not encoded as the start of a text.
    return tokenizer.encode(str(tokenizer.eos_token) + tail, add_special_tokens=False)[1:]


def _name(tokenizer: PreTrainedTokenizerBase) -> str:
    return repr(getattr(tokenizer, "name_or_path", "") or type(tokenizer).__name__)
