"""Recognise answers that math-verify would take too long on, so that they are never tried."""

import re

LONGEST = 1000
"""Characters of the longest answer that is tried. The longest of 9,832 published answers has 230."""
DEEPEST = 12
"""Deepest nesting of brackets that is tried. Published answers have at most 5; each level doubles the parser's time."""
LARGEST_EXPONENT = 10_000
"""A power of ten with this exponent still takes milliseconds."""
MOST_DIGITS = 1000

_POWER = r"\s{0,3}(?:\^|\*\*)[\s{(]{0,9}"
_TOWER = re.compile(rf"\d{{1,9}}[\s)}}]{{0,9}}(?:{_POWER}-?\d{{1,{MOST_DIGITS}}}[\s)}}]{{0,9}})+")
_FACTORIAL = re.compile(r"\d{6,}\s?!|!\s?\)?\s?!|\\binom\s?\{?\s?\d{6,}")


def too_hard(text: str) -> bool:
    """Whether an answer is too long, too deep or too large to be tried. Linear in its length.

    Example:
        >>> too_hard("9^{9^{9}}"), too_hard("9^{99}")
        (True, False)
    """
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
    """Whether a tower of powers such as ``9^{9^9}`` has too large an exponent to be worked out."""
    base, *steps = [int(digits[:50]) for digits in re.findall(r"\d+", tower)]
    exponent = steps.pop()
    for step in reversed(steps):
        if step > 1 and exponent > 40:
            return True
        exponent = step**exponent if step > 1 else step
    return base > 1 and exponent > LARGEST_EXPONENT
