"""One run at a time in a folder."""

import os
import sys
from pathlib import Path

from datamodules.errors import InputError

if sys.platform != "win32":  # which has no such locks
    import fcntl


class RunLock:
    """Holds a folder until `release`, or until the process and those that it has started have ended."""

    def __init__(self) -> None:
        self._handle: int | None = None

    def acquire(self, folder: Path) -> None:
        """Create a folder and lock its file ``.lock``; InputError if another run holds it.

        File systems without locks are let pass.
        """
        if sys.platform == "win32":
            return
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, 0o666)  # network file systems lock what is writable
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(handle)
            raise InputError(
                f"trainer.default_root_dir: another run is at work in '{folder}'; wait for its end, or name another "
                "folder"
            ) from error
        except OSError:
            os.close(handle)
            return
        self._handle = handle

    def release(self) -> None:
        """Let other runs in; without effect if the folder is not held."""
        if self._handle is not None and sys.platform != "win32":
            fcntl.flock(self._handle, fcntl.LOCK_UN)  # a child that was forked has the file open, too
            os.close(self._handle)
            self._handle = None
