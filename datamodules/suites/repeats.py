"""Find lines of an external file that would count one completion several times."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datamodules.errors import InputError
from datamodules.records.files import Line

_IDS = ("doc_id", "question_id", "problem_id", "task_id", "unique_id", "id", "idx", "uid", "index")
"""Fields that usually name a record."""
_VERSIONS = ("filter",)
"""Fields by which tools write a line for each way of reading one completion."""


@dataclass(frozen=True)
class Entry:
    """A line, its completions, and what it asks."""

    line: Line
    completions: tuple[str, ...]
    asked: tuple[Any, ...]


def check_repeats(path: Path, entries: Sequence[Entry]) -> list[str]:
    """Check lines without given ids for repetitions; return hints on what may be a repetition.

    InputError if two lines are equal, or have the same question, record id and completion, or differ in the filter that
    read them. Each would count.
    """
    first: dict[tuple[Any, ...], Entry] = {}
    shared = 0
    name = next((key for key in _IDS if all(key in entry.line.values for entry in entries)), None)
    for entry in entries:
        key = (entry.asked, str(entry.line.values[name]) if name else None)
        other = first.setdefault(key, entry)
        if other is entry:
            continue
        shared += 1
        a, b = other.line.values, entry.line.values
        apart = [field for field in (*a, *b) if a.get(field) != b.get(field)]
        version = next((field for field in _VERSIONS if field in apart), None)
        same = other.completions == entry.completions
        if not apart or version or (same and name):
            raise _repeated(name, other.line, entry.line, version or next(iter(apart), None))
    if not shared or not name:
        return []
    return [
        f"{path}: {shared:,} lines repeat the question and '{name}' of an earlier line; they are taken as independent "
        f"records. If they are samples of one question, give --cluster {name}"
    ]


def _repeated(name: str | None, first: Line, second: Line, field: str | None) -> InputError:
    where = f"{second.where}: counts the same completion as {first.where} again"
    if field is None:
        return InputError(f"{where}: both lines are equal; remove one, or give --id if each counts")
    value = first.values.get(field)
    shared = f"{name} ({first.values[name]})" if name else "question"
    return InputError(
        f"{where}: they have the same {shared} and another {field} ({value!r:.40}, "
        f'{second.values.get(field)!r:.40}); keep one of them, as in --keep "{field} == {value!r:.40}", or give --id '
        "if each counts"
    )
