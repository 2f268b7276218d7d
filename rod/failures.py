"""Errors that are no bugs, as a line each: what is wrong, where, and what to do."""

import sys

from datamodules.errors import InputError

WRONG_INPUT, STOPPED = 2, 128 + 15


def explain_failure(error: BaseException) -> tuple[int, str] | None:
    """The exit status and the line of an error; None for a bug, which keeps its traceback."""
    wrong = _find(error, InputError)
    if wrong is not None:
        return WRONG_INPUT, f"error: {wrong}"
    if _is_from_lightning(error, "SIGTERMException"):
        return STOPPED, "stopped by SIGTERM"
    return None


def _is_from_lightning(error: BaseException, name: str) -> bool:
    """Whether an error has a class of Lightning, which a light verb must not import for that."""
    exceptions = sys.modules.get("lightning.pytorch.utilities.exceptions")
    return exceptions is not None and isinstance(error, getattr(exceptions, name))


def _find(error: BaseException | None, kind: type[BaseException]) -> BaseException | None:
    """The error of a kind among an error and its causes: parsers wrap what a constructor raises."""
    while error is not None and not isinstance(error, kind):
        error = error.__cause__ or error.__context__
    return error
