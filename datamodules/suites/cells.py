"""What a value of another project's file says: a text, a count, true or false, how a completion ended."""

import math
import re
from typing import Any, Literal

from datamodules.errors import InputError
from datamodules.records.files import Line, is_number, kind_of

FINISHED = ("stop", "eos", "eos_token", "end_turn", "stop_sequence", "finished", "complete", "completed", "true")
CUT = ("length", "max_tokens", "max_new_tokens", "max_length", "model_length", "truncated", "incomplete", "false")
_FALSE = ("", "false", "f", "no", "n", "off", "none", "null", "nan", "na", "n/a", "-", "[]", "{}")
_NUMBER = re.compile(r"\d{1,12}(?:\.\d{0,9})?|nan", re.IGNORECASE)


def is_true(value: Any) -> bool:
    """Whether a value counts as true; a table has texts only, and NaN for what is missing.

    >>> is_true("yes"), is_true("False"), is_true("0.0"), is_true(float("nan")), is_true([])
    (True, False, False, False, False)
    """
    if not isinstance(value, str):
        return bool(value) and value == value
    text = value.strip().lower()
    try:
        return text not in _FALSE and float(text) != 0
    except ValueError:
        return True


def samples_of(value: Any) -> list[Any]:
    """The values of a line's samples: those of a list, or a single one."""
    return list(value) if isinstance(value, list | tuple) else [value]


def count_of(value: Any, line: Line) -> int | None:
    """A number of tokens; None if it is missing. A table has ``12.0`` for 12 as soon as one is.

    InputError if it is no such number.
    """
    if isinstance(value, str):
        value = value.strip()
        value = float(value) if _NUMBER.fullmatch(value) else value
    if value is None or value == "" or value != value:
        return None
    is_count = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not is_count or value != int(value) or value < 0:
        raise InputError(f"{line.where}: --tokens: must be a number of tokens, not {value!r:.40}")
    return int(value)


def text_of(key: str, value: Any, line: Line) -> str:
    """A text; InputError if the value is something else."""
    if not isinstance(value, str):
        remedy = f"; if it is the text, give --{key} 'EXPRESSION | string'" if is_number(value) else ""
        raise InputError(f"{line.where}: --{key}: must be a text, not {kind_of(value)}{remedy}")
    return value


def finish_of(value: Any, line: Line) -> Literal["stop", "length"] | None:
    """How a completion ended; None if that is not known. InputError if the word is unknown."""
    text = "" if value is None else str(value).strip().lower()
    if not text:
        return None
    if text in FINISHED:
        return "stop"
    if text in CUT:
        return "length"
    raise InputError(
        f"{line.where}: --finish: {value!r:.40} is unknown; known are {', '.join((*FINISHED, *CUT))}; map another "
        f"one by the expression, as in \"'stop' if finish_reason == {value!r:.40} else finish_reason\""
    )
