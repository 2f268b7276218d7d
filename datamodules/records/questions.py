"""Read a part of a file of questions."""

from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from datamodules.errors import InputError
from datamodules.records.kinds import Question
from datamodules.records.reader import read_records

T = TypeVar("T")


def read_questions(
    path: Path,
    *,
    fields: dict[str, str] | None = None,
    gold_pattern: str | None = None,
    offset: int = 0,
    limit: int | None = None,
    strict: bool = False,
    rejected_dir: Path | None = None,
    key: str = "",
) -> list[Question]:
    """Read ``limit`` questions of a JSONL file from ``offset`` on; other arguments and errors as in `read_records`."""
    records = read_records(
        path, Question, fields=fields, strict=strict, gold_pattern=gold_pattern, rejected_dir=rejected_dir, key=key
    )
    return part_of(path, records, offset, limit)


def part_of(path: Path, records: Sequence[T], offset: int, limit: int | None) -> list[T]:
    """Return ``limit`` records of a file from ``offset`` on; raise `InputError` if there are none."""
    if offset < 0 or (limit is not None and limit < 1):
        raise InputError(f"data: offset must be 0 or more and limit 1 or more; they are {offset} and {limit}")
    part = list(records[offset : None if limit is None else offset + limit])
    if not part:
        where = f" after the first {offset}" if offset else ""
        raise InputError(
            f"{path}: no record is left{where} of {len(records)}; check the file, data.fields, data.offset"
        )
    return part
