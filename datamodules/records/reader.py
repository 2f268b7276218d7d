"""Read and write JSONL files of records."""

import json
import logging
import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

from datamodules.errors import InputError
from datamodules.records.validation import BadLineError, parser

_log = logging.getLogger(__name__)


T = TypeVar("T")


def to_json(record: Any) -> str:
    """A record as one line of JSON, without a line break."""
    return json.dumps(asdict(record), ensure_ascii=False, allow_nan=False)


def read_records(
    path: Path | str,
    record_type: type[T],
    *,
    fields: dict[str, str] | None = None,
    strict: bool = False,
    gold_pattern: str | None = None,
    rejected_dir: Path | None = None,
) -> list[T]:
    """Read and validate a JSONL file, one record a line; empty lines are skipped.

    A line is bad if it is no JSON object, lacks a field or has one of the wrong type, repeats an id, or its question
    is empty. A missing ``id`` becomes ``{file stem}-{line number}``; ids and gold answers may be numbers; fields that
    the record doesn't know are ignored.

    Args:
        path: The file.
        record_type: A dataclass.
        fields: The file's name of a field, by the record's: ``{"gold": "answer"}``. A field named here must be there.
            Several make one text, with an empty line between those that a line has: ``{"prompt": "instruction +
            input"}``; the first must be there.
        strict: Stop at bad lines. Otherwise they are set aside in ``{stem}.rejected.jsonl`` with line number and
            reason, and counted in a warning.
        gold_pattern: See `extract_gold`; a gold answer without a match makes a line bad.
        rejected_dir: Where to set them aside if the file's own folder cannot be written.

    Raises:
        InputError: The file is missing or empty, has no good line, or (``strict``) a bad one; a field named in
            ``fields`` is unknown or in no line; the pattern is none.
    """
    path, fields = Path(path), fields or {}
    parse = parser(record_type, fields)
    good: dict[Any, T] = {}
    bad: list[tuple[int, str, str]] = []
    keys: dict[str, None] = {}
    for number, line in _lines(path):
        try:
            values = _json_object(line)
            keys.update(dict.fromkeys(values))
            _join(values, fields.values())
            if "id" not in fields and values.get("id") is None:
                values["id"] = f"{path.stem}-{number}"
            if gold_pattern is not None:
                _cut_gold(values, fields.get("gold", "gold"), gold_pattern)
            record = parse(values)
            key = getattr(record, "id", number)
            if key in good:
                raise BadLineError(f"id {key!r} stands in an earlier line")
            good[key] = record
        except BadLineError as error:
            bad.append((number, str(error), line.decode("utf-8", errors="replace")))
    if not good and not bad:
        raise InputError(f"{path}: the file is empty")
    listed = "; ".join(f"{path}:{number}: {reason}" for number, reason, _ in bad[:3])
    listed += f"; and {len(bad) - 3} more" if len(bad) > 3 else ""
    if absent := [f"{name!r} (for {ours!r})" for ours, name in fields.items() if keys and _unknown(name, keys)]:
        raise InputError(f"{path}: no line has the field {', '.join(absent)}; there are {', '.join(keys)}")
    if not good:
        raise InputError(
            f"{path}: no good line ({listed}); there are the fields {', '.join(keys) or '(none)'}: "
            "where they are called otherwise than here, name them with `fields`"
        )
    if bad and strict:
        raise InputError(f"{path}: {len(bad)} of {len(bad) + len(good)} lines are bad: {listed}")
    if bad:
        kept = _set_aside(path, bad, rejected_dir)
        _log.warning("%s: %d of %d lines are bad, %s: %s", path, len(bad), len(bad) + len(good), kept, listed)
    return list(good.values())


def extract_gold(text: str, pattern: str) -> str | None:
    """The answer within a longer text: what the pattern's one group has in its last match; None without a match.

    GSM8K: ``#### (.+)``.

    Raises:
        InputError: The pattern is no regular expression with one group.
    """
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise InputError(f"gold pattern {pattern!r}: no regular expression: {error}") from error
    if compiled.groups != 1:
        raise InputError(f"gold pattern {pattern!r}: it needs one group round the answer, as in '#### (.+)'")
    last = None
    for last in compiled.finditer(text):  # noqa: B007
        pass
    return last[1].strip() if last and last[1] else None


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    try:
        # Bytes, because a line of JSON may hold characters that text files take for line ends.
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                line = line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
                if line.strip():
                    yield number, line.strip()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); check the path") from error


def _json_object(line: bytes) -> dict[str, Any]:
    def no_number(constant: str) -> None:
        raise ValueError(f"{constant} is no number")

    try:
        values = json.loads(line.decode("utf-8"), parse_constant=no_number)
    except (ValueError, RecursionError) as error:
        raise BadLineError(f"broken JSON ({error})") from error
    if not isinstance(values, dict):
        raise BadLineError(f"a JSON object is wanted, not {type(values).__name__}")
    return values


def _join(values: dict[str, Any], names: Iterable[str]) -> None:
    """Add the text that several fields make together, under the name that joins them."""
    for name in names:
        if name in values or "+" not in name:
            continue
        parts = [part.strip() for part in name.split("+")]
        if parts[0] not in values:
            raise BadLineError(f"field {parts[0]!r} is missing")
        texts = {part: values[part] for part in parts if values.get(part) is not None}
        if bad := [part for part, text in texts.items() if not isinstance(text, str)]:
            raise BadLineError(f"field {bad[0]!r} is no text")
        values[name] = "\n\n".join(text.strip() for text in texts.values() if text.strip())


def _unknown(name: str, keys: Collection[str]) -> bool:
    return name not in keys and not all(part.strip() in keys for part in name.split("+"))


def _cut_gold(values: dict[str, Any], name: str, pattern: str) -> None:
    text = values.get(name)
    if isinstance(text, str):
        values[name] = extract_gold(text, pattern)
        if values[name] is None:
            raise BadLineError(f"field {name!r}: no match of the gold pattern {pattern!r}")


def _set_aside(path: Path, bad: list[tuple[int, str, str]], rejected_dir: Path | None) -> str:
    """Write bad lines to a file of their own; says where."""
    lines = [json.dumps({"line": number, "reason": why, "text": text}, ensure_ascii=False) for number, why, text in bad]
    for folder in (path.parent, rejected_dir):
        if folder is None:
            continue
        target = folder / f"{path.stem}.rejected.jsonl"
        try:
            target.write_text("\n".join(lines) + "\n", encoding="utf-8")
        except OSError:
            continue
        return f"set aside in {target}"
    return "and there is no place to set them aside"
