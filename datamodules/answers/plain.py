"""Deciding whether two answers are equal where their text is enough: no process, no mathematics package, no time."""

import re
from decimal import Decimal

from datamodules.answers.arithmetic import same_value

LONGEST = 1000
"""Characters of an answer that is looked at; the longest of 9,832 published answers has 230."""

_WRAPPED = re.compile(
    r"\$([^$]*)\$|\\\((.*)\\\)|\*\*([^*]*)\*\*|\\(?:text|textbf|textit|textrm|mathrm|mathbf|mbox)\s*\{([^{}]*)\}",
    re.DOTALL,
)
_CHOICE = re.compile(r"\(?([A-Z])\)?[.:)]?|\(([A-Z])\)\s.*|([A-Z])[.:)]\s.*", re.DOTALL)
_NUMBER = re.compile(r"([+-]?)(\d{1,3}(?:,\d{3})+|\d+|(?=\.\d))(\.\d*)?")
_LOOK_ONLY = re.compile(r"\\left(?![a-zA-Z])|\\right(?![a-zA-Z])|\\[!,;: ]|(?<=\\)[dt](?=frac)|\s+(?=\W)|(?<=\W)\s+")
_NO_UNIT = r"(?! ?(?:hundred|thousand|million|billion|trillion|dozen|pairs?|percent|or|and|pi|sqrt|infty|infinity)\b)"
_UNIT = re.compile(
    rf"\s{{0,3}}(?:\^\s?\{{?\\circ\}}?|\\(?:text|mbox|mathrm)\{{{_NO_UNIT}[ A-Za-z/.]{{1,40}}\}}"
    rf"|(?<=\s){_NO_UNIT}[A-Za-z]{{2,20}})"
)
"""math-verify reads "18 dollars" as a product of letters, but "18 apples" as 18."""


def quick_verdict(gold: str, predicted: str) -> bool | None:
    r"""Whether two answers are equal, where plain text decides it: numbers, letters of multiple choice, equal texts.

    A gold answer that is one capital letter is a choice: ``A``, ``(A)``, ``A.``, ``A: 12 cm``, ``\text{A}`` are equal.
    Numbers are compared exactly, without their ``$``, ``%``, thousands commas and trailing ``.0``; closed arithmetic
    by its value, see `arithmetic`.

    Returns:
        None if it takes mathematics to decide.
    """
    if max(len(gold), len(predicted)) > LONGEST:
        return True if gold.strip() == predicted.strip() else None
    gold, predicted = unwrap(gold), unwrap(predicted)
    if name := choice(gold):
        return choice(predicted) == name
    first, second = number(gold), number(predicted)
    if first is not None and second is not None:
        if first[0] == second[0]:
            return True
        return False if first[1] == second[1] else None  # 50 % and 0.5
    if _LOOK_ONLY.sub("", gold) == _LOOK_ONLY.sub("", predicted):
        return True
    return same_value(*_without_common_unit(gold, predicted))


def unwrap(text: str) -> str:
    """The text without the mark-up round it."""
    text = tidy(text)
    for _ in range(4):  # deeper ones are no answers, and would take long
        if (match := _WRAPPED.fullmatch(text)) is None:
            break
        text = next(group for group in match.groups() if group is not None).strip()
    return text


def tidy(text: str) -> str:
    """The text without punctuation at its end and without marked thousands commas; math-verify cannot read them."""
    text = text.strip()
    if text[-1:] in (".", ",", ";") and text[-2:-1] != "\\":
        text = text[:-1].rstrip()
    return text.replace(",\\!", "").replace("{,}", "").replace("\\!", "")


def choice(text: str) -> str | None:
    """The letter of multiple choice that a text is."""
    match = _CHOICE.fullmatch(text)
    return next(group for group in match.groups() if group) if match else None


def number(text: str) -> tuple[Decimal, bool] | None:
    """The value of a plain number as written, and whether a percent sign follows it."""
    plain = text.replace("\\$", "").replace("$", "").replace("−", "-")
    bare = plain.removesuffix("%").removesuffix("\\").strip()
    match = _NUMBER.fullmatch(bare)
    if match is None:
        return None
    sign, whole, fraction = match.groups()
    return Decimal(sign + (whole.replace(",", "") or "0") + (fraction or "")), plain.endswith("%")


def _without_common_unit(gold: str, predicted: str) -> tuple[str, str]:
    """Both without their unit at the end if it is the same, or one has none; as they are otherwise."""
    units = [next((m for m in _UNIT.finditer(text) if m.end() == len(text)), None) for text in (gold, predicted)]
    if len({unit[0].replace(" ", "") for unit in units if unit}) != 1:
        return gold, predicted
    bare = [text[: unit.start()] if unit else text for text, unit in zip((gold, predicted), units, strict=True)]
    return bare[0], bare[1]
