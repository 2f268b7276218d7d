"""When a server is asked again, and when it is given up."""

import math
import threading
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

RETRIED = {408, 409, 425, 429, 500, 502, 503, 504, 529}
"""Status codes of failures that may pass."""
_IN_A_ROW = 16
"""Requests in a row for which a server has failed, after which it is given up; at least (ours)."""


class Failure(Exception):
    """A request that was not answered as it should be.

    Attributes:
        passes: Whether it is the server that has failed, so that another attempt may help; else it has refused this
            request, and would again.
        wait: Seconds that the server wants to be left alone.
        most: Attempts that make sense, if there are fewer than of others.
    """

    def __init__(self, reason: str, passes: bool = False, wait: float | None = None, most: int | None = None) -> None:
        super().__init__(reason)
        self.passes, self.wait, self.most = passes, wait, most


class Attempts:
    """The attempts at one request, with pauses that double or that the server asks for."""

    def __init__(self, most: int, pause: float, max_pause: float) -> None:
        """Set how many there are, and the first and the longest pause in seconds."""
        self.most, self.pause, self.max_pause = most, pause, max_pause
        self.made = 0

    def pause_after(self, failure: Failure) -> float:
        """Count an attempt; seconds until the next. `Failure`, with the number of attempts, if there is none."""
        self.made += 1
        if not failure.passes or self.made >= min(self.most, failure.most or self.most):
            tried = f" (tried {self.made} times)" if self.made > 1 else ""
            raise Failure(f"{failure}{tried}", failure.passes) from failure
        return min(self.max_pause, failure.wait if failure.wait is not None else self.pause * 2.0 ** (self.made - 1))


class Outage:
    """Counts requests for which a server has failed, after all attempts, since the last one that it answered.

    One that it refused says nothing about the others. Threads may share it.

    Attributes:
        limit: Such requests in a row after which the server is given up.
    """

    def __init__(self, at_a_time: int) -> None:
        """Set the number of requests that are made at a time: one bad moment hits all of them."""
        self.limit = max(_IN_A_ROW, 2 * at_a_time)
        self._row, self._lock = 0, threading.Lock()

    def answered(self) -> None:
        """Count a request that the server has answered."""
        with self._lock:
            self._row = 0

    def failed(self, passes: bool) -> None:
        """Count a request that failed; ``passes`` as in `Failure`."""
        with self._lock:
            self._row += passes

    @property
    def is_over(self) -> bool:
        """Whether the server is given up."""
        with self._lock:
            return self._row >= self.limit


def retry_after(headers: Mapping[str, Any]) -> float | None:
    """Seconds of a Retry-After header, given as a number or a date."""
    value = headers.get("retry-after")
    if value is None:
        return None
    try:
        seconds = float(value)
        return max(0.0, seconds) if math.isfinite(seconds) else None
    except ValueError:
        pass
    try:
        return max(0.0, (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds())
    except (TypeError, ValueError):
        return None
