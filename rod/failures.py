"""Errors that are no bugs, as a line each: which file or key, what is wrong, and what to do."""

import errno
import os
import re
import sys
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path

from datamodules.errors import InputError

FAILED, WRONG_INPUT, STOPPED = 1, 2, 128 + 15
"""Exit statuses: the machine, the input, SIGTERM."""
_LONGEST = 1000
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_OF_RUST = re.compile(r"\(os error (\d+)\)")
"""How safetensors tells the system's errors."""
_REFUSING = {"lightning": "trainer", "lightning_utilities": "trainer", "torch.optim": "model.optimizer"}
"""Package -> the key of the values that it is given and checks."""
_PATHS = ("path", "output", "save_directory")
"""What functions that write call the file or its folder."""


def explain_failure(error: BaseException) -> tuple[int, str] | None:
    """The exit status and the line of an error; None for a bug, which keeps its traceback."""
    chain = list(_chain(error))
    for one in chain:
        # Parsers wrap what a constructor raises.
        if isinstance(one, InputError):
            return WRONG_INPUT, _line(str(one))
    for one in chain:
        explained = _explain(one, chain)
        if explained is not None:
            return explained
    return None


def _explain(error: BaseException, chain: Sequence[BaseException]) -> tuple[int, str] | None:
    kind = type(error)
    if kind.__name__ == "SIGTERMException":
        return STOPPED, "stopped by SIGTERM; what is done is kept, and the run can go on"
    number = _errno(error)
    if number in _FULL:
        place = f" to write '{path}'" if (path := _file_of(error, chain)) else ""
        remedy = "free some and run the same command again; a fit goes on with --resume auto"
        return FAILED, _line(f"no space is left on the device{place}; {remedy}")
    if isinstance(error, OSError) and error.filename is not None:
        return FAILED, _line(f"'{error.filename}': {error.strerror or error}; check the path and its permissions")
    if isinstance(error, UnicodeError):
        return WRONG_INPUT, _line(f"'{_file_of(error, chain) or 'a text'}' is not UTF-8 ({error}); save it as UTF-8")
    key = _key_of(error)
    if key and (kind.__name__ == "MisconfigurationException" or isinstance(error, ValueError | ModuleNotFoundError)):
        return WRONG_INPUT, _line(f"{key}: {error}")
    return None


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error and its causes."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _errno(error: BaseException) -> int | None:
    if isinstance(error, OSError):
        return error.errno
    told = _OF_RUST.search(str(error)) if type(error).__name__ == "SafetensorError" else None
    return int(told[1]) if told else None


def _file_of(error: BaseException, chain: Sequence[BaseException]) -> str | None:
    """The file of an error: its own, or the innermost path in the functions that it and its effects went through."""
    if isinstance(error, OSError) and error.filename is not None:
        return str(error.filename)
    for one in (error, *chain):
        for frame, _ in reversed(list(traceback.walk_tb(one.__traceback__))):
            me = frame.f_locals.get("self")
            for value in (*(frame.f_locals.get(name) for name in _PATHS), me, getattr(me, "path", None)):
                if isinstance(value, Path) or (isinstance(value, str) and os.sep in value):
                    return str(value)
    return None


def _key_of(error: BaseException) -> str | None:
    """The key of the values that a library refuses, by the package that raised the error itself."""
    frames = traceback.extract_tb(error.__traceback__)
    for name, key in _REFUSING.items():
        package = getattr(sys.modules.get(name), "__file__", None)
        if frames and package and Path(frames[-1].filename).is_relative_to(Path(package).parent):
            return key
    return None


def _line(text: str) -> str:
    text = " ".join(text.split())
    return f"error: {text if len(text) <= _LONGEST else text[:_LONGEST] + ' ...'}"
