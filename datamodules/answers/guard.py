r"""Recognise answers that differ by their form, which math-verify would take for equal.

math-verify drops a relation sign without left side, takes a set for a pair and a label for a product of its letters,
reads a sequence with dots as its last term, ignores the base of a number, and works out ratios, dates and ranges.
"""

import re

from datamodules.answers.normal import without_commands
from datamodules.answers.numbers import plain_number
from datamodules.answers.ratios import same_parts

_LOOK_ONLY = re.compile(r"\\(?:left|right)(?![a-zA-Z])|\s+(?=\W)|(?<=\W)\s+")
_SHORT = re.compile(r"([\^_])\{(\w)\}")
_DOTS = re.compile(r"\\[lcdv]?dots[cbmio]?(?![a-z])|\.\.\.")
_UNEQUAL = re.compile(r"\\neq|\\notin|\\not\\in")
_ORDER = re.compile(r"[<>]|\\(?:le|ge|leq|geq|lt|gt|leqslant|geqslant)(?![a-z])")
_REGION = re.compile(r"\s*(?:\\left)?\s*(?:[(\[]|\\\{)|\\cup|\\cap|\\in(?![a-z])|\\infty|[A-Za-z]{3}")
_SET = re.compile(r"(?:\\left)?\s*\\[{](.*?)(?:\\right)?\s*\\[}]", re.DOTALL)
_TUPLE = re.compile(r"(?:\\left)?\s*[(\[](.*?)(?:\\right)?\s*[)\]]", re.DOTALL)
_BASE = re.compile(
    r"(?:[A-Za-z]\s?=\s?)?([-+]?[0-9A-Z.]{1,100})\s?(?:_|\(?\b(?:in )?base\b)[\s{(]{0,3}(\d{1,3}|[a-z]{3,9})[\s})]{0,3}"
)
_LABEL = re.compile(r"\\(angle|triangle|overline|overrightarrow|vec|arc|widehat)\s?\{?\s?([A-Z]{1,9})\s?\}?")
_BARE_ORDER = re.compile(r"\s*(?:([<>])|\\([lg])(e?)(?:q|qslant|t)?(?![a-z]))")
_TIME = re.compile(r"(\d{1,2})(?::(\d{2}))?\s?(?:([ap])\.?\s?m\.?)", re.IGNORECASE)
_WORDS = re.compile(r"[A-Za-z][A-Za-z' -]*")
_WORD = re.compile(r"(?<![\\A-Za-z])[A-Za-z]+")
_OPPOSITES = (
    "increas decreas", "gain los", "profit los", "more less", "more fewer", "north south", "east west", "left right",
    "up down", "above below", "before after", "clockwise counter", "clockwise anti",
)  # fmt: skip
"""Beginnings of words that turn an answer into its opposite. Other words beside a value decide nothing."""
_OPPOSITE_SIGNS = ({"N", "S"}, {"E", "W"}, {"BC", "AD"})


def look(text: str) -> str:
    r"""What a cleaned answer looks like: without text commands and spaces beside signs, x^2 for x^{2}."""
    return _SHORT.sub(r"\1\2", _DOTS.sub("...", _LOOK_ONLY.sub("", without_commands(text))))


def differ_in_form(gold: str, predicted: str) -> bool | None:
    """Compare cleaned answers by form: True if they differ, False if equal, None if mathematics has to decide."""
    if (words := _same_words(gold, predicted)) is not None:
        return not words
    times = _TIME.fullmatch(without_commands(gold)), _TIME.fullmatch(without_commands(predicted))
    if times[0] and times[1]:
        return _time(times[0]) != _time(times[1])
    for same in (_same_base, same_parts, _same_label):
        if (verdict := same(gold, predicted)) is not None:
            return not verdict
    if _DOTS.search(gold) or _DOTS.search(predicted):
        return True
    if (_UNEQUAL.search(gold) is None) != (_UNEQUAL.search(predicted) is None):
        return True
    bare = _BARE_ORDER.match(gold), _BARE_ORDER.match(predicted)
    if bare[0] and bare[1] and _relation(bare[0]) != _relation(bare[1]):
        return True
    ordered = _ORDER.search(gold), _ORDER.search(predicted)
    if (ordered[0] is None) != (ordered[1] is None) and not _REGION.search(predicted if ordered[0] else gold):
        return True
    return True if {_kind(gold), _kind(predicted)} == {"set", "tuple"} else None


def _same_words(gold: str, predicted: str) -> bool | None:
    r"""Whether two words or labels are equal: ABC is not BCA. None if one of them may be a product of variables."""
    first, second = without_commands(gold), without_commands(predicted)
    if not (_WORDS.fullmatch(first) and _WORDS.fullmatch(second)):
        return None
    sure = first != gold or second != predicted
    if not sure and not any(len(word) > 3 or word.isupper() for word in (first, second)):
        return None
    if min(len(first), len(second)) < 2 and not sure:
        return None
    same = first.replace(" ", "") == second.replace(" ", "")
    return same if first.isupper() else same or first.casefold().split() == second.casefold().split()


def opposed(gold: str, predicted: str) -> bool:
    """Whether two answers have opposite words beside their values: "10% gain" and "10% loss", "30 N" and "30 S"."""
    first, second = (set(_WORD.findall(without_commands(text))) for text in (gold, predicted))
    first, second = first - second, second - first
    if not first or not second:
        return False
    if any({one, other} in _OPPOSITE_SIGNS for one in first for other in second):
        return True
    return any(
        (_has(first, one) and _has(second, other)) or (_has(first, other) and _has(second, one))
        for one, other in map(str.split, _OPPOSITES)
    )


def _has(words: set[str], start: str) -> bool:
    return any(word.casefold().startswith(start) for word in words)


def _same_base(gold: str, predicted: str) -> bool | None:
    """Whether two numbers with a base have the same digits and base; None if one of them has none."""
    first, second = (_BASE.fullmatch(without_commands(text)) for text in (gold, predicted))
    if first is None or second is None:
        return None
    return first[1] == second[1] and (plain_number(first[2]) or first[2]) == (plain_number(second[2]) or second[2])


def _same_label(gold: str, predicted: str) -> bool | None:
    r"""Whether two names of points are one figure: \angle ABC and \angle CBA, but not \angle BCA."""
    first, second = _LABEL.fullmatch(gold), _LABEL.fullmatch(predicted)
    if first is None or second is None:
        return None
    if first[1] == second[1] == "triangle":
        return sorted(first[2]) == sorted(second[2])
    turned = first[1] in ("angle", "overline") and first[2] == second[2][::-1]
    return first[1] == second[1] and (first[2] == second[2] or turned)


def _relation(match: re.Match[str]) -> tuple[str, bool]:
    """The direction of an order relation, and whether it allows equality."""
    return match[1] or {"l": "<", "g": ">"}[match[2]], bool(match[3]) or match.string[match.end() :].startswith("=")


def _time(match: re.Match[str]) -> tuple[int, int, str]:
    return int(match[1]), int(match[2] or 0), match[3].casefold()


def _kind(text: str) -> str:
    """Whether an answer is a set or a tuple of several elements."""
    for kind, pattern in (("set", _SET), ("tuple", _TUPLE)):
        match = pattern.fullmatch(text)
        if match is not None:
            return kind if _lists_several(match[1]) else ""
    return ""


def _lists_several(text: str) -> bool:
    """Whether the content of a bracket has a comma outside of inner brackets."""
    depth, several = 0, False
    for sign in text:
        if sign in "([{":
            depth += 1
        elif sign in ")]}":
            depth -= 1
        several = several or (sign == "," and depth == 0)
        if depth < 0:
            return False  # the first bracket closes before the end, as in a union of intervals
    return several
