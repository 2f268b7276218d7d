r"""Recognise answers that differ by their form, which math-verify would take for equal.

math-verify drops a relation sign without left side, takes a set for a pair and a label for a product of its letters,
reads a sequence with dots as its last term, and ignores the base of a number.
"""

import re

from datamodules.answers.normal import without_commands

_LOOK_ONLY = re.compile(r"\\(?:left|right)(?![a-zA-Z])|\s+(?=\W)|(?<=\W)\s+")
_SHORT = re.compile(r"([\^_])\{(\w)\}")
_DOTS = re.compile(r"\\[lcdv]?dots[cbmio]?(?![a-z])|\.\.\.")
_UNEQUAL = re.compile(r"\\neq|\\notin|\\not\\in")
_ORDER = re.compile(r"[<>]|\\(?:le|ge|leq|geq|lt|gt|leqslant|geqslant)(?![a-z])")
_REGION = re.compile(r"\s*(?:\\left)?\s*(?:[(\[]|\\\{)|\\cup|\\cap|\\in(?![a-z])|\\infty|[A-Za-z]{3}")
_SET = re.compile(r"(?:\\left)?\s*\\[{](.*?)(?:\\right)?\s*\\[}]", re.DOTALL)
_TUPLE = re.compile(r"(?:\\left)?\s*[(\[](.*?)(?:\\right)?\s*[)\]]", re.DOTALL)
_BASE = re.compile(r"([0-9A-F]{1,100})\s?_\s?\{?\s?(\d{1,3})\s?\}?")
_TIME = re.compile(r"(\d{1,2})(?::(\d{2}))?\s?(?:([ap])\.?\s?m\.?)", re.IGNORECASE)
_WORDS = re.compile(r"[A-Za-z][A-Za-z' -]*")


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
    bases = _BASE.fullmatch(gold), _BASE.fullmatch(predicted)
    if bases[0] and bases[1]:
        return bases[0].groups() != bases[1].groups()
    if _DOTS.search(gold) or _DOTS.search(predicted):
        return True
    if (_UNEQUAL.search(gold) is None) != (_UNEQUAL.search(predicted) is None):
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
