"""Files that are written as a whole or not at all."""

import os
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

PARTIAL = ".part"
"""Suffix of a file that is being written; a kill leaves one behind, which nobody reads."""
WRITING = "while writing "
"""How the note begins that names the file of an error."""


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Add a note with the name of a file or folder to an error while it is written; the error itself may have none."""
    try:
        yield
    except Exception as error:
        error.add_note(f"{WRITING}'{path}'")
        raise


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Open a file for writing that takes the place of ``path`` when the block ends without an error.

    The bytes are written beside it, flushed to the disk, and renamed: whatever happens, ``path`` is the old file or
    the new one. Its folder is created if missing.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}{PARTIAL}")
    try:
        with naming(path), partial.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
        _flush_folder(path.parent)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def filling(folder: Path, stale: Collection[str] = ()) -> Iterator[Path]:
    """A folder to write files into; they move to ``folder`` if the block has no error.

    They replace files of their names, and earlier files that match a pattern in ``stale``.
    """
    partial = folder / f".{os.getpid()}{PARTIAL}"
    is_new = not folder.exists()
    try:
        partial.mkdir(parents=True)
        with naming(folder):
            yield partial
        for path in [path for pattern in stale for path in folder.glob(pattern)]:
            path.unlink()
        for path in sorted(path for path in partial.rglob("*") if path.is_file()):
            target = folder / path.relative_to(partial)
            target.parent.mkdir(parents=True, exist_ok=True)
            path.chmod(partial.stat().st_mode & 0o666)  # safetensors writes for its owner alone
            path.replace(target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        if is_new:
            with suppress(OSError):  # it holds files
                folder.rmdir()


def _flush_folder(folder: Path) -> None:
    """Flush the new name itself; some systems cannot open a folder, and then it comes with the next flush."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
