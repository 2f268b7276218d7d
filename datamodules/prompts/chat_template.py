"""From a question to the text and token ids that a model sees."""

from collections.abc import Callable
from pathlib import Path

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from datamodules.batch import IGNORE_INDEX, System
from datamodules.errors import InputError

SYSTEM1_SUFFIX = " Please provide as a brief reasoning process as possible, and put your final answer within \\boxed{}"
"""Asks for fast thinking; appended to the user turn (paper, word for word)."""
SYSTEM2_SUFFIX = " Please reason step by step, and put your final answer within \\boxed{}"
"""Asks for slow thinking; appended to the user turn (paper, word for word)."""
_SUFFIXES: dict[System, str] = {"system1": SYSTEM1_SUFFIX, "system2": SYSTEM2_SUFFIX, "plain": ""}

PLAIN_TEMPLATE = (
    "{% for message in messages %}{{ message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% else %}{{ '\\n\\n' }}{% endif %}{% endfor %}"
)
"""Built-in template for base models that come without one: the turns, an empty line after each."""

_MARKER = "@@response@@"


def user_turn(question: str, system: System) -> str:
    """The question as the user puts it: with the instruction of System 1 or 2 appended (paper), or as it is."""
    return question + _SUFFIXES[system]


def render_prompt(
    tokenizer: PreTrainedTokenizerBase, user: str, *, system_prompt: str | None = None, template: str | None = None
) -> str:
    """The prompt as text: system and user turn in the chat template, ready for the assistant to go on.

    Args:
        tokenizer: Its own chat template is used unless ``template`` says otherwise.
        user: The user turn, see `user_turn`.
        system_prompt: A system turn before it; None leaves it to the template (some put a default one).
        template: None, ``plain`` (`PLAIN_TEMPLATE`, with the tokenizer's BOS if it puts one itself) or a jinja file.

    Raises:
        InputError: There is no template, or it is broken or refuses these turns.
    """
    return _renderer(tokenizer, template)(_turns(user, system_prompt), True)


def render_turns(
    tokenizer: PreTrainedTokenizerBase, turns: list[dict[str, str]], *, template: str | None = None
) -> str:
    """A conversation as text, ready for the assistant to go on; arguments and errors as in `render_prompt`.

    Args:
        tokenizer: Its own chat template is used unless ``template`` says otherwise.
        turns: ``role`` and ``content`` of each; the last one is the user's.
        template: As in `render_prompt`.
    """
    return _renderer(tokenizer, template)(turns, True)


def encode_prompt(tokenizer: PreTrainedTokenizerBase, prompt: str) -> list[int]:
    """Token ids of a rendered prompt. BOS stands in the rendered text where there is one; none is added here."""
    return tokenizer.encode(prompt, add_special_tokens=False)


def encode_pair(
    tokenizer: PreTrainedTokenizerBase,
    user: str,
    response: str,
    *,
    system_prompt: str | None = None,
    template: str | None = None,
) -> tuple[list[int], list[int]]:
    """Token ids of a prompt and the response to learn, and their labels.

    The response is rendered as the chat template renders an assistant turn, up to and with its EOS. A template that
    drops or moves what the model says (R1-style ones strip the think block, and their prompts open it) would render
    something the model never generates: there the response follows the prompt as it is, and only the end of the turn
    comes from the template, so that the text is back in the think block it was generated in (ours).

    Returns:
        ``(ids, labels)`` of equal length: ids of the prompt are exactly those of `encode_prompt`, labels there are
        ``IGNORE_INDEX``, and ids from there on, EOS included.

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
        # What a template writes after EOS (a line break, mostly) is never generated.
        response_ids = response_ids[: len(response_ids) - response_ids[::-1].index(tokenizer.eos_token_id)]
    else:
        response_ids.append(int(tokenizer.eos_token_id))
    return prompt_ids + response_ids, [IGNORE_INDEX] * len(prompt_ids) + response_ids


def require_eos(tokenizer: PreTrainedTokenizerBase) -> None:
    """Raise InputError if the tokenizer has no end-of-sequence token: nothing could teach a model when to stop."""
    if tokenizer.eos_token_id is None:
        raise InputError(
            f"tokenizer {_name(tokenizer)}: it has no EOS token, so that a response would have no end; "
            "set `eos_token` in its tokenizer_config.json"
        )


Turns = list[dict[str, str]]


def _turns(user: str, system_prompt: str | None) -> Turns:
    turns = [{"role": "user", "content": user}]
    return turns if system_prompt is None else [{"role": "system", "content": system_prompt}, *turns]


def _renderer(tokenizer: PreTrainedTokenizerBase, template: str | None) -> Callable[[Turns, bool], str]:
    """A function of (turns, whether the assistant comes next) with the template resolved."""
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
    """The BOS that the tokenizer puts before any text by itself, or nothing."""
    ids = tokenizer.encode("a")
    return str(tokenizer.bos_token) if ids and ids[0] == tokenizer.bos_token_id else ""


def _assistant_tail(render: Callable[[Turns, bool], str], turns: Turns, prompt: str, response: str) -> str:
    """What follows the prompt in a conversation that the response ends."""
    marked = render([*turns, {"role": "assistant", "content": _MARKER}], False)
    before, _, ending = marked.rpartition(_MARKER)
    # White space that the template itself puts round a response is not doubled where the response brings it along.
    if before.startswith(prompt) and before[len(prompt) :][-1:].isspace():
        response = response.lstrip()
    if ending[:1].isspace():
        response = response.rstrip()
    full = render([*turns, {"role": "assistant", "content": response}], False)
    if full.startswith(prompt) and _squeeze(response) in _squeeze(full[len(prompt) :]):
        return full[len(prompt) :]
    return response + ending


def _squeeze(text: str) -> str:
    """Without white space, which templates trim and add."""
    return "".join(text.split())


def _encode_tail(tokenizer: PreTrainedTokenizerBase, prompt: str, prompt_ids: list[int], tail: str) -> list[int]:
    """Ids of ``tail`` as they follow ``prompt_ids``, of which none changes."""
    ids = tokenizer.encode(prompt + tail, add_special_tokens=False)
    if ids[: len(prompt_ids)] == prompt_ids:
        return ids[len(prompt_ids) :]
    # A token would reach over the border. EOS in front keeps the tail from being taken for the start of a text.
    return tokenizer.encode(str(tokenizer.eos_token) + tail, add_special_tokens=False)[1:]


def _name(tokenizer: PreTrainedTokenizerBase) -> str:
    return repr(getattr(tokenizer, "name_or_path", "") or type(tokenizer).__name__)
