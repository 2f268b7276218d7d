"""Errors that are no bugs, as a line each: which file or key, what is wrong, and what to do."""

import errno
import re
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from datamodules.errors import InputError
from datamodules.writing import WRITING
from rod.config_files import with_place
from rod.peers import is_loss, lost_process

FAILED, WRONG_INPUT, STOPPED = 1, 2, 128 + 15
"""Exit statuses: the machine, the input, SIGTERM."""
_LONGEST = 1000
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_OF_RUST = re.compile(r"\(os error (\d+)\)")
"""How safetensors tells the system's errors."""
_UNINSTALLED = re.compile(r"Requirement '[^']+' not met\. HINT: [^\n]+")
"""What Lightning's parts say without their package; the parser has it within pages about all that it has tried."""
_TWICE = re.compile(r"Found more than one stateful callback of type `(\w+)`")
"""What Lightning says of callbacks whose states it could not tell apart in a checkpoint."""
_LOGGERS = {"mlflow", "wandb"}
"""Packages of loggers, whose errors are of classes of their own."""
_REFUSING = {"lightning": "trainer", "lightning_utilities": "trainer", "torch.optim": "model.optimizer"}
"""Package -> the key of the values that it is given and checks."""


def explain_failure(error: BaseException, words: Sequence[str] = ()) -> tuple[int, str] | None:
    """The exit status and the line of an error; None for a bug, which keeps its traceback.

    ``words`` are those of the command: the line names the file of theirs that sets the wrong key.
    """
    causes = list(_chain(error, lambda one: one.__cause__))
    for one in causes:
        # Parsers wrap what a constructor raises.
        if isinstance(one, InputError):
            return WRONG_INPUT, _line(with_place(str(one), words))
    # Libraries fail again when they close the file that the disk has no space for.
    before = list(_chain(error, lambda one: one.__cause__ or (None if one.__suppress_context__ else one.__context__)))
    if any(_errno(one) in _FULL for one in before):
        place = next((f" {path}" for one in before if (path := _written(one))), "")
        remedy = "free some and run the same command again; a fit goes on with --resume auto"
        return FAILED, _line(f"no space is left on the device{place}; {remedy}")
    return next(filter(None, map(_explain, causes)), None)


def _explain(error: BaseException) -> tuple[int, str] | None:
    kind = type(error)
    if kind.__name__ == "SIGTERMException":
        return STOPPED, "stopped by SIGTERM or Ctrl-C; what is done is kept, and the run can go on"
    if is_loss(error):
        return FAILED, _line(f"{lost_process()} ({error})")
    if isinstance(error, OSError) and error.filename is not None:
        return FAILED, _line(f"'{error.filename}': {error.strerror or error}; check the path and its permissions")
    if isinstance(error, UnicodeDecodeError):
        return WRONG_INPUT, _line(f"{_text_of(error)} is not UTF-8 ({error}); save it as UTF-8")
    if isinstance(error, ValueError) and (told := _UNINSTALLED.search(str(error))):
        return WRONG_INPUT, _line(f"trainer: {told[0]}")
    if isinstance(error, RuntimeError) and (twice := _TWICE.match(str(error))):
        return WRONG_INPUT, _line(f"trainer.callbacks: {_alike(twice[1])}")
    if kind.__module__.partition(".")[0] in _LOGGERS:
        return WRONG_INPUT, _line(f"trainer.logger: {error}")
    key = _key_of(error)
    if key and (kind.__name__ == "MisconfigurationException" or isinstance(error, ValueError | ModuleNotFoundError)):
        return WRONG_INPUT, _line(f"{key}: {error}")
    return None


def _alike(name: str) -> str:
    keys = "monitor, mode, every_n_train_steps, every_n_epochs, train_time_interval"
    remedy = f"give one another value of {keys}, or leave" if name == "ModelCheckpoint" else "leave"
    return f"there is more than one {name}, and a checkpoint could not tell them apart; {remedy} one out"


def _chain(error: BaseException, before: Callable[[BaseException], BaseException | None]) -> Iterator[BaseException]:
    one: BaseException | None = error
    while one is not None:
        yield one
        one = before(one)


def _errno(error: BaseException) -> int | None:
    if isinstance(error, OSError):
        return error.errno
    told = _OF_RUST.search(str(error)) if type(error).__name__ == "SafetensorError" else None
    return int(told[1]) if told else None


def _written(error: BaseException) -> str | None:
    """The note of an error that names the file or, of several, the folder that was being written."""
    notes = [note for note in getattr(error, "__notes__", ()) if note.startswith(WRITING)]
    return notes[-1] if notes else None


def _text_of(error: UnicodeDecodeError) -> str:
    """The file whose ``Path.read_text`` has raised an error."""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        if frame.f_code is Path.read_text.__code__:
            return f"'{frame.f_locals['self']}'"
    return "a text"


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
