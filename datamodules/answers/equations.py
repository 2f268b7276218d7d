"""What of a sentence is its number: the result of an equation, the first of two equal quantities, not the reason.

All take time linear in the length of the text: every repetition in the patterns has an upper bound.
"""

import re
from fractions import Fraction

from datamodules.answers.tokens import TOKEN, written
from datamodules.answers.units import ratios

OPERATOR_TAIL = re.compile(
    r"\s?(?:[+*×÷^]|\\times|\\cdot|\\div)\s?\S|\s?x\s?\d|\s(?:plus|minus|times)\s|(?:[xyzn]|\\sqrt|\\pi|π|√)(?![A-Za-z])",
    re.IGNORECASE,
)
_ASIDE = re.compile(r"\s?\([^()=]{0,60}=[^()]{0,60}\)")
_REASON = re.compile(
    r",?\s(?:\b(?:since|because|where|whereas|as\s(?=[a-z]\s?=)|(?:with|when|for|if|at)\s(?=[a-z]\s?=)))[^=]{0,80}=",
    re.IGNORECASE,
)
_QUANTITY = r"\d[\d.,]{0,12}(?<![.,])(?:\s\d{1,4})?(?:\s?/\s?\d{1,6})?(?:\s?%)?"
_OR = re.compile(r"\s(?:or|i\.e\.,?|which\sis)\s\d", re.IGNORECASE)
_RESTATED = re.compile(
    rf"(?P<first>(?<![\d.,/])(?P<one>{_QUANTITY})(?:\s?(?P<unit>[A-Za-z]{{1,12}}))?),?\s(?:or|i\.e\.,?|which\sis)\s"
    rf"(?P<other>{_QUANTITY})(?:\s?(?P<last>[A-Za-z]{{1,12}}))?",
    re.IGNORECASE,
)
_PART = r"(?P<{}>\d[\d,]{{0,12}}(?:\.\d{{1,4}})?)(?:\s(?!(?:and|plus)\b)[A-Za-z'’-]{{1,15}}){{{},4}}"
_AND = r"(?:,\s(?:and\s)?|\s(?:and|plus|\+|&)\s)"
_BREAKDOWN = re.compile(
    rf"(?<![\d.,/]){_PART.format('total', 1)}"
    r"(?P<parts>(?:\s?\(|:\s|\s[–—]\s|,\s(?:namely|consisting\sof|made\sup\sof)\s)"
    rf"{_PART.format('first', 0)}{_AND}{_PART.format('second', 0)}(?:{_AND}{_PART.format('third', 0)})?\)?)"
    r"(?=\s?(?:[.!]|$))"
)
"""A number with its noun, and the numbers of its parts."""
_CALCULATION = re.compile(rf"{OPERATOR_TAIL.pattern}|\s?[-–/]\s?[$€£]?\d", re.IGNORECASE)


def without_reason(text: str) -> str:
    """The text without equations that only explain its number: "12 (x = 3)", "12, since x = 3"."""
    if "=" not in text:
        return text
    text = _ASIDE.sub(lambda match: "" if re.search(r"\d", text[: match.start()]) else match[0], text)
    reason = _REASON.search(text)
    return text[: reason.start()] if reason and re.search(r"\d", text[: reason.start()]) else text


def result(text: str) -> str:
    """The last side of an equation; of "18 = 9 * 2" the side that is no calculation."""
    sides = [side.strip() for side in text.replace("≈", "=").split("=")]
    if not re.search(r"\d", sides[-1]):
        return text
    numbers = [(side, TOKEN.match(side)) for side in reversed(sides)]
    known = [side for side, number in numbers if number and not re.search(r"\d", side[number.end() :])]
    number = numbers[0][1]
    return known[0] if number and known and _CALCULATION.match(sides[-1], number.end()) else sides[-1]


def without_restatement(text: str) -> str:
    """The text with the first of two equal quantities: "90 minutes, or 1.5 hours", "0.5 or 1/2"."""
    if not _OR.search(text):
        return text
    return _RESTATED.sub(lambda match: match["first"] if _same(match) else match[0], text)


def without_breakdown(text: str) -> str:
    """The text without parts that add up to the number before them: "50 people (20 men and 30 women)"."""
    return _BREAKDOWN.sub(lambda match: match[0].replace(match["parts"], "") if _adds_up(match) else match[0], text)


def _adds_up(match: re.Match[str]) -> bool:
    total, *parts = (
        Fraction(match[name].replace(",", "")) for name in ("total", "first", "second", "third") if match[name]
    )
    return total == sum(parts)


def _same(match: re.Match[str]) -> bool:
    one, other = TOKEN.fullmatch(match["one"]), TOKEN.fullmatch(match["other"])
    if one is None or other is None or one["time"] or other["time"]:
        return False
    unit, last = match["unit"], match["last"]
    factors = {Fraction(1)} if None in (unit, last) or unit == last else ratios(unit, last)
    return any(_value(written(one)) * factor == _value(written(other)) for factor in factors)


def _value(number: str) -> Fraction:
    """The value of a number as `written` has it."""
    top, _, bottom = number.removesuffix("%").partition("/")
    value = Fraction(top) / (Fraction(bottom or 1) or 1)
    return value / 100 if number.endswith("%") else value
