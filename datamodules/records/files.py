"""Read the lines of data files: JSONL, JSON lists, tables, Parquet, and data sets of the Hugging Face hub."""

import csv
import gzip
import io
import itertools
import json
import math
import re
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import NoneType
from typing import IO, Any, cast

from datamodules.errors import InputError, first_line


@dataclass(frozen=True)
class Line:
    """One record. ``number`` counts from 1; ``where`` is its place for error messages, such as ``test.jsonl:3``."""

    number: int
    values: Mapping[str, Any]
    where: str


class BrokenLineError(InputError):
    """A line that is no record; ``text`` is what stands there."""

    def __init__(self, number: int, where: str, reason: str, text: str) -> None:
        super().__init__(f"{where}: {reason}")
        self.number, self.where, self.reason, self.text = number, where, reason, text


Broken = Callable[[BrokenLineError], None]
_WRAPPED = re.compile(rb'(?:\xef\xbb\xbf)?\s*\{[^\[]*"(data|records|rows|examples|instances)"\s*:\s*\[\s*\{')
"""The beginning of an object around a list of records."""
_ABOUT = {"version", "name", "description"}
"""What may stand beside that list."""
_OPEN = re.compile(rb"(?:\xef\xbb\xbf)?\s*\{([^\n]*[\[{,:])?[ \r]*\n")
"""The first line of an object that goes over several."""
_OTHER_SEPARATOR = re.compile(r"[\w\"' -]+([;,|\t])[\w\"' -]")
_SPREAD = re.compile(rb'[\[{}\]],?$|"[^"]*"\s*:')
"""The beginning of a line of an object that goes over several."""


@dataclass(frozen=True)
class HubData:
    """A data set of the Hugging Face hub, or a local folder in its form.

    Attributes:
        hub: Hub id, such as ``HuggingFaceH4/ultrachat_200k``, or a folder.
        config: Configurations of the data set; several are read one after the other.
        split: Split of the data set.
        revision: Branch, tag or commit on the hub.
    """

    hub: str
    config: tuple[str, ...] = ()
    split: str = "train"
    revision: str | None = None

    def __str__(self) -> str:
        name = f"{self.hub}@{self.revision}" if self.revision else self.hub
        return f"'{name}' ({', '.join((*self.config, self.split))})"

    def read(self, remedy: str) -> Iterator[Line]:
        """Read the records. ``remedy`` ends the error's text: what to do without network.

        InputError if the package ``datasets`` is not installed, or it cannot load the set.
        """
        try:
            import datasets
        except ImportError as error:
            raise InputError(
                f"'{self.hub}' is on the hub, which needs the 'datasets' package: pip install 'lightning-rod[hub]'; "
                f"or {remedy}"
            ) from error
        parts = []
        for config in self.config or (None,):
            try:
                parts.append(datasets.load_dataset(self.hub, config, split=self.split, revision=self.revision))
            except Exception as error:  # datasets raises many types, from a missing network to a broken file
                raise InputError(
                    f"the data set {self} cannot be loaded: {first_line(error)}; without network, {remedy}"
                ) from error
        return numbered(itertools.chain.from_iterable(parts), self.hub)


def with_project(path: Path) -> Path:
    """The path; if there is no such file and it begins with ``configs/``, the one that comes with the project."""
    own = Path(__file__).parents[2] / path
    return own if path.parts[:1] == ("configs",) and not path.exists() and own.is_file() else path


def missing(path: Path, remedy: str = "check the path") -> InputError:
    """The error of a file that does not exist; it says what writes a file that a command of the project writes."""
    if path.parts[:2] == ("runs", "world"):
        remedy = "`rod world` writes the synthetic world's files"
    elif path.parts[:1] == ("runs",):
        remedy = f"an earlier stage writes it, or {remedy}"
    return InputError(f"{path}: there is no such file; {remedy}")


def read_file(path: Path, broken: Broken | None = None) -> Iterator[Line]:
    """Read the records of a file: JSONL, a JSON list, ``.csv`` and ``.tsv`` (with a header), ``.parquet``.

    A JSON list may stand under ``data``, ``records``, ``rows``, ``examples`` or ``instances`` of one object. All but
    Parquet may be packed: ``.jsonl.gz``. JSON numbers keep their digits as text. ``broken`` takes the error of each
    broken line; by default the first is raised. InputError if the file cannot be read, or has no record.
    """
    empty = True

    def report(error: BrokenLineError) -> None:
        nonlocal empty
        empty = False
        if broken is None:
            raise error
        broken(error)

    name = path.with_suffix("") if path.suffix.lower() == ".gz" else path
    read = {".csv": _csv_lines, ".tsv": _csv_lines, ".parquet": _parquet_rows}.get(name.suffix.lower(), _json)
    try:
        for line in read(path, report):
            empty = False
            yield line
    except FileNotFoundError as error:
        raise missing(path) from error
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error})") from error
    if empty:
        raise InputError(f"{path}: the file has no record")


def numbered(records: Iterable[Mapping[str, Any]], name: str) -> Iterator[Line]:
    """The records of a set that has no lines."""
    for number, values in enumerate(records, start=1):
        yield Line(number, values, f"{name} record {number}")


class WrittenFloat(float):
    """A JSON number whose text is the file's, so that a gold answer keeps all its digits."""

    _text: str

    def __new__(cls, text: str) -> "WrittenFloat":
        """Keep the text; pickle gives it, too."""
        self = super().__new__(cls, text)
        self._text = str(text)
        return self

    def __str__(self) -> str:
        return self._text


def is_number(value: Any) -> bool:
    """Whether a value is a number with a text of its own, as an answer may be."""
    return not isinstance(value, bool) and isinstance(value, int | float) and math.isfinite(value)


def kind_of(value: Any) -> str:
    """What a value of JSON is, in words.

    >>> kind_of(True), kind_of(WrittenFloat("0.50")), kind_of({}), kind_of(None)
    ('a truth value', 'a number', 'an object', 'null')
    """
    kinds: dict[Any, str] = {bool: "a truth value", int | float: "a number", str: "a text", list | tuple: "a list"}
    kinds |= {Mapping: "an object", NoneType: "null"}
    return next((name for kind, name in kinds.items() if isinstance(value, kind)), f"a {type(value).__name__}")


def _open(path: Path) -> IO[bytes]:
    return cast(IO[bytes], gzip.open(path)) if path.suffix.lower() == ".gz" else path.open("rb")


def _parsed(content: bytes) -> Any:
    return json.loads(content.decode("utf-8-sig"), parse_float=WrittenFloat)


def _json(path: Path, broken: Broken) -> Iterator[Line]:
    """One object on each line, or one list of objects, whatever the file is called; or an object around that list."""
    with _open(path) as file:
        head = file.read(4096)
    is_list, wrapped = re.match(rb"(?:\xef\xbb\xbf)?\s*\[\s*[{\]]", head), _WRAPPED.match(head)
    is_open = _OPEN.match(head)
    records: Any = None
    if is_list or wrapped or is_open:
        with _open(path) as file:
            content = file.read()
        try:
            records = _parsed(content)
        except (ValueError, RecursionError) as error:
            if is_list and not re.search(rb"\]\s*\n\s*\[", content):  # no list on each line, but one that is broken
                raise InputError(f"{path}: broken JSON ({error})") from error
    if isinstance(records, dict):
        lists = [name for name, value in records.items() if isinstance(value, list) and dict in map(type, value)]
        if wrapped and records.keys() <= {name := wrapped[1].decode()} | _ABOUT and name in records:
            records = records[name]
        elif is_open and lists:
            raise InputError(
                f"{path}: is one JSON object over several lines; write the list under {lists[0]!r} alone into a file, "
                "or the object on one line if it is a record"
            )
    if isinstance(records, list):
        yield from _json_list(path, records, broken)
    else:
        yield from _json_lines(path, broken)


def _json_list(path: Path, records: Iterable[Any], broken: Broken) -> Iterator[Line]:
    for number, values in enumerate(records, start=1):
        where = f"{path} record {number}"
        if isinstance(values, dict):
            yield Line(number, values, where)
        else:
            broken(BrokenLineError(number, where, _no_object(values), str(values)))


def _json_lines(path: Path, broken: Broken) -> Iterator[Line]:
    with _open(path) as file:
        # Bytes: a line of JSON may hold characters that a text file splits lines at.
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            reason = ""
            try:
                values = _parsed(line)
            except (ValueError, RecursionError) as error:
                reason = f"broken JSON ({error}){_remedy(line)}"
            else:
                if isinstance(values, dict):
                    yield Line(number, values, f"{path}:{number}")
                    continue
                reason = _no_object(values)
            broken(BrokenLineError(number, f"{path}:{number}", reason, line.decode("utf-8", "replace").strip()))


def _no_object(values: Any) -> str:
    return f"not a JSON object but {kind_of(values)}"


def _remedy(line: bytes) -> str:
    """What is probably wrong with a line that is no JSON."""
    try:
        if isinstance(_parsed(line.strip().rstrip(b",")), dict):
            return ": a comma stands behind the object; write one object a line without commas, or one JSON list"
    except (ValueError, RecursionError):
        pass
    if _SPREAD.match(line.strip()):
        return ": an object goes over several lines; write each on one line, or one JSON list of all"
    table = line.strip()[:1] not in (b"{", b"[", b"")
    return ": a table must have a name that ends in .csv, .tsv or .parquet" if table else ""


def _csv_lines(path: Path, broken: Broken) -> Iterator[Line]:
    """Rows of a table whose first row names the columns; all values are texts."""
    with _open(path) as file:
        content = file.read()
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: is not UTF-8 ({error}); save the table as UTF-8") from error
    csv.field_size_limit(sys.maxsize)  # completions are longer than its 128 KiB
    rows = csv.reader(io.StringIO(text, newline=""), delimiter="\t" if ".tsv" in path.name.lower()[-7:] else ",")
    header = next(rows, [])
    if len(set(header)) < len(header):
        raise InputError(f"{path}:1: a column is named twice; the first row must name each column once")
    if len(header) == 1 and (other := _OTHER_SEPARATOR.match(header[0])):
        raise InputError(
            f"{path}:1: there is one column, {header[0]!r}, which {other[1]!r} seems to part; a .csv has commas "
            "between its columns, a .tsv tabs: save it again so"
        )
    start = rows.line_num + 1
    for number, row in enumerate(rows, start=1):
        where, start = f"{path}:{start}", rows.line_num + 1
        if not row:
            continue
        if len(row) == len(header):
            yield Line(number, dict(zip(header, row, strict=True)), where)
        else:
            reason = f"has {len(row)} values for the {len(header)} columns of the first row"
            broken(BrokenLineError(number, where, reason, ", ".join(row)))


def _parquet_rows(path: Path, broken: Broken) -> Iterator[Line]:
    try:
        from pyarrow import ArrowException, parquet
    except ImportError as error:
        raise InputError(f"{path}: reading Parquet needs pyarrow; install it, or save the table as JSONL") from error
    try:
        records = parquet.read_table(path).to_pylist()
    except (OSError, ArrowException) as error:
        raise InputError(f"{path}: cannot be read as Parquet ({error})") from error
    yield from numbered(records, str(path))
