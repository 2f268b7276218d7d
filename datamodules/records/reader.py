"""Read files of records, and write them as JSONL."""

import json
import logging
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import MISSING
from dataclasses import fields as dataclass_fields
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, get_args

from datamodules.errors import InputError
from datamodules.records.files import BrokenLineError, read_file
from datamodules.records.kinds import System
from datamodules.records.requests import Request, part_chat, put_system_before
from datamodules.records.turns import CHATS, Turn
from datamodules.records.validation import BadLineError, parser

_log = logging.getLogger(__name__)

T = TypeVar("T")

_PATH = re.compile(r"\w+(?:\[-?\d+\]|\.\w+)*")
_STEP = re.compile(r"(\w+)|\[(-?\d+)\]")
_ABSENT = object()
HALVES = "backslashreplace"
"""Error handler for writing JSON as UTF-8: half a character (a lone surrogate, which UTF-8 cannot hold) becomes its
JSON escape ``\\ud83d``."""


def to_json(record: Any) -> str:
    """Return a record as one line of JSON, without the line break."""
    return json.dumps(_values(record), default=_values, ensure_ascii=False, allow_nan=False)


def _values(record: Any) -> dict[str, Any]:
    """The fields of a dataclass; much faster than ``asdict``, which copies all that is in them."""
    if isinstance(record, Turn):
        return record.as_json()
    record_type: Any = type(record)
    names, brief = _names(record_type)
    return {name: getattr(record, name) for name in names if name not in brief or getattr(record, name)}


@cache
def _names(record_type: Any) -> tuple[tuple[str, ...], frozenset[str]]:
    """The names of the fields, and those of fields that are left out if they are empty."""
    fields = dataclass_fields(record_type)
    return tuple(field.name for field in fields), frozenset(field.name for field in fields if "brief" in field.metadata)


def read_records(
    path: Path | str,
    record_type: type[T],
    *,
    fields: dict[str, str] | None = None,
    strict: bool = False,
    gold_pattern: str | None = None,
    rejected_dir: Path | None = None,
    key: str = "",
) -> list[T]:
    """Read and validate a file of records: JSONL, or any other file that `read_file` reads. Empty lines are skipped.

    A line is bad if it is not a JSON object, lacks a field, has one of the wrong type, repeats an id, or has an empty
    question. A missing or empty ``id`` becomes ``{file stem}-{line number}``. Ids, gold answers and responses may be
    numbers. Further fields are ignored.

    If the record has ``earlier`` turns, the request may be a chat, in ``messages`` or ``conversations`` or as a list of
    turns in place of the text; see `part_chat`. A text ``system`` beside a request is the turn before it, unless the
    record has a field of that name.

    Args:
        path: The file.
        record_type: A dataclass.
        fields: The file's name of a field, by the record's: ``{"gold": "answer"}``. A field in ``fields`` is required.
            ``{"prompt": "instruction + input"}`` joins several fields by an empty line; only the first is required.
            ``{"question": "messages[0].content"}`` is a value at any depth.
        strict: Stop at bad lines. By default they are written to ``{stem}.rejected.jsonl`` with line number and
            reason, and a warning counts them.
        gold_pattern: As in `extract_gold`. A gold answer without a match makes a line bad.
        rejected_dir: Folder for bad lines if the file's own folder is not writable.
        key: What the user calls ``fields``, for errors: ``data.fields``, ``--field``. Empty if they cannot be mapped.

    Raises:
        InputError: The file cannot be read or has no good line, most of its lines repeat the id of another record,
            ``fields`` or the pattern do not fit, or ``strict`` and a line is bad.

    >>> import tempfile
    >>> from datamodules.records.kinds import Question
    >>> with tempfile.NamedTemporaryFile("w", suffix=".jsonl") as file:
    ...     _ = file.write('{"id": "a", "question": "1 + 1?", "answer": 2}')
    ...     file.flush()
    ...     read_records(file.name, Question, fields={"gold": "answer"})
    [Question(id='a', question='1 + 1?', gold='2', earlier=())]
    """
    path, fields = Path(path), fields or {}
    parse = parser(record_type, fields, key)
    # A chat has the request, and perhaps the response, in its turns.
    kind: Any = record_type
    own = _names(kind)[0]
    in_chats = {record_type.request_field, record_type.response_field} if issubclass(record_type, Request) else set()
    good: dict[Any, T] = {}
    others = 0
    bad: list[BrokenLineError] = []
    keys: dict[str, None] = {}
    for line in read_file(path, bad.append):
        values = dict(line.values)
        keys.update(dict.fromkeys(values))
        try:
            _join(values, fields, in_chats)
            if issubclass(record_type, Request):
                request, response = record_type.request_field, record_type.response_field
                part_chat(values, fields.get(request, request), response and fields.get(response, response))
                is_prompt = values.get("system") not in get_args(System)  # our own files name instructions so
                if is_prompt and "system" not in own and not {"system", "earlier"}.intersection(fields):
                    put_system_before(values, "earlier")
            if "id" not in fields and values.get("id") in (None, ""):
                values["id"] = f"{path.stem}-{line.number}"
            if gold_pattern is not None:
                _cut_gold(values, fields.get("gold", "gold"), gold_pattern)
            record = parse(values)
            name = getattr(record, "id", line.number)
            if name in good:
                others += record != good[name]
                raise BadLineError(f"id {name!r} is in an earlier line too")
            good[name] = record
        except BadLineError as error:
            text = json.dumps(line.values, default=str, ensure_ascii=False)
            bad.append(BrokenLineError(line.number, line.where, str(error), text))
    has_chats = not keys.keys().isdisjoint(CHATS)
    check_names(
        path,
        {ours: of for ours, of in fields.items() if not (has_chats and ours in in_chats and of.isidentifier())},
        keys,
    )
    if not good:
        hint = f"; there are the fields {', '.join(keys)}; {_needed(record_type, key)}" if keys else ""
        raise InputError(f"{path}: no good line ({bad_lines(bad)}){hint}")
    if others > len(good):
        remedy = f"name another field as id with {key}, as in {{id: FIELD}}" if key.endswith("fields") else ""
        raise InputError(
            f"{path}: {others} of {len(good) + len(bad)} lines have the id of another record and would be left out "
            f"({bad_lines(bad)}); {remedy or 'rename the field'}, or leave it out, and each line gets an id"
        )
    if bad:
        report_bad_lines(path, bad, len(good), strict, rejected_dir)
    return list(good.values())


def _needed(record_type: type[Any], key: str) -> str:
    """What a record needs, and what to do if a file calls it otherwise."""
    known = [f.name for f in dataclass_fields(record_type) if f.default is MISSING and f.default_factory is MISSING]
    names = ", ".join(name for name in known if name != "id")
    return f"a record needs {names}: " + (f"say with {key} what it is called there" if key else "rename the fields")


def check_names(source: object, fields: Mapping[str, str], keys: Collection[str]) -> None:
    """Raise `InputError` if no line has a field that ``fields`` names; ``keys`` are those of all lines."""
    if absent := [f"{name!r} (for {ours!r})" for ours, name in fields.items() if keys and _unknown(name, keys)]:
        raise InputError(f"{source}: no line has the field {', '.join(absent)}; there are {', '.join(keys)}")


def bad_lines(bad: Sequence[BrokenLineError]) -> str:
    """The first three bad lines, and how many more there are."""
    return "; ".join(map(str, bad[:3])) + (f"; and {len(bad) - 3} more" if len(bad) > 3 else "")


def report_bad_lines(
    source: object, bad: Sequence[BrokenLineError], n_good: int, strict: bool, rejected_dir: Path | None = None
) -> None:
    """Write bad lines of a file or set to ``{stem}.rejected.jsonl`` and warn; arguments as in `read_records`.

    InputError if ``strict``.
    """
    text = f"{source}: {len(bad)} of {len(bad) + n_good} lines are bad"
    if strict:
        raise InputError(f"{text}: {bad_lines(bad)}")
    _log.warning("%s, %s: %s", text, _set_aside(source, bad, rejected_dir), bad_lines(bad))


def extract_gold(text: str, pattern: str) -> str | None:
    """The answer in a longer text: the group of ``pattern`` in its last match. InputError if it has not one group.

    >>> extract_gold("Two and two are four. #### 4", "#### (.+)")
    '4'
    """
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise InputError(f"gold pattern {pattern!r}: not a regular expression: {error}") from error
    if compiled.groups != 1:
        raise InputError(f"gold pattern {pattern!r}: it needs one group around the answer, as in '#### (.+)'")
    last = None
    for match in compiled.finditer(text):
        last = match
    return last[1].strip() if last and last[1] else None


def join_fields(values: dict[str, Any], names: Iterable[str], optional: bool = False) -> None:
    """Add what stands at a path, under the name ``a[0].b``, and the joined text of several, under ``a + b``.

    BadLineError if the first field of a name is missing, and not ``optional``; or one of several is no text.
    """
    for name in names:
        if name in values:
            continue
        parts = [part.strip() for part in name.split("+")]
        found = {part: _at(values, part) for part in parts}
        if optional and all(value is _ABSENT for value in found.values()):
            continue
        if found[parts[0]] is _ABSENT and not optional:
            raise BadLineError(f"field {parts[0]!r} is missing")
        if len(parts) == 1:
            values[name] = found[name]
            continue
        texts = {part: value for part, value in found.items() if value is not _ABSENT and value is not None}
        if bad := [part for part, text in texts.items() if not isinstance(text, str)]:
            raise BadLineError(f"field {bad[0]!r} is not a text")
        values[name] = "\n\n".join(text.strip() for text in texts.values() if text.strip())


def _join(values: dict[str, Any], fields: Mapping[str, str], in_chats: Collection[str | None]) -> None:
    """`join_fields`; a line with a chat may lack the field of what is ``in_chats``, but no place within the chat."""
    for ours, name in fields.items():
        try:
            join_fields(values, [name])
        except BadLineError:
            if ours not in in_chats or not name.isidentifier() or values.keys().isdisjoint(CHATS):
                raise


def _at(values: Mapping[str, Any], path: str) -> Any:
    """The value at a path such as ``turns[0]`` or ``messages[-1].content``; `_ABSENT` if there is none."""
    if path in values:
        return values[path]
    found: Any = values
    for name, index in _STEP.findall(path) if _PATH.fullmatch(path) else [("", "")]:
        try:
            found = found[int(index)] if index and isinstance(found, list) else found[name]
        except (LookupError, TypeError):
            return _ABSENT
    return found


def _unknown(name: str, keys: Collection[str]) -> bool:
    return name not in keys and not all(
        part.strip() in keys or re.split(r"[.\[]", part.strip())[0] in keys for part in name.split("+")
    )


def _cut_gold(values: dict[str, Any], name: str, pattern: str) -> None:
    text = values.get(name)
    if isinstance(text, str):
        values[name] = extract_gold(text, pattern)
        if values[name] is None:
            raise BadLineError(f"field {name!r}: no match of the gold pattern {pattern!r}")


def _set_aside(source: object, bad: Sequence[BrokenLineError], rejected_dir: Path | None) -> str:
    """Write bad lines to a file; return where, for the warning."""
    rows = ({"line": line.number, "reason": line.reason, "text": line.text} for line in bad)
    lines = [json.dumps(row, ensure_ascii=False) for row in rows]
    folders = (source.parent, rejected_dir) if isinstance(source, Path) else (rejected_dir,)
    stem = source.stem if isinstance(source, Path) else re.sub(r"\W+", "-", str(source)).strip("-")
    for folder in folders:
        if folder is None:
            continue
        target = folder / f"{stem}.rejected.jsonl"
        try:
            target.write_text("\n".join(lines) + "\n", encoding="utf-8", errors=HALVES)
        except OSError:
            continue
        return f"written to {target}"
    return "and there is no writable folder for them"
