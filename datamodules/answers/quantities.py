"""Split answers into number and unit, and compare them as quantities."""

import re
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

from datamodules.answers.exact import Exact, exact
from datamodules.answers.normal import without_commands
from datamodules.answers.units import compound, measures, ratios

_MONEY = re.compile(r"([-+]?\s?)(?:US)?\\?([$€£¥₹])\s?([-+]?.*)", re.DOTALL)
_PERCENT = re.compile(r"\s?(?:\\?%|\bper\s?cent)$")
_WORD = r"[A-Za-zµμΩ¢元块$€£¥₹%]{1,20}\.?(?:\s?\^\s?\{?-?\d\}?|\s(?:squared|cubed))?"
_NAMED_DEGREES = re.compile(r"\s?(?:\^\\circ|\bdegrees?)\s?([CF])(?:elsius|ahrenheit)?$", re.IGNORECASE)
_DEGREES = re.compile(r"\^\\circ\s*[CF]?$")
_PIECE = re.compile(rf"(?:\s*(?:/|\bper\s|\ba\s)\s*|\s*(?:\\cdot\s?)?)(?:(?:square|cubic|sq|cu)\.?\s)?{_WORD}")
_START = re.compile(r"(?<![A-Za-zµμΩ\\^_{])(?=[A-Za-zµμΩ¢€£¥₹元块%])")
_PART = re.compile(r"(?P<number>\d[\d.,/ ]{0,20}?)\s?(?P<unit>[A-Za-z$€£]{1,10})\.?(?:,?\s(?:and\s)?|$)")
_AMOUNT = re.compile(r"^(\d[\d,.]{0,20})(?=\s)")
TAIL = 60
"""Characters at the end of an answer in which its unit is looked for."""


@dataclass(frozen=True)
class Quantity:
    """An answer without its unit; ``certain`` is False for one letter that may be a variable: "x + 5m"."""

    body: str
    unit: str = ""
    certain: bool = True

    @property
    def value(self) -> Exact | None:
        """The number, if the body is one."""
        return exact(without_commands(self.body))


@lru_cache(maxsize=4096)
def quantity(text: str) -> Quantity:
    r"""Split a cleaned answer into body and unit; "2 hours and 30 minutes" is 150 minutes.

    Example:
        >>> quantity(r"5\text{ cm}^2"), quantity("$5")
        (Quantity(body='5', unit='cm^2', certain=True), Quantity(body='5', unit='$', certain=True))
    """
    plain = _NAMED_DEGREES.sub(lambda match: rf"^\circ {match[1].upper()}", without_commands(text))
    if match := _MONEY.fullmatch(plain):
        whole = _summed(_AMOUNT.sub(rf"\1{match[2]}", match[3])) if not match[1] and "cent" in match[3] else None
        return whole or Quantity((match[1] + match[3]).strip(), match[2])
    if (match := _PERCENT.search(plain)) and match.start() > 0:
        return Quantity(plain[: match.start()], "%")
    if (match := _DEGREES.search(plain)) and match.start() > 0:
        return Quantity(plain[: match.start()].strip(), match[0].strip())
    if not plain[:1] or not (plain[-1].isalpha() or plain[-1] in "}0123456789¢€£¥₹."):
        return Quantity(text)
    tail = max(0, len(plain) - TAIL)
    for match in _START.finditer(plain, max(1, tail)):
        body, unit = plain[: match.start()].strip(), plain[match.start() :].strip()
        if not re.search(r"[\d})]\s?$|\\(?!circ)[a-z]{1,8}\s?$", body) or not _is_unit(unit):
            continue
        whole = _summed(plain)
        spaced = plain[match.start() - 1].isspace() or "/" in unit
        certain = re.search(r"[A-Za-z]{2}|[¢€£¥₹元块]", unit) is not None or plain != text
        certain = certain or (spaced and exact(body) is not None)
        return whole or Quantity(body, unit, certain)
    return Quantity(text)


def _is_unit(text: str) -> bool:
    """Whether a text consists of unit words, and all are known."""
    position = 0
    for _ in range(5):
        piece = _PIECE.match(text, position)
        if piece is None:
            return False
        position = piece.end()
        if position == len(text):
            return bool(measures(text))
    return False


def _summed(text: str) -> Quantity | None:
    """A quantity in several units, each smaller than the one before, in the last of them."""
    parts: list[re.Match[str]] = []
    position = 0
    while position < len(text) and len(parts) < 4:
        part = _PART.match(text, position)
        if part is None:
            return None
        parts.append(part)
        position = part.end()
    if len(parts) < 2 or position < len(text):
        return None
    total = Fraction(0)
    for part, following in zip(parts, (*parts[1:], None), strict=True):
        value = exact(part["number"].rstrip(", "))
        if value is None or (following and not compound(part["unit"], following["unit"])):
            return None
        total += value.value
        if following:
            total *= max(ratios(part["unit"], following["unit"]))
    return Quantity(str(total), parts[-1]["unit"])


def same_quantity(gold: str, predicted: str) -> bool | None:
    """Compare two cleaned answers as numbers with units; None if they are more than that.

    A missing unit is that of the other answer. Percent is a hundredth, unless the gold answer is in percent and the
    predicted one is a number without sign. Units of one dimension convert, those of two dimensions make answers differ.
    """
    first, second = quantity(gold), quantity(predicted)
    one, other = first.value, second.value
    if not first.certain and (one is None or other is None or not second.unit):
        first, one = Quantity(gold), exact(gold)
    if not second.certain and (one is None or other is None or not first.unit):
        second, other = Quantity(predicted), exact(predicted)
    if first.unit and second.unit:
        found = ratios(first.unit, second.unit)
        if not found:
            return False
        if one is None or other is None:
            return None
        return any(one.times(ratio).equals(other) for ratio in found)
    if one is None or other is None:
        return None
    if second.unit == "%":
        return one.equals(other.times(Fraction(1, 100)))
    return one.equals(other) or (first.unit == "%" and one.times(Fraction(1, 100)).equals(other))


def in_one_unit(gold: str, predicted: str) -> tuple[str, str] | None:
    r"""Two cleaned answers without their units, the predicted one converted to the gold one's; None if not possible.

    Example:
        >>> in_one_unit(r"\sqrt{2}\text{ m}", r"100\sqrt{2}\text{ cm}")
        ('\\sqrt{2}', '(100\\sqrt{2}) \\cdot \\frac{1}{100}')
    """
    first, second = quantity(gold), quantity(predicted)
    if not (first.unit or second.unit) or not (first.certain and second.certain) or "%" in (first.unit, second.unit):
        return None
    if not (first.unit and second.unit):
        return first.body, second.body
    found = ratios(first.unit, second.unit)
    if 1 in found or not found:
        return first.body, second.body
    ratio = min(found)
    return first.body, rf"({second.body}) \cdot \frac{{{ratio.denominator}}}{{{ratio.numerator}}}"
