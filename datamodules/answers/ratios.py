"""Compare answers of several numbers between signs that are no arithmetic: ratios, dates and ranges."""

import re
from fractions import Fraction

from datamodules.answers.normal import without_commands

_NUMBER = r"\d[\d,]{0,30}(?:\.\d{1,30})?"
_RATIO = re.compile(rf"{_NUMBER}(?:\s?:\s?{_NUMBER}){{1,9}}")
_CLOCK = re.compile(r":0\d(?![\d.])")
_DATE = re.compile(r"\d{4}([-/.])\d{1,2}\1\d{1,2}|\d{1,2}([-/.])\d{1,2}\2\d{4}")
_RANGE = re.compile(rf"({_NUMBER})\s?(?:-{{1,2}}|–|—|\bto\b)\s?({_NUMBER})")


def same_parts(gold: str, predicted: str) -> bool | None:
    """Whether two ratios are proportional, two dates or ranges the same; None if both are not of one kind.

    Example:
        >>> same_parts("1:2:3", "2:4:6"), same_parts("10-20", "20-30"), same_parts("10-20", "-10")
        (True, False, None)
    """
    first, second = without_commands(gold), without_commands(predicted)
    if _RATIO.fullmatch(first) and _RATIO.fullmatch(second):
        return _same_ratio(_numbers(first), _numbers(second), clock=bool(_CLOCK.search(f"{first} {second}")))
    if _DATE.fullmatch(first) or _DATE.fullmatch(second):
        return _numbers(first) == _numbers(second)
    ranges = [match for match in (_RANGE.fullmatch(first), _RANGE.fullmatch(second)) if match]
    if len(ranges) == 2 and all(low < high for low, high in (_numbers(match[0]) for match in ranges)):
        return _numbers(first) == _numbers(second)
    return None


def _numbers(text: str) -> list[Fraction]:
    return [Fraction(number.replace(",", "")) for number in re.findall(_NUMBER, text)]


def _same_ratio(first: list[Fraction], second: list[Fraction], clock: bool) -> bool:
    """Whether two ratios are proportional; times such as 12:05 must be the same."""
    if clock or len(first) != len(second):
        return first == second
    return all(one * sum(second) == other * sum(first) for one, other in zip(first, second, strict=True))
