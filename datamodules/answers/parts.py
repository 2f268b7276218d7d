"""Numbers that are parts of a quantity in two units: "4 hours and 30 minutes"."""

import re

from datamodules.answers.units import compound

_NEXT_PART = re.compile(
    r"\s?(?P<unit>[A-Za-z]{1,10})\.?,?\s?(?:(?:and|plus|&)\s)?[$€£]?\d[\d.,]{0,9}(?:\s?(?P<next>[A-Za-z]{1,10}))?"
)
_PART_BEFORE = re.compile(
    r"(?:(?P<currency>[$€£])\s?\d[\d.,]{0,12}|(?<![A-Za-z])(?:\d[\d.,]{0,12}\s?|(?:an?|one|two|three|four|five|six|seven|eight|nine|ten)\s)(?P<unit>[A-Za-z]{1,10})\.?)"
    r"(?:,?\sand|,|\s&|\splus)?\s?$",
    re.IGNORECASE,
)
_AND_ONE = re.compile(
    r"\s?(?P<unit>[A-Za-z]{1,10}),?\s(?:and|plus)\s(?:an?|one)\s(?P<next>[A-Za-z]{1,10})", re.IGNORECASE
)
_CENTS = re.compile(r"\s(?:and\s|&\s)\d{1,2}\s?(?:cents?|pence|¢)(?![A-Za-z])", re.IGNORECASE)
_MINUTES = re.compile(r"\s?°\s?\d")
_MORE_BEFORE = re.compile(r"(?:\d\s?°|\bdozen\s(?:and|plus))\s?$", re.IGNORECASE)


def is_part(before: str, token: re.Match[str], rest: str) -> bool:
    """Whether a number is a part of a quantity: 4 hours and 30 minutes, 3 weeks and a day, $5 and 20 cents, 30°15'."""
    after = _NEXT_PART.match(rest)
    if after and token["currency"] is None and _together(after["unit"], after["next"] or ""):
        return True
    one = _AND_ONE.match(rest)
    if one and (one["next"].casefold() in ("half", "third", "quarter") or _together(one["unit"], one["next"])):
        return True
    if _CENTS.match(rest) or _MINUTES.match(rest) or _MORE_BEFORE.search(before[-20:]):
        return True
    if token["scale"] == "dozen" and re.match(r"\s(?:and|plus)\s\d", rest):
        return True
    unit = re.match(r"\s?([A-Za-z¢]{1,10})", rest)
    larger = _PART_BEFORE.search(before[-40:])
    return bool(unit and larger and _together(larger["currency"] or larger["unit"], unit[1]))


def _together(larger: str, smaller: str) -> bool:
    """Whether two units in any case are used together for one quantity: 2 L 500 mL."""
    return compound(larger, smaller) or compound(larger.casefold(), smaller.casefold())
