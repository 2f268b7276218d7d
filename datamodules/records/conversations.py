"""Training conversations, whatever form they are written in."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datamodules.errors import InputError
from datamodules.records.files import BrokenLineError, HubData, is_number, read_file
from datamodules.records.reader import bad_lines, check_names, join_fields, report_bad_lines
from datamodules.records.turns import (
    CHATS,
    TWO_SYSTEMS,
    Role,
    Turn,
    as_list,
    chat_of,
    parse_json,
    read_turns,
    role_of,
    system_turn,
)
from datamodules.records.validation import BadLineError

_PAIRS = (("prompt", "response"), ("prompt", "completion"), ("instruction + input", "output"))
_BESIDE = ("system", "tools")
_NAMES = ("messages", "prompt", "response", *_BESIDE)
_SAID = {"content", "value", "tool_calls"}
_NO_FORM = "neither a conversation nor a pair of request and response"
_FORMS = (
    "a conversation has messages or conversations; a pair has prompt and response, prompt and completion, or "
    "instruction, input and output. Map other names with {key}, as in {prompt: question, response: answer} or "
    "{messages: dialog}"
)


@dataclass(frozen=True)
class Conversation:
    """Turns, the tools that the assistant may call (JSON schemas), and the place for error messages."""

    turns: tuple[Turn, ...]
    tools: tuple[Mapping[str, Any], ...] = ()
    where: str = ""
    number: int = 0


def read_conversations(
    source: Path | HubData,
    *,
    fields: Mapping[str, str] | None = None,
    strict: bool = False,
    rejected_dir: Path | None = None,
    key: str = "data.fields",
) -> list[Conversation]:
    """Read training conversations; the form of each line is known by its fields. Ids are ignored.

    - ``messages`` (OpenAI, TRL) or ``conversations`` (ShareGPT): a list of turns, or its JSON text, with ``role`` and
      ``content`` or ``from`` and ``value``; with tool calls, answers of tools, ``reasoning_content``, and ``weight`` 0
      for turns that are not learnt.
    - ``prompt`` with ``response`` or ``completion``: texts, or lists of turns or their JSON texts.
    - ``instruction``, ``input`` and ``output`` (Alpaca).
    - Beside each of them ``system`` and ``tools``; beside a pair what was said before it: a ``history`` of pairs of
      texts, or ``earlier`` turns.

    ``fields`` has the file's name of ``messages``, ``prompt``, ``response``, ``system`` or ``tools``, if it differs;
    ``{prompt: question + context}`` joins fields, and ``turns[0]`` is a value at any depth. A line may lack ``system``
    and ``tools``. Other arguments and errors as in `read_records`.
    """
    fields = fields or {}
    if unknown := sorted(fields.keys() - set(_NAMES)):
        raise InputError(f"{key}: unknown name '{unknown[0]}'; known are {', '.join(_NAMES)}")
    if "messages" in fields and {"prompt", "response"} & fields.keys():
        raise InputError(f"{key}: give messages, or prompt and response, but not both")
    found: list[Conversation] = []
    bad: list[BrokenLineError] = []
    keys: dict[str, None] = {}
    for line in source.read("give a file") if isinstance(source, HubData) else read_file(source, bad.append):
        keys.update(dict.fromkeys(line.values))
        try:
            turns, tools = _read(line.values, fields)
            _check(turns)
            found.append(Conversation(turns, tools, line.where, line.number))
        except BadLineError as error:
            text = json.dumps(line.values, default=str, ensure_ascii=False)
            bad.append(BrokenLineError(line.number, line.where, str(error), text))
    check_names(source, fields, keys)
    if not found:
        unknown_form = any(line.reason == _NO_FORM for line in bad)
        hint = f"; there are the fields {', '.join(keys)}: {_FORMS.replace('{key}', key)}" if unknown_form else ""
        raise InputError(f"{source}: no good line ({bad_lines(bad)}){hint}")
    if bad:
        report_bad_lines(source, bad, len(found), strict, rejected_dir)
    return found


def _read(
    values: Mapping[str, Any], fields: Mapping[str, str]
) -> tuple[tuple[Turn, ...], tuple[Mapping[str, Any], ...]]:
    """Turns and tools of a line."""
    row = {name: value for name, value in values.items() if value is not None}
    join_fields(row, [name for ours, name in fields.items() if ours not in _BESIDE])
    join_fields(row, [name for ours, name in fields.items() if ours in _BESIDE], optional=True)
    turns = _conversation(row, fields) or _pair(row, fields)
    if turns is None:
        raise BadLineError(_NO_FORM)
    name = fields.get("system", "system")
    system = row.get(name)
    if (before := system_turn(system, name)) and turns[0].role == "system":
        raise BadLineError(TWO_SYSTEMS)
    return (*before, *turns), tuple(_schemas(row.get(fields.get("tools", "tools"))))


def _conversation(row: Mapping[str, Any], fields: Mapping[str, str]) -> list[Turn] | None:
    if {"prompt", "response"} & fields.keys():
        return None
    if "messages" in fields:
        return read_turns(row[fields["messages"]], fields["messages"])
    # An empty cell of a table is no chat.
    name = next((name for name in CHATS if row.get(name, "") != ""), None)
    return None if name is None else read_turns(row[name], name)


def _pair(row: dict[str, Any], fields: Mapping[str, str]) -> list[Turn] | None:
    named = {"prompt", "response"} & fields.keys()
    pairs = ((fields.get("prompt", "prompt"), fields.get("response", "response")),) if named else _PAIRS
    pair = next((p for p in pairs if {p[0], p[0].split("+")[0].strip()} & row.keys() and p[1] in row), None)
    if pair is None:
        return None
    join_fields(row, pair)
    # What is asked or answered may be called history itself.
    is_read = "history" in re.findall(r"\w+", " ".join((*pair, *fields.values())))
    history = [] if is_read else [Turn(role, text) for role, text in _history(row.get("history"))]
    history += read_turns(row["earlier"], "earlier") if row.get("earlier") else []
    asked, answered = row[pair[0]], row[pair[1]]
    # A response beside a plain request may be JSON that is to be learnt as it is.
    answer = [Turn("assistant", answered)] if isinstance(answered, str) and not _is_chat(asked) else None
    return history + _side(asked, "user", pair[0]) + (answer or _side(answered, "assistant", pair[1]))


def _is_chat(value: Any) -> bool:
    """Whether a value is a list, or the JSON text of turns whose roles are known."""
    chat = chat_of(value)
    if not isinstance(value, str):
        return chat is not None
    return bool(chat) and all(_SAID & turn.keys() and role_of(turn) for turn in chat or ())


def _side(value: Any, role: Role, name: str) -> list[Turn]:
    """One side of a pair: a text, a number, or turns, in a table as their JSON text."""
    if isinstance(value, str) and not _is_chat(value):
        return [Turn(role, value)]
    chat = chat_of(value)
    if is_number(value):
        return [Turn(role, str(value))]
    if chat is not None:
        return read_turns(chat, name)
    raise BadLineError(f"field {name!r} must be a text or a list of turns, not {json.dumps(value, default=str)[:40]}")


def _history(value: Any) -> Iterator[tuple[Role, str]]:
    remedy = "call turns 'earlier', and rename it if it is something else"
    try:
        pairs = as_list(value, "history") if value else ()
    except BadLineError as error:
        raise BadLineError(f"{error}; {remedy}") from error
    for pair in pairs:
        if not (isinstance(pair, list | tuple) and len(pair) == 2 and all(isinstance(text, str) for text in pair)):
            raise BadLineError(f"field 'history' must be a list of pairs of texts; {remedy}")
        yield from (("user", pair[0]), ("assistant", pair[1]))


def _schemas(value: Any) -> Iterator[Mapping[str, Any]]:
    """Tools as JSON schemas; a list, its JSON text, or a list of JSON texts."""
    for tool in as_list(value, "tools") if value else ():
        tool = parse_json(tool, "tools")
        if not isinstance(tool, Mapping):
            raise BadLineError("field 'tools' must be a list of JSON schemas")
        yield tool if "function" in tool else {"type": "function", "function": tool}


def _check(turns: Sequence[Turn]) -> None:
    """Raise if there is nothing to learn, or a turn that would teach nothing or the wrong thing."""
    asked = False
    learnt = 0
    for number, turn in enumerate(turns, start=1):
        asked = asked or turn.role in ("user", "tool")
        if turn.role == "user" and not turn.content.strip():
            raise BadLineError("the request is empty" if len(turns) < 4 else f"turn {number} is empty")
        if turn.role == "assistant" and not (turn.content.strip() or turn.tool_calls):
            raise BadLineError("the response is empty" if len(turns) < 4 else f"turn {number} is empty")
        learnt += turn.role == "assistant" and asked and turn.weight > 0
    if not learnt:
        raise BadLineError("no turn of the assistant to learn")
