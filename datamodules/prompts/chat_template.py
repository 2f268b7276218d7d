"""Render questions with a chat template, and encode them."""

import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from pathlib import Path
from typing import Any

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

TODAY = date(2024, 7, 26)
"""The day that templates see as today (ours); Llama's own templates fall back to it."""
_RESERVED = (
    "conversation",
    "messages",
    "chat_template",
    "tokenize",
    "add_generation_prompt",
    "continue_final_message",
    "return_tensors",
    "return_dict",
    "strftime_now",
)
"""Arguments of the rendering itself."""
_STRFTIME = re.compile(r"""strftime_now\(\s*(["'])(.*?)\1\s*\)""")
_MARKER = "@@response@@"

Turns = list[dict[str, str]]
"""A conversation: ``role`` and ``content`` of each turn."""


def user_turn(question: str, system: System) -> str:
    r"""Return the question with the instruction of System 1 or 2 appended (paper), or unchanged for ``plain``.

    >>> user_turn("What is 1 + 1?", "system2")
    'What is 1 + 1? Please reason step by step, and put your final answer within \\boxed{}'
    """
    return question + _SUFFIXES[system]


@dataclass(frozen=True)
class ChatTemplate:
    """A chat template and the arguments that it is rendered with.

    Attributes:
        source: ``plain`` (`PLAIN_TEMPLATE`, with a BOS if the tokenizer adds one itself), a jinja file, or None for the
            tokenizer's own template.
        kwargs: Arguments such as ``{enable_thinking: false}``; or those of each system:
            ``{system1: {enable_thinking: false}, system2: {enable_thinking: true}}``. ``date`` (``2026-01-31``) is the
            day that a template sees as today; by default that is `TODAY`, so that a run can be repeated.

    Raises:
        InputError: An argument belongs to the rendering itself.
    """

    source: str | None = None
    kwargs: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in [*self.kwargs, *(name for part in self._by_system.values() for name in part)]:
            if name in _RESERVED:
                raise InputError(f"data.chat_template_kwargs.{name}: is set by the rendering itself; leave it out")

    def of(self, system: System) -> "ChatTemplate":
        """The template with the arguments of one system."""
        return replace(self, kwargs=self._by_system.get(system, {})) if self._by_system else self

    @property
    def _by_system(self) -> dict[str, Mapping[str, Any]]:
        parts: dict[str, Mapping[str, Any]] = {
            name: part for name, part in self.kwargs.items() if name in _SUFFIXES and isinstance(part, Mapping)
        }
        if parts and len(parts) < len(self.kwargs):
            raise InputError("data.chat_template_kwargs: give arguments, or a mapping for each system, but not both")
        return parts


def render_prompt(
    tokenizer: PreTrainedTokenizerBase,
    user: str,
    *,
    system_prompt: str | None = None,
    template: ChatTemplate | str | None = None,
) -> str:
    """Render system and user turn as text, up to where the assistant's turn begins.

    Args:
        tokenizer: A tokenizer; its own chat template is the default.
        user: The user turn, see `user_turn`.
        system_prompt: The system turn. None leaves it to the template; some templates have a default.
        template: In place of the tokenizer's own: a `ChatTemplate`, or its ``source``.

    Raises:
        InputError: There is no template, it cannot render these turns or drops their words, or it does not read one of
            the arguments.
    """
    return _renderer(tokenizer, template)(_turns(user, system_prompt), True)


def render_turns(
    tokenizer: PreTrainedTokenizerBase, turns: Turns, *, template: ChatTemplate | str | None = None
) -> str:
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
    template: ChatTemplate | str | None = None,
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


def _renderer(tokenizer: PreTrainedTokenizerBase, template: ChatTemplate | str | None) -> Callable[[Turns, bool], str]:
    """Resolve the template; return a function of (turns, whether the assistant comes next)."""
    chosen = template if isinstance(template, ChatTemplate) else ChatTemplate(template)
    where = f"chat template {chosen.source}" if chosen.source else f"chat template of tokenizer {_name(tokenizer)}"
    source = _source(tokenizer, chosen.source)
    bos = _automatic_bos(tokenizer)
    arguments = dict(chosen.kwargs)
    today = arguments.pop("date", None)
    if unread := [name for name in arguments if not re.search(rf"\b{re.escape(name)}\b", source)]:
        raise InputError(f"data.chat_template_kwargs.{unread[0]}: the {where} does not read it")
    if "strftime_now" in source:
        day = _day(TODAY if today is None else today)
        # Arguments cannot be functions: the calls are replaced by what they return.
        source = _STRFTIME.sub(lambda call: repr(day.strftime(call[2])), source)
    elif today is not None:
        raise InputError(f"data.chat_template_kwargs.date: the {where} does not ask for the day")

    def render(turns: Turns, assistant_next: bool) -> str:
        try:
            text = str(
                tokenizer.apply_chat_template(
                    turns, chat_template=source, tokenize=False, add_generation_prompt=assistant_next, **arguments
                )
            )
        except (TemplateError, TypeError, ValueError, ArithmeticError) as error:
            roles = ", ".join(turn["role"] for turn in turns)
            raise InputError(f"{where}: it cannot render the turns ({roles}): {error}") from error
        if chosen.source == "plain":
            return bos + text
        rendered = _squeeze(text)
        for turn in turns:
            if turn["role"] != "assistant" and _squeeze(turn["content"]) not in rendered:
                raise InputError(
                    f"{where}: it drops or changes the words of the {turn['role']} turn ({turn['content'][:60]!r}); "
                    "some templates expect lists of parts in place of text; give another with data.chat_template"
                )
        if bos and not text.startswith(bos):
            warnings.warn(
                f"{where}: its prompts do not begin with {bos!r}, which the tokenizer puts before every text; a model "
                "that was trained with it may answer badly: write {{ bos_token }} at the template's start",
                stacklevel=2,
            )
        return text

    return render


def _source(tokenizer: PreTrainedTokenizerBase, source: str | None) -> str:
    """The text of a template."""
    if source == "plain":
        return PLAIN_TEMPLATE
    if source is not None:
        try:
            return Path(source).read_text(encoding="utf-8-sig")
        except OSError as error:
            raise InputError(f"chat template {source}: no such file; give a jinja file or `plain`") from error
        except UnicodeError as error:
            raise InputError(f"chat template {source}: not a text in UTF-8 ({error}); save it as UTF-8") from error
    if not tokenizer.chat_template:
        raise InputError(
            f"tokenizer {_name(tokenizer)}: it has no chat template; give one with `--data.chat_template FILE.jinja`, "
            "or `--data.chat_template plain` for a base model"
        )
    try:
        return tokenizer.get_chat_template()
    except ValueError as error:
        names = ", ".join(tokenizer.chat_template)
        raise InputError(
            f"tokenizer {_name(tokenizer)}: it has several chat templates ({names}) and no default; save one as a "
            "jinja file and give it with data.chat_template"
        ) from error


def _day(value: Any) -> date:
    try:
        return value if isinstance(value, date) else date.fromisoformat(str(value))
    except ValueError as error:
        raise InputError(f"data.chat_template_kwargs.date: {value!r} is no day such as 2026-01-31") from error


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
