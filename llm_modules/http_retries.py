"""When a server may be asked again."""

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

RETRIED = {408, 409, 425, 429, 500, 502, 503, 504, 529}
"""Status codes of failures that may pass."""


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
