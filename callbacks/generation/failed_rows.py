"""Rows that an engine could not complete while it completed others."""

import json
from dataclasses import dataclass
from pathlib import Path

from datamodules.errors import InputError
from datamodules.records.shards import JsonlShard, id_lines

_FILES = "failed.rank*.rejected.jsonl"


@dataclass(frozen=True)
class FailedRow:
    """A row and why it failed."""

    id: str
    reason: str


class FailedRows:
    """Sets rows of a run aside, in ``failed.rank{r}.rejected.jsonl``; the next run tries them again."""

    def __init__(self, folder: Path, rank: int) -> None:
        """Choose the folder; the file is made with the first row."""
        self.folder, self._file = folder, folder / _FILES.replace("*", str(rank))

    def remove(self) -> None:
        """Remove the files that an earlier run has left."""
        for path in self.folder.glob(_FILES):
            path.unlink()

    def add(self, row_id: str, reason: str) -> None:
        """Set a row aside."""
        with JsonlShard(self._file) as shard:
            shard.append(FailedRow(row_id, reason))

    def read(self) -> list[FailedRow]:
        """The rows that all processes have set aside, by id."""
        lines = [line for path in self.folder.glob(_FILES) for line in id_lines(path)]
        return sorted((FailedRow(row_id, json.loads(line)["reason"]) for row_id, line in lines), key=lambda row: row.id)

    def in_words(self, rows: int, complete: int) -> list[str]:
        """A sentence about what was set aside of so many rows, if anything was; InputError if no row is complete."""
        failed = self.read()
        if not failed:
            return []
        words = f"{len(failed)} of {rows} rows failed (such as '{failed[0].id}': {failed[0].reason})"
        if not complete:
            raise InputError(f"{self.folder}: {words}, and none is complete")
        return [
            f"{words}; they are missing in the results and set aside in {self.folder / _FILES}; the same command tries "
            "them again"
        ]
