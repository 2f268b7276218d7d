"""Sources of benchmark records: the Hugging Face hub, a local file, or the synthetic world of the miniature."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from datamodules.errors import InputError
from datamodules.records.files import HubData, Line, missing, numbered, read_file

WORLD = "miniature"


@dataclass(frozen=True)
class LocalFile:
    """A copy of a data set: JSONL, a JSON list, CSV or TSV with a header, or Parquet; see `read_file`.

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
        local: The same data as a local file. It is used if ``data.folder`` is given or there is no hub id; without a
            hub id it need not be in that folder.
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
        return str(path) if path is not None else str(self._hub())

    def path(self) -> Path | None:
        """The local file that is read; None if the hub is."""
        if self.local is None or (self.folder is None and self.hub):
            return None
        if not self.hub and Path(self.local.file).is_file():
            return Path(self.local.file)
        return Path(self.folder or "") / self.local.file

    def local_expressions(self) -> dict[str, str]:
        """The local file's expressions; empty if the hub is read."""
        return self.local.expressions if self.local is not None and self.path() is not None else {}

    def read(self) -> Iterator[Line]:
        """Read the records. InputError if the file or data set does not exist, or a line is broken."""
        path = self.path()
        if path is not None:
            if not path.is_file():
                raise missing(path, "check data.folder and the suite's file")
            return read_file(path)
        if self.hub == WORLD:
            from datamodules.world.suite_records import world_records  # the world imports torch, a file needs none

            return numbered(world_records(self.config, self.split), f"{WORLD} {' '.join(self.config)} {self.split}")
        if not self.hub:
            raise InputError("data.suites: a source needs a hub id or a local file")
        try:
            return self._hub().read("give data.folder, a folder with the suites' files")
        except InputError as error:
            raise InputError(f"data.suites: {error}") from error

    def _hub(self) -> HubData:
        return HubData(self.hub, self.config, self.split, self.revision)
