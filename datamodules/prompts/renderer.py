"""Resolve a chat template, and render conversations with it as text."""

import json
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from functools import cached_property
from pathlib import Path
from typing import Any

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase
from transformers.utils.chat_template_utils import render_jinja_template

from datamodules.errors import InputError
from datamodules.records.kinds import System

PLAIN_TEMPLATE = (
    "{% for message in messages %}{{ message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% else %}{{ '\\n\\n' }}{% endif %}{% endfor %}"
)
"""Template for base models without one: each turn, then an empty line."""

TODAY = date(2024, 7, 26)
"""The day that templates see as today (ours); Llama's own templates fall back to it."""
SYSTEMS: tuple[System, ...] = ("system1", "system2", "plain")
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
_GENERATION = re.compile(r"\{%-?\s*generation\s*-?%\}")
_PROBE = "@@thought@@"

Turns = Sequence[Mapping[str, Any]]
"""A conversation: ``role`` and ``content`` of each turn; further keys are the template's."""


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
            name: part for name, part in self.kwargs.items() if name in SYSTEMS and isinstance(part, Mapping)
        }
        if parts and len(parts) < len(self.kwargs):
            raise InputError("data.chat_template_kwargs: give arguments, or a mapping for each system, but not both")
        return parts


class Renderer:
    """Renders conversations with one template: ``template``, or the tokenizer's own; of several, the one for tools.

    ``tools`` are JSON schemas. InputError if there is no template, or it does not read the tools or an argument.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        template: ChatTemplate | str | None = None,
        tools: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        chosen = template if isinstance(template, ChatTemplate) else ChatTemplate(template)
        of = f"chat template {chosen.source}" if chosen.source else f"chat template of tokenizer {name_of(tokenizer)}"
        self.where, self.is_plain = of, chosen.source == "plain"
        source = _source(tokenizer, chosen.source, tools)
        self._bos = _automatic_bos(tokenizer)
        arguments = dict(chosen.kwargs)
        today = arguments.pop("date", None)
        if unread := [name for name in arguments if not _reads(source, name)]:
            raise InputError(f"data.chat_template_kwargs.{unread[0]}: the {of} does not read it")
        if tools and not _reads(source, "tools"):
            raise InputError(f"{of}: it does not read the tools; give another with data.chat_template")
        if "strftime_now" in source:
            day = _day(TODAY if today is None else today)
            # Arguments cannot be functions: the calls are replaced by what they return.
            source = _STRFTIME.sub(lambda call: repr(day.strftime(call[2])), source)
        elif today is not None:
            raise InputError(f"data.chat_template_kwargs.date: the {of} does not ask for the day")
        self._source = source
        self._arguments = {**tokenizer.special_tokens_map, **({"tools": list(tools)} if tools else {}), **arguments}

    def __call__(self, turns: Turns, assistant_next: bool) -> str:
        """Render turns as text, up to where the assistant's next turn begins if ``assistant_next``.

        InputError if the template cannot render these turns, or drops their words.
        """
        text, _ = self._render(turns, assistant_next, marks=False)
        if self.is_plain:
            return self._bos + text
        rendered = without_space(text)
        for turn in turns:
            if turn["role"] != "assistant" and not _has_words(rendered, turn):
                raise InputError(
                    f"{self.where}: it drops or changes the words of the {turn['role']} turn "
                    f"({turn['content'][:60]!r}); some templates expect lists of parts in place of text; give another "
                    "with data.chat_template"
                )
        self._check_calls(turns, text, assistant_next)
        if self._bos and not text.startswith(self._bos):
            warnings.warn(
                f"{self.where}: its prompts do not begin with {self._bos!r}, which the tokenizer puts before every "
                "text; a model trained with it may answer badly: write {{ bos_token }} at the template's start",
                stacklevel=3,
            )
        return text

    def _check_calls(self, turns: Turns, text: str, assistant_next: bool) -> None:
        """Raise if a call of a tool changes nothing of the text; its name may stand in it elsewhere."""
        for place, turn in enumerate(turns):
            if turn.get("tool_calls"):
                said = {name: value for name, value in turn.items() if name != "tool_calls"}
                without, _ = self._render([*turns[:place], said, *turns[place + 1 :]], assistant_next, marks=False)
                if without == text:
                    name = turn["tool_calls"][0]["function"]["name"]
                    raise InputError(f"{self.where}: it drops the calls of tools ({name!r}); give another template")

    @cached_property
    def has_marks(self) -> bool:
        """If the template marks what the assistant says: ``{% generation %}``."""
        return _GENERATION.search(self._source) is not None

    def marks(self, turns: Turns) -> list[tuple[int, int]]:
        """Where the marked parts begin and end in the text of finished turns."""
        return self._render(turns, False, marks=True)[1]

    @cached_property
    def reads_thoughts(self) -> bool:
        """If the template renders the ``reasoning_content`` (gpt-oss: ``thinking``) of the last turn."""
        return self._shows_thought({"content": "a", **thought_keys(_PROBE)})

    @cached_property
    def keeps_thoughts(self) -> bool:
        """If the template leaves a thought in the content of an earlier turn."""
        turn = {"content": f"<think>\n{_PROBE}\n</think>\n\na"}
        return self._shows_thought(turn, {"role": "user", "content": "q"})

    def _shows_thought(self, turn: Mapping[str, Any], *after: Mapping[str, Any]) -> bool:
        turns = [{"role": "user", "content": "q"}, {"role": "assistant", **turn}, *after]
        try:
            return _PROBE in self._render(turns, False, marks=False)[0]
        except InputError:
            return False

    def _render(self, turns: Turns, assistant_next: bool, marks: bool) -> tuple[str, list[tuple[int, int]]]:
        try:
            rendered: Any = render_jinja_template(
                conversations=[[dict(turn) for turn in turns]],
                chat_template=self._source,
                add_generation_prompt=assistant_next,
                return_assistant_tokens_mask=marks,
                **self._arguments,
            )
        except (TemplateError, TypeError, ValueError, ArithmeticError) as error:
            roles = ", ".join(str(turn["role"]) for turn in turns)
            raise InputError(f"{self.where}: it cannot render the turns ({roles}): {error}") from error
        texts, spans = rendered
        return str(texts[0]), list(spans[0]) if marks else []


def thought_keys(thought: str) -> dict[str, str]:
    """The keys under which templates look for a turn's thought."""
    return {"reasoning_content": thought, "thinking": thought, "reasoning": thought} if thought else {}


def without_space(text: str) -> str:
    """Remove all white space: templates add and trim it."""
    return "".join(text.split())


def name_of(tokenizer: PreTrainedTokenizerBase) -> str:
    """Name of a tokenizer, for messages."""
    return repr(getattr(tokenizer, "name_or_path", "") or type(tokenizer).__name__)


def _has_words(rendered: str, turn: Mapping[str, Any]) -> bool:
    words = turn["content"]
    if without_space(words) in rendered:
        return True
    # Some templates write what a tool returns as a JSON string.
    return turn["role"] == "tool" and any(
        without_space(json.dumps(words, ensure_ascii=e)) in rendered for e in (False, True)
    )


def _reads(source: str, name: str) -> bool:
    return re.search(rf"\b{re.escape(name)}\b", source) is not None


def _source(tokenizer: PreTrainedTokenizerBase, source: str | None, tools: Sequence[Mapping[str, Any]]) -> str:
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
            f"tokenizer {name_of(tokenizer)}: it has no chat template; give one with "
            "`--data.chat_template FILE.jinja`, or `--data.chat_template plain` for a base model"
        )
    try:
        return tokenizer.get_chat_template(tools=[dict(tool) for tool in tools] or None)
    except ValueError as error:
        names = ", ".join(tokenizer.chat_template)
        raise InputError(
            f"tokenizer {name_of(tokenizer)}: it has several chat templates ({names}) and no default; save one as a "
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
