"""Compare two answers by their text alone, without a process or a mathematics package."""

import re
from decimal import Decimal

from datamodules.answers.hard import LONGEST

_MARKUP = re.compile(
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
"""math-verify reads "18 apples" as 18, but "18 dollars" as a product of letters."""
_WORD = re.compile(r"(?<![\\A-Za-z])[A-Za-z]{2,}")


def quick_verdict(gold: str, predicted: str) -> bool | None:
    r"""Compare two answers where their text decides: numbers, letters of multiple choice, equal texts.

    A gold answer that is a single capital letter is a choice: ``A``, ``(A)``, ``A.``, ``A: 12 cm``, ``\text{A}`` are
    equal. Numbers are compared exactly, without ``$``, ``%``, thousands commas, trailing ``.0`` and a common unit.

    Returns:
        None if mathematics has to decide.

    Example:
        >>> quick_verdict("1,234", "$1234.00"), quick_verdict("18", "19 dollars"), quick_verdict("1/2", "0.5")
        (True, False, None)
    """
    if max(len(gold), len(predicted)) > LONGEST:
        return True if gold.strip() == predicted.strip() else None
    gold, predicted = unwrap(gold), unwrap(predicted)
    if name := choice(gold):
        return choice(predicted) == name
    if number(gold) is not None and number(predicted) is not None:
        return _same_number(gold, predicted)
    if _LOOK_ONLY.sub("", gold) == _LOOK_ONLY.sub("", predicted):
        return True
    return _same_number(*_without_common_unit(gold, predicted))


def for_mathematics(gold: str, predicted: str) -> tuple[str, str]:
    """Both answers in the form that math-verify reads best: tidy, and formulas without a common unit."""
    gold, predicted = tidy(gold), tidy(predicted)
    bare = _without_common_unit(gold, predicted)
    return (gold, predicted) if any(map(_WORD.search, bare)) else bare


def unwrap(text: str) -> str:
    """The text without the mark-up around it."""
    text = tidy(text)
    for _ in range(4):  # deeper nesting is no answer, and would take long
        if (match := _MARKUP.fullmatch(text)) is None:
            break
        text = next(group for group in match.groups() if group is not None).strip()
    return text


def tidy(text: str) -> str:
    """The text without final punctuation and LaTeX thousands commas, which math-verify cannot read."""
    text = text.strip()
    if text[-1:] in (".", ",", ";") and text[-2:-1] != "\\":
        text = text[:-1].rstrip()
    return text.replace(",\\!", "").replace("{,}", "").replace("\\!", "")


def choice(text: str) -> str | None:
    """The letter of multiple choice that the text consists of, if any."""
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


def _same_number(gold: str, predicted: str) -> bool | None:
    first, second = number(gold), number(predicted)
    if first is None or second is None:
        return None
    if first[0] == second[0]:
        return True
    return False if first[1] == second[1] else None  # 50 % and 0.5


def _without_common_unit(gold: str, predicted: str) -> tuple[str, str]:
    """Both without their final unit, if it is the same or only one of them has one; otherwise unchanged."""
    units = [next((m for m in _UNIT.finditer(text) if m.end() == len(text)), None) for text in (gold, predicted)]
    if len({unit[0].replace(" ", "") for unit in units if unit}) != 1:
        return gold, predicted
    bare = [text[: unit.start()] if unit else text for text, unit in zip((gold, predicted), units, strict=True)]
    return bare[0], bare[1]
