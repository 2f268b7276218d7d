"""The turns of a conversation, in the forms that files have."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from datamodules.records.files import is_number, kind_of
from datamodules.records.validation import BadLineError, check_text

Role = Literal["system", "user", "assistant", "tool"]

_ROLES: dict[str, Role] = {
    **dict.fromkeys(("system", "developer"), "system"),
    **dict.fromkeys(("user", "human"), "user"),
    **dict.fromkeys(("assistant", "gpt", "model", "chatgpt", "bot", "function_call"), "assistant"),
    **dict.fromkeys(("tool", "function", "function_response", "observation", "ipython"), "tool"),
}
TWO_SYSTEMS = "there are two system prompts: a field and a turn"
CHATS = ("messages", "conversations")
"""Names of the field that a file has its chats in."""
_THOUGHTS = ("reasoning_content", "reasoning", "thinking")


@dataclass(frozen=True)
class Turn:
    """A turn of a conversation.

    Attributes:
        role: Who speaks.
        content: What is said.
        thought: What the assistant thought before, if that is apart from the content.
        tool_calls: Calls of tools, each ``{type: function, function: {name, arguments}}`` with arguments as a mapping.
        tool: Name of the tool, if one answers.
        call_id: Id of the call that a tool answers.
        weight: 0 if the turn is not to be learnt.

    Raises:
        BadLineError: A text has half a character.
    """

    role: Role
    content: str
    thought: str = ""
    tool_calls: tuple[Mapping[str, Any], ...] = ()
    tool: str = ""
    call_id: str = ""
    weight: int = 1

    def __post_init__(self) -> None:
        calls = json.dumps(self.tool_calls, ensure_ascii=False, default=str) if self.tool_calls else ""
        for name, text in (("content", self.content), ("thought", self.thought), ("tool_calls", calls)):
            check_text(text, name)

    def as_json(self) -> dict[str, Any]:
        """The turn as files have it (OpenAI's form)."""
        more = {
            "reasoning_content": self.thought,
            "tool_calls": list(self.tool_calls),
            "name": self.tool,
            "tool_call_id": self.call_id,
        }
        return {"role": self.role, "content": self.content, **{name: value for name, value in more.items() if value}}


def chat_of(value: Any) -> Sequence[Any] | None:
    """The turns of a chat, if a value is a list or, as tables have it, the JSON text of one; None if it is a text."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return None
        is_chat = isinstance(value, list) and value and all(map(is_turn, value))
        return value if is_chat else None
    return value if isinstance(value, list | tuple) else None


def is_turn(value: Any) -> bool:
    """Whether a value says who speaks."""
    return isinstance(value, Mapping) and not value.keys().isdisjoint(("role", "from"))


def role_of(entry: Mapping[str, Any]) -> Role | None:
    """Who speaks in an entry of a chat, by whatever name; None if the name is unknown."""
    return _ROLES.get(str(_said_by(entry)).lower())


def _said_by(entry: Mapping[str, Any]) -> Any:
    return entry.get("role", entry.get("from"))


def system_turn(value: Any, name: str = "system") -> list[Turn]:
    """The system prompt of a field, as a turn; none if it is empty. `BadLineError` if it is no text."""
    if not isinstance(value, str | None):
        raise BadLineError(f"field {name!r} is not a text but {kind_of(value)}")
    return [Turn("system", value)] if value and value.strip() else []


def read_turns(value: Any, name: str) -> list[Turn]:
    """The turns of a list or its JSON text; ``name`` is the field's, for errors. `BadLineError` if one is none."""
    turns = []
    for number, entry in enumerate(as_list(value, name), start=1):
        where = f"{name}, turn {number}"
        if not isinstance(entry, Mapping):
            raise BadLineError(f"{where}: not an object but {kind_of(entry)}")
        entry = {key: value for key, value in entry.items() if value is not None}
        try:
            turns.append(_turn(entry))
        except BadLineError as error:
            raise BadLineError(f"{where}: {error}") from error
    if not turns:
        raise BadLineError(f"field {name!r} has no turn")
    return turns


def _turn(entry: Mapping[str, Any]) -> Turn:
    said, role = _said_by(entry), role_of(entry)
    if role is None:
        raise BadLineError(f"its role is {said!r}; known are {', '.join(_ROLES)}")
    content = entry.get("content", entry.get("value", ""))
    content = str(content) if is_number(content) else content
    weight = entry.get("weight", 1)
    if weight not in (0, 1):
        raise BadLineError(f"its weight is {weight!r}; give 1, or 0 for a turn that is not learnt")
    if str(said).lower() == "function_call":
        return Turn("assistant", "", tool_calls=tuple(_calls(parse_json(content, "function_call"))), weight=int(weight))
    calls = entry.get("tool_calls") or entry.get("function_call") or ()
    text, thought = _text(content, role)
    given = next((entry[name] for name in _THOUGHTS if entry.get(name)), thought)
    if not isinstance(given, str):
        raise BadLineError(f"its thought is not a text but {kind_of(given)}")
    return Turn(
        role,
        text,
        thought=given.strip(),
        tool_calls=tuple(_calls(parse_json(calls, "tool_calls"))),
        tool=str(entry.get("name", "")) if role == "tool" else "",
        call_id=str(entry.get("tool_call_id", "")),
        weight=int(weight),
    )


def _text(content: Any, role: Role) -> tuple[str, str]:
    """Text and thought of a turn's content: a text, parts, or any value that a tool returned."""
    if isinstance(content, str):
        return content, ""
    if isinstance(content, list) and all(isinstance(part, Mapping) and "type" in part for part in content):
        said: dict[str, list[str]] = {"text": [], "thinking": [], "reasoning": []}
        for part in content:
            kind = str(part["type"])
            if kind not in said:
                raise BadLineError(f"it has a part of type {kind!r}; only text is read")
            if part.get(kind) is None:
                raise BadLineError(f"it has a part of type {kind!r} without {kind!r}")
            said[kind].append(_text(part[kind], "assistant")[0])
        return "".join(said["text"]), "".join(said["thinking"] + said["reasoning"])
    if role == "tool":
        return json.dumps(content, ensure_ascii=False, default=str), ""
    raise BadLineError(f"its content is not a text but {kind_of(content)}")


def _calls(value: Any) -> Iterator[dict[str, Any]]:
    for call in [value] if isinstance(value, Mapping) else as_list(value, "tool_calls"):
        function = call.get("function", call) if isinstance(call, Mapping) else None
        if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
            raise BadLineError("a call of a tool has no name")
        arguments = parse_json(function.get("arguments") or {}, "arguments")
        if not isinstance(arguments, Mapping):
            raise BadLineError(f"the arguments of {function['name']!r} are not a JSON object")
        made = {"type": "function", "function": {"name": function["name"], "arguments": dict(arguments)}}
        yield {**({"id": str(call["id"])} if call.get("id") is not None else {}), **made}


def as_list(value: Any, name: str) -> Sequence[Any]:
    """The list, or that of a JSON text; `BadLineError` if it is none."""
    value = parse_json(value, name)
    if not isinstance(value, list | tuple):
        raise BadLineError(f"field {name!r} must be a list, not {json.dumps(value, default=str)[:40]}")
    return value


def parse_json(value: Any, name: str) -> Any:
    """The value of a JSON text, as tables have them; anything else as it is. `BadLineError` if the text is no JSON."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError) as error:
        raise BadLineError(f"field {name!r} is a text that is no JSON ({error})") from error
