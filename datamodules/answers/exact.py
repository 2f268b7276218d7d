"""Read an answer as an exact rational number, and compare such numbers."""

import re
from dataclasses import dataclass
from fractions import Fraction

from datamodules.answers.numbers import plain_number

_INTEGER = r"\d{1,3}(?:,\d{3}){1,8}|\d{1,2}(?:,\d{2}){1,5},\d{3}|\d{1,3}(?: \d{3}){1,8}|\d{1,999}"
_DECIMAL = rf"(?:(?:{_INTEGER})(?:\.\d{{0,999}})?|\.\d{{1,999}})"
_SIGN = r"(?P<sign>[-+]?)\s?"
_TEN = r"10\s?(?:\^|\*\*)\s?\{?\s?(?P<power>[-+]?\d{1,4})\s?\}?"
_PLAIN = re.compile(rf"{_SIGN}(?P<number>{_DECIMAL})(?:[eE](?P<exp>[-+]?\d{{1,4}}))?")
_SCIENTIFIC = re.compile(rf"{_SIGN}(?:(?P<number>{_DECIMAL})\s?(?:\\times|\\cdot|\*|[xX])\s?)?{_TEN}")
_FRACTION = re.compile(
    rf"{_SIGN}(?:(?P<whole>\d{{1,9}})\s?)?\\frac\s?(?:\{{\s?(?P<top>-?{_DECIMAL})\s?\}}|(?P<top1>\d))"
    rf"\s?(?:\{{\s?(?P<bottom>-?{_DECIMAL})\s?\}}|(?P<bottom1>\d))"
)
_SLASH = re.compile(rf"{_SIGN}(?:(?P<whole>\d{{1,9}})\s(?:and\s)?)?(?P<top>{_DECIMAL})\s?/\s?(?P<bottom>-?{_DECIMAL})")
_REPEATING = re.compile(
    rf"{_SIGN}(?P<whole>\d{{0,50}})\.(?P<head>\d{{0,50}}?)"
    r"(?:\\(?:overline|bar|dot)\s?(?:\{(?P<line>\d{1,50})\}|(?P<line1>\d))|\((?P<bracket>\d{1,50})\)"
    r"|(?P<seen>\d{1,6}?)(?P=seen){2,20}\s?(?:\\[lc]?dots|\.\.\.))"
)
_WORDS = re.compile(r"[-+\d.,]*\s?[A-Za-z][A-Za-z \-]*(?:\d[\d.,/]*)?")
SMALLEST_DIFFERENCE = Fraction(1, 10_000)
"""A rounded decimal equals a fraction if six decimals are equal and the two differ by a smaller share than this."""


@dataclass(frozen=True)
class Exact:
    """A rational number, and whether it was written as a decimal, which may be rounded."""

    value: Fraction
    decimal: bool = False

    def times(self, factor: Fraction) -> "Exact":
        """The product with an exact number."""
        return Exact(self.value * factor, self.decimal)

    def equals(self, other: "Exact") -> bool:
        """Whether two numbers are equal. A decimal may be a fraction rounded to six places: 1/3 = 0.333333."""
        if self.value == other.value:
            return True
        fraction = self if other.decimal else other
        if self.decimal == other.decimal or fraction.value.denominator == 1:
            return False
        share = abs(self.value - other.value) / max(abs(self.value), abs(other.value))
        return share <= SMALLEST_DIFFERENCE and round(self.value, 6) == round(other.value, 6)


def exact(text: str) -> Exact | None:
    r"""The value of a number: decimal, fraction, mixed number, repeating decimal, power of ten, or in words.

    Example:
        >>> exact(r"3\frac12")
        Exact(value=Fraction(7, 2), decimal=False)
        >>> exact("2.5e-1")
        Exact(value=Fraction(1, 4), decimal=True)
    """
    text = text.strip()
    if match := _PLAIN.fullmatch(text):
        value = _number(match["number"]) * Fraction(10) ** int(match["exp"] or 0)
        return Exact(_signed(match, value), "." in match["number"] or match["exp"] is not None)
    if not text[-1:] or len(text) > 400:
        return None
    if match := _SCIENTIFIC.fullmatch(text):
        value = _number(match["number"] or "1") * Fraction(10) ** int(match["power"])
        return Exact(_signed(match, value), decimal=True)
    if "\\frac" in text:
        return _ratio(_FRACTION.fullmatch(text))
    if "/" in text and (found := _ratio(_SLASH.fullmatch(text))):
        return found
    if match := _REPEATING.fullmatch(text):
        return _repeating(match)
    if _WORDS.fullmatch(text) and (digits := plain_number(text)):
        return exact(digits)
    return None


def _signed(match: re.Match[str], value: Fraction) -> Fraction:
    return -value if match["sign"] == "-" else value


def _number(text: str) -> Fraction:
    return Fraction(text.replace(",", "").replace(" ", "").removesuffix("."))


def _ratio(match: re.Match[str] | None) -> Exact | None:
    if match is None:
        return None
    groups = match.groupdict()
    top, bottom = (_number(groups[name] or groups.get(name + "1") or "") for name in ("top", "bottom"))
    if bottom == 0 or (match["whole"] and (top < 0 or bottom < 0)):
        return None
    return Exact(_signed(match, int(match["whole"] or 0) + top / bottom))


def _repeating(match: re.Match[str]) -> Exact:
    head = match["head"]
    period = match["line"] or match["line1"] or match["bracket"] or match["seen"]
    value = int(match["whole"] or 0) + Fraction(int(head or 0), 10 ** len(head))
    value += Fraction(int(period), (10 ** len(period) - 1) * 10 ** len(head))
    return Exact(_signed(match, value))
