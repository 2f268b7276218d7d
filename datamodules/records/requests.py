"""Requests that may come after other turns: what records have of them, and how a chat becomes one."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import field
from typing import Any, ClassVar

from datamodules.records.turns import CHATS, TWO_SYSTEMS, Turn, chat_of, read_turns, system_turn
from datamodules.records.validation import BadLineError


def earlier_turns() -> Any:
    """A record's field for the turns before its request; files leave it out if there are none."""
    return field(
        default=(),
        metadata={"read": _turns, "brief": True},
    )


def template_arguments() -> Any:
    """A record's field for the arguments of the chat template; files leave it out if there are none."""
    return field(default_factory=dict, metadata={"read": _mapping, "brief": True}, hash=False)


def _turns(value: Any, name: str) -> tuple[Turn, ...]:
    if isinstance(value, tuple) and all(isinstance(turn, Turn) for turn in value):  # `part_chat` has read them
        return value
    try:
        return tuple(read_turns(value, name)) if value else ()
    except BadLineError as error:
        remedy = f"{name!r} is for the turns before the request, so rename it if it is something else"
        raise BadLineError(f"{error}; {remedy}") from error


def _mapping(value: Any, name: str) -> Mapping[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise BadLineError(f"field {name!r} must be an object, not {json.dumps(value, default=str)[:40]}")
    return value


def transcript(earlier: Sequence[Turn], request: str) -> str:
    r"""A request as text with the turns before it, to tell it from others and to show it; alone if there are none.

    >>> transcript([Turn("user", "Hi!"), Turn("assistant", "Hello.")], "Who are you?")
    'user: Hi!\n\nassistant: Hello.\n\nuser: Who are you?'
    """
    if not earlier:
        return request
    return "\n\n".join(f"{turn.role}: {turn.content}" for turn in (*earlier, Turn("user", request)))


class Request:
    """Base class of records of a request that may come after other turns.

    Attributes:
        request_field: Name of the field of the request.
        response_field: Name of the field of the answer to it, if the record has one.
        earlier: The turns before the request.
    """

    request_field: ClassVar[str] = "question"
    response_field: ClassVar[str | None] = None
    earlier: tuple[Turn, ...]

    @property
    def asked(self) -> str:
        """The request with the turns before it, to tell it from others."""
        return transcript(self.earlier, getattr(self, self.request_field))


def put_system_before(values: dict[str, Any], name: str) -> None:
    """Put the text of a system prompt that stands beside a request before its ``earlier`` turns, in place.

    `BadLineError` if these begin with another one, or cannot be read.
    """
    if not isinstance(values.get("system"), str):
        return
    turns = [*system_turn(values.pop("system")), *_turns(values.get(name), name)]
    if [turn.role for turn in turns[:2]] == ["system", "system"]:
        raise BadLineError(TWO_SYSTEMS)
    if turns:
        values[name] = tuple(turns)


def part_chat(values: dict[str, Any], request: str, response: str | None = None) -> None:
    """Part a chat among the values of a line: the last request of the user, ``earlier`` turns, and the answer to it.

    Args:
        values: The line. The chat is in the field of the request, or if that is empty, in one of `CHATS`, as a list of
            turns or its JSON text. It gets ``request``, ``earlier`` and, unless it has one, ``response``.
        request: The field of the request.
        response: The field of the answer to the last request. Without it, what is said after that is left out.

    Raises:
        BadLineError: A turn is none, the user says nothing, there are two system prompts, or tools, which prompts would
            lack.
    """
    name = request if chat_of(values.get(request)) is not None else None
    if name is None and values.get(request) in (None, ""):
        name = next((name for name in CHATS if values.get(name) not in (None, "")), None)
    if name is None:
        return
    if values.get("tools"):
        raise BadLineError(f"field 'tools': the prompt of a request in {name!r} would lack them; leave such chats out")
    turns = [*system_turn(values.pop("system", None)), *read_turns(values[name], name)]
    if [turn.role for turn in turns[:2]] == ["system", "system"]:
        raise BadLineError(TWO_SYSTEMS)
    last = max((place for place, turn in enumerate(turns) if turn.role == "user"), default=None)
    if last is None:
        raise BadLineError(f"field {name!r} has no turn of the user")
    for number, turn in enumerate(turns[:last], start=1):
        if not (turn.content.strip() or turn.tool_calls):
            raise BadLineError(f"field {name!r}: turn {number} is empty")
    values[request], values["earlier"] = turns[last].content, tuple(turns[:last])
    if response is None or response in values or last + 1 == len(turns):
        return
    answer, *more = turns[last + 1 :]
    if answer.tool_calls or more:
        raise BadLineError(f"field {name!r}: the answer to the last request has several turns; leave such chats out")
    thought = f"<think>\n{answer.thought}\n</think>\n\n" if answer.thought else ""
    values[response] = thought + answer.content
