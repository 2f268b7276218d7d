"""Make a dataclass of a JSON object, and check its names, types and text."""

import json
import math
import types
from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from datamodules.errors import InputError
from datamodules.records.files import WrittenFloat, read_file

T = TypeVar("T")


class BadLineError(Exception):
    """A line cannot be used; the message says why."""


_hints = cache(get_type_hints)
_MAY_BE_NUMBERS = {"id", "question_id", "gold", "response", "responses"}
"""Fields of texts that files have as numbers: names, and what answers a question of arithmetic."""


def parser(record_type: type[T], names: dict[str, str], key: str = "") -> Callable[[dict[str, Any]], T]:
    """Return a function that makes a record of a JSON object, or raises `BadLineError`.

    ``names`` has the object's name of a field, by the record's, if they differ; such a field is required. Fields may be
    of type str, int, float, bool, None, Literal, tuple of any length, and dataclass. A field with ``formerly`` in its
    metadata is also read by that name, which files of earlier versions use; one with ``or_one`` may be a single value
    in place of a list; one with ``read`` is made by that function of value and name. Half a character in a text makes a
    line bad, because tokenizers refuse it; unless the class has ``any_text = True``. So does an empty question, or an
    empty text in a field that the class names in ``not_empty``.
    InputError, with the option ``key`` that gave ``names``, if the record has no field in them.
    """
    described: Any = record_type
    hints, known = _hints(described), fields(described)
    any_text = getattr(record_type, "any_text", False)
    not_empty = {"question", *getattr(record_type, "not_empty", ())}
    if unknown := names.keys() - {field.name for field in known}:
        have = ", ".join(field.name for field in known)
        raise InputError(
            f"{key or 'fields'}: {record_type.__name__} has no {', '.join(sorted(unknown))}; it has {have}"
        )

    def parse(values: dict[str, Any]) -> T:
        converted = {}
        for field in known:
            name = names.get(field.name, field.name)
            if name not in values and "formerly" in field.metadata:
                name = field.metadata["formerly"]
            if name in values:
                given = values[name]
                if "read" in field.metadata:
                    converted[field.name] = field.metadata["read"](given, name)
                    continue
                if "or_one" in field.metadata and not isinstance(given, list):
                    given = [given]
                value = _convert(given, hints[field.name], name, field.name, any_text)
                if field.name in not_empty and isinstance(value, str) and not value.strip():
                    raise BadLineError(f"empty {field.name}" + (f" (field {name!r})" if name != field.name else ""))
                converted[field.name] = value
            elif field.name in names or (field.default is MISSING and field.default_factory is MISSING):
                raise BadLineError(f"field {name!r} is missing")
        return record_type(**converted)

    return parse


def _convert(value: Any, hint: Any, name: str, ours: str, any_text: bool) -> Any:
    """Convert a JSON value to the type ``hint``; ``name`` is the field's name in the file, ``ours`` in the record."""
    kind, options = get_origin(hint), get_args(hint)
    if kind in (Union, types.UnionType):
        if value is None and type(None) in options:
            return None
        (hint,) = (option for option in options if option is not type(None))
        return _convert(value, hint, name, ours, any_text)
    if kind is Literal and value in options:
        return value
    if kind is tuple and isinstance(value, list):
        return tuple(_convert(entry, options[0], f"{name}[{i}]", ours, any_text) for i, entry in enumerate(value))
    if isinstance(value, float) and not math.isfinite(value) and (hint is float or type(value) is float):
        raise BadLineError(f"field {name!r}: {json.dumps(value)} is not a number")
    if hint is float and (isinstance(value, float) or (type(value) is int and abs(value) < 2**53)):
        return float(value)
    if hint is str and type(value) in (int, float, WrittenFloat) and ours in _MAY_BE_NUMBERS:
        return str(value)
    if hint is str and isinstance(value, str):
        if not any_text:
            check_text(value, name)
        return value
    if isinstance(value, dict) and is_dataclass(hint):
        nested: Any = hint
        return parser(nested, {})(value)
    if type(value) is hint:
        return value
    wanted = " or ".join(map(repr, options)) if kind is Literal else getattr(kind or hint, "__name__", str(hint))
    raise BadLineError(f"field {name!r} must be {wanted}, not {json.dumps(value, default=str)[:40]}")


def check_text(text: str, name: str) -> None:
    """Raise `BadLineError` if a text has half a character, which tokenizers refuse."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise BadLineError(f"field {name!r} has half a character at position {error.start}") from error


def text_fields(path: Path) -> Iterator[list[str]]:
    """Yield all strings of each record of a file, in fields of any name and at any depth.

    InputError if the file cannot be read, or a line is broken.
    """
    for line in read_file(path):
        yield list(_texts(line.values))


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping | list | tuple):
        for entry in value.values() if isinstance(value, Mapping) else value:
            yield from _texts(entry)
