"""Sources of benchmark records: the Hugging Face hub, a local file, or the synthetic world of the miniature."""

import csv
import io
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from datamodules.errors import InputError

WORLD = "miniature"


@dataclass(frozen=True)
class Line:
    """One record. ``number`` counts from 1; ``where`` is its place for error messages, such as ``test.jsonl:3``."""

    number: int
    values: Mapping[str, Any]
    where: str


@dataclass(frozen=True)
class LocalFile:
    """A copy of a data set: JSONL, a JSON list, CSV or TSV with a header, or Parquet, by the end of its name.

    Attributes:
        file: Absolute, or relative to ``data.folder`` if that is given, else to the working directory.
        expressions: Expressions that replace the suite's, if the copy has other field names: ``{gold: cop - 1}``.
    """

    file: str
    expressions: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Source:
    """A data set.

    Attributes:
        hub: Hub id, local data set folder, or ``miniature`` for the embedded world.
        config: Configurations of the data set; several are read one after the other.
        split: Split of the data set.
        revision: Branch, tag or commit on the hub.
        local: The same data as a local file. It is used if ``data.folder`` is given or there is no hub id.
        folder: Set from ``data.folder``.
    """

    hub: str = ""
    config: tuple[str, ...] = ()
    split: str = "test"
    revision: str | None = None
    local: LocalFile | None = None
    folder: str | None = field(default=None, repr=False)

    def describe(self) -> str:
        """Describe the source for messages and ``metrics.json``."""
        path = self.path()
        hub = f"{self.hub}@{self.revision}" if self.revision else self.hub
        return str(path) if path is not None else f"'{hub}' ({', '.join((*self.config, self.split))})"

    def path(self) -> Path | None:
        """The local file that is read; None if the hub is."""
        if self.local is None or (self.folder is None and self.hub):
            return None
        return Path(self.folder or "") / self.local.file

    def local_expressions(self) -> dict[str, str]:
        """The local file's expressions; empty if the hub is read."""
        return self.local.expressions if self.local is not None and self.path() is not None else {}

    def read(self) -> Iterator[Line]:
        """Read the records.

        Raises:
            InputError: The file or data set does not exist, or a line is broken.
        """
        path = self.path()
        if path is not None:
            return read_file(path)
        if self.hub == WORLD:
            from datamodules.world.suite_records import world_records  # the world imports torch, a file needs none

            return _numbered(world_records(self.config, self.split), f"{WORLD} {' '.join(self.config)} {self.split}")
        if not self.hub:
            raise InputError("data.suites: a source needs a hub id or a local file")
        return _read_hub(self)


def read_file(path: Path, broken: Callable[[InputError], None] | None = None) -> Iterator[Line]:
    """Read the records of a local file: JSONL, ``.json`` (a list), ``.csv`` and ``.tsv`` (with a header), ``.parquet``.

    Args:
        path: The file.
        broken: Takes the error of each broken line; by default the first one is raised.

    Raises:
        InputError: The file cannot be read, has no record, or a line is broken.
    """

    def raised(error: InputError) -> None:
        raise error

    read = {".csv": _csv_lines, ".tsv": _csv_lines, ".json": _json_list, ".parquet": _parquet_rows}
    found = 0
    for line in read.get(path.suffix.lower(), _json_lines)(path, broken or raised):
        found += 1
        yield line
    if not found:
        raise InputError(f"{path}: the file is empty" if broken is None else f"{path}: the file has no record")


Broken = Callable[[InputError], None]


class _WrittenFloat(float):
    """A JSON number whose text is the file's, so that a gold answer keeps all its digits."""

    _text: str

    def __new__(cls, text: str) -> "_WrittenFloat":
        self = super().__new__(cls, text)
        self._text = str(text)
        return self

    def __str__(self) -> str:
        return self._text


def _parsed(content: bytes) -> Any:
    return json.loads(content.decode("utf-8-sig"), parse_float=_WrittenFloat)


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(
            f"{path}: cannot be read ({error.strerror}); check data.folder and the suite's file"
        ) from error


def _json_lines(path: Path, broken: Broken) -> Iterator[Line]:
    for number, line in enumerate(_content(path).split(b"\n"), start=1):
        if not line.strip():
            continue
        try:
            values = _parsed(line)
        except (ValueError, RecursionError) as error:
            broken(InputError(f"{path}:{number}: broken JSON ({error})"))
            continue
        if isinstance(values, dict):
            yield Line(number, values, f"{path}:{number}")
        else:
            broken(InputError(f"{path}:{number}: each line must be a JSON object, not {type(values).__name__}"))


def _json_list(path: Path, broken: Broken) -> Iterator[Line]:
    """A JSON list of objects; a file with an object per line is read too, whatever its name."""
    content = _content(path)
    if not content.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"["):
        yield from _json_lines(path, broken)
        return
    try:
        records = _parsed(content)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: broken JSON ({error})") from error
    for number, values in enumerate(records, start=1):
        if isinstance(values, dict):
            yield Line(number, values, f"{path} record {number}")
        else:
            broken(InputError(f"{path} record {number}: must be a JSON object, not {type(values).__name__}"))


def _csv_lines(path: Path, broken: Broken) -> Iterator[Line]:
    """Rows of a table whose first row names the columns; all values are texts."""
    try:
        text = _content(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: is not UTF-8 ({error}); save the table as UTF-8") from error
    csv.field_size_limit(sys.maxsize)  # completions are longer than its 128 KiB
    rows = csv.reader(io.StringIO(text, newline=""), delimiter="\t" if path.suffix.lower() == ".tsv" else ",")
    header = next(rows, [])
    if len(set(header)) < len(header):
        raise InputError(f"{path}:1: a column is named twice; the first row must name each column once")
    start = rows.line_num + 1
    for number, row in enumerate(rows, start=1):
        where, start = f"{path}:{start}", rows.line_num + 1
        if not row:
            continue
        if len(row) == len(header):
            yield Line(number, dict(zip(header, row, strict=True)), where)
        else:
            broken(InputError(f"{where}: has {len(row)} values for the {len(header)} columns of the first row"))


def _parquet_rows(path: Path, broken: Broken) -> Iterator[Line]:
    try:
        from pyarrow import ArrowException, parquet
    except ImportError as error:
        raise InputError(f"{path}: reading Parquet needs pyarrow; install it, or save the table as JSONL") from error
    try:
        records = parquet.read_table(path).to_pylist()
    except (OSError, ArrowException) as error:
        raise InputError(f"{path}: cannot be read as Parquet ({error})") from error
    yield from _numbered(records, str(path))


def _read_hub(source: Source) -> Iterator[Line]:
    try:
        import datasets
    except ImportError as error:
        raise InputError(
            f"data.suites: '{source.hub}' is on the hub, which needs the 'datasets' package: pip install "
            "'lightning-rod[hub]'; or give data.folder, a folder with the suites' files"
        ) from error
    records = []
    for config in source.config or (None,):
        try:
            records += list(datasets.load_dataset(source.hub, config, split=source.split, revision=source.revision))
        except Exception as error:  # datasets raises many types, from a missing network to a broken file
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise InputError(
                f"data.suites: the data set {source.describe()} cannot be loaded: {reason}; without network, give "
                "data.folder, a folder with the suites' files"
            ) from error
    yield from _numbered(records, source.hub)


def _numbered(records: list[dict[str, Any]], name: str) -> Iterator[Line]:
    for number, values in enumerate(records, start=1):
        yield Line(number, values, f"{name} record {number}")
