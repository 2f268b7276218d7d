"""Answers that no computer algebra should be asked about: too long, too deep, or numbers too large to write down."""

import re

from datamodules.plain_answers import LONGEST

DEEPEST = 12
"""Brackets within brackets. The deepest of 9,832 published answers has 5; each level doubles the time of the parser."""
LARGEST_EXPONENT = 10_000
"""A power of ten with it still takes milliseconds."""
MOST_DIGITS = 1000

_POWER = r"\s{0,3}(?:\^|\*\*)[\s{(]{0,9}"
_TOWER = re.compile(rf"\d{{1,9}}[\s)}}]{{0,9}}(?:{_POWER}-?\d{{1,{MOST_DIGITS}}}[\s)}}]{{0,9}})+")
_FACTORIAL = re.compile(r"\d{6,}\s?!|!\s?\)?\s?!|\\binom\s?\{?\s?\d{6,}")


def too_hard(text: str) -> bool:
    """Whether an answer is not worth trying. Linear in its length."""
    return (
        len(text) > LONGEST
        or _depth(text) > DEEPEST
        or re.search(rf"\d{{{MOST_DIGITS},}}", text) is not None
        or _FACTORIAL.search(text) is not None
        or any(_too_large(match[0]) for match in _TOWER.finditer(text))
    )


def _depth(text: str) -> int:
    depth = deepest = 0
    for sign in text:
        if sign in "({[":
            depth += 1
            deepest = max(deepest, depth)
        elif sign in ")}]":
            depth -= 1
    return deepest


def _too_large(tower: str) -> bool:
    """Whether the exponent of a number, as in ``9^{9^9}``, is too large to work the power out."""
    base, *steps = [int(digits[:50]) for digits in re.findall(r"\d+", tower)]
    exponent = steps.pop()
    for step in reversed(steps):
        if step > 1 and exponent > 40:
            return True
        exponent = step**exponent if step > 1 else step
    return base > 1 and exponent > LARGEST_EXPONENT
