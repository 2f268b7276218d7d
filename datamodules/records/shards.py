"""Append-only JSONL files, one for each process of an interruptible run, and their merger into one file."""

import glob
import json
import logging
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from datamodules.errors import InputError
from datamodules.records.reader import HALVES, to_json
from datamodules.writing import naming, replacing

_log = logging.getLogger(__name__)


class JsonlShard:
    """A JSONL file of one process's records, each with an ``id``; the process may be killed at any moment.

    Flushed records stay. An incomplete last line, left by a kill, is cut off when the file is opened again.
    """

    def __init__(self, path: Path):
        self.path = path
        self._buffer: list[str] = []
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("ab+")
        self._repair()

    def __enter__(self) -> "JsonlShard":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def append(self, record: Any) -> None:
        """Buffer a record (a dataclass) until the next `flush`."""
        self._buffer.append(to_json(record) + "\n")

    def flush(self) -> None:
        """Write all buffered records to the disk."""
        if self._buffer:
            with naming(self.path):
                self._file.write("".join(self._buffer).encode("utf-8", HALVES))
                self._buffer.clear()
                self._file.flush()
                os.fsync(self._file.fileno())

    def close(self) -> None:
        """Flush and close; a second call does nothing."""
        if not self._file.closed:
            self.flush()
            self._file.close()

    def _repair(self) -> None:
        content_end = self._file.seek(0, os.SEEK_END)
        start, tail = content_end, b""
        while start > 0 and b"\n" not in tail:
            step = min(start, 1 << 16)
            start -= step
            self._file.seek(start)
            tail = self._file.read(step) + tail
        torn = tail[tail.rfind(b"\n") + 1 :]
        if torn and _is_record(torn):  # without its end of line only, and counted as written
            self._file.write(b"\n")
        elif torn:
            self._file.truncate(content_end - len(torn))
            _log.warning("%s: cut off an incomplete last line: %s", self.path, torn.decode("utf-8", errors="replace"))


def _is_record(line: bytes) -> bool:
    try:
        values = json.loads(line)
    except ValueError:
        return False
    return isinstance(values, dict) and "id" in values


def merge_shards(shards: Path | str, out: Path) -> int:
    """Merge shards into one file, sorted by id; returns the number of records. The first line of an id counts.

    ``shards`` is a glob pattern such as ``traces/rank*.jsonl``, or a folder, which stands for its ``*.jsonl``. ``out``
    and ``*.rejected.jsonl`` are no shards. The result depends on neither the number of processes nor interruptions.
    InputError if no file matches.
    """
    pattern = f"{glob.escape(str(shards))}/*.jsonl" if Path(shards).is_dir() else str(shards)
    found = sorted(Path(path) for path in glob.glob(pattern) if not path.endswith(".rejected.jsonl"))
    paths = [path for path in found if path.resolve() != out.resolve()]
    if not paths:
        raise InputError(f"{shards}: no shard to merge; check the folder or pattern")
    lines: dict[str, str] = {}
    for path in paths:
        for record_id, line in id_lines(path):
            lines.setdefault(record_id, line)
    write_lines(out, (line for _, line in sorted(lines.items())))
    return len(lines)


def write_lines(path: Path, lines: Iterable[str]) -> None:
    """Write a text file as a whole or not at all; create its folder if missing. For half a character see `HALVES`."""
    with replacing(path) as file:
        file.writelines((line + "\n").encode("utf-8", HALVES) for line in lines)


def id_lines(path: Path) -> Iterator[tuple[str, str]]:
    """Yield the id and the text of each line; warn about lines without an id, such as incomplete ones."""
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                yield str(json.loads(line)["id"]), line.decode("utf-8").rstrip("\r\n")
            except (ValueError, TypeError, KeyError):
                _log.warning("%s:%d: skipped; it is not a record with an id: %.200r", path, number, line)
