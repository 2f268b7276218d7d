"""Compare two answers by their text alone, without a process or a mathematics package."""

import re

from datamodules.answers.forms import in_readable_form
from datamodules.answers.guard import differ_in_form, look, opposed
from datamodules.answers.hard import LONGEST
from datamodules.answers.normal import NO_NOUN, clean, without_commands, without_thousands_commas
from datamodules.answers.quantities import in_one_unit, quantity, same_quantity
from datamodules.answers.spans import TEXT_COMMANDS

_CHOICE = re.compile(r"\(?([A-Z])\)?[.:)]?|\(([A-Z])\)\s.*|([A-Z])[.:)]\s.*", re.DOTALL)
_NOUN = re.compile(
    rf"\s{{0,3}}(?:{TEXT_COMMANDS}\{{{NO_NOUN}[ A-Za-z/.]{{1,40}}\}}|(?<=\s){NO_NOUN}[A-Za-z]{{2,20}}"
    rf"|(?<=\d)(?:\s{NO_NOUN}[A-Za-z]{{2,20}}){{2,3}}|(?<=[\d\s])[\u3040-\u9fff]{{1,6}})$"
)
"""math-verify reads "18 apples" as 18, but "18 dollars" as a product of letters."""
_DOZENS = re.compile(r"\s?\bdozens?$")
_WORD = re.compile(r"(?<![\\A-Za-z])[A-Za-z]{2,}")


def quick_verdict(gold: str, predicted: str) -> bool | None:
    r"""Compare answers if their text decides: numbers, quantities, letters, words; None if mathematics has to.

    A gold answer that is a single capital letter is a choice: ``A``, ``(A)``, ``A.``, ``A: 12 cm``, ``\text{A}`` are
    equal. Rational numbers and known units are compared exactly; a missing unit is that of the other answer.

    Example:
        >>> quick_verdict("1,234", "$1234.00"), quick_verdict("5 kg", "5000 g"), quick_verdict("x + 1", "1 + x")
        (True, True, None)
    """
    if max(len(gold), len(predicted)) > LONGEST:
        return True if gold.strip() == predicted.strip() else None
    gold, predicted = _cleaned(gold, predicted)
    if name := choice(gold):
        return choice(predicted) == name
    if look(gold) == look(predicted):
        return True
    if opposed(gold, predicted):
        return False
    for first, second in ((gold, predicted), _without_common_noun(gold, predicted)):
        if (same := same_quantity(first, second)) is not None:
            return same or _same_dozens(first, second)
    differ = differ_in_form(gold, predicted)
    return None if differ is None else not differ


def _cleaned(gold: str, predicted: str) -> tuple[str, str]:
    gold, predicted = clean(gold), clean(predicted)
    return without_thousands_commas(gold, predicted), without_thousands_commas(predicted, gold)


def _same_dozens(gold: str, predicted: str) -> bool:
    """Whether a number is that of the other answer's dozens: 7 and "7 dozen"."""
    bare = [_DOZENS.sub("", without_commands(text)) for text in (gold, predicted)]
    return (bare[0] == gold) != (bare[1] == predicted) and bool(same_quantity(bare[0], bare[1]))


def for_mathematics(gold: str, predicted: str) -> tuple[str, str]:
    """Both answers in the form that math-verify reads best: clean, formulas without units, values in order."""
    gold, predicted = in_readable_form(*_cleaned(gold, predicted))
    bare = in_one_unit(gold, predicted) or _without_common_noun(gold, predicted)
    return (gold, predicted) if any(map(_WORD.search, bare)) else bare


def choice(text: str) -> str | None:
    """The letter of multiple choice that a cleaned answer consists of, if any."""
    match = _CHOICE.fullmatch(without_commands(text))
    return next(group for group in match.groups() if group) if match else None


def _without_common_noun(gold: str, predicted: str) -> tuple[str, str]:
    """Both without their final noun, if it is the same or only one of them has one; unchanged beside a known unit."""
    if quantity(gold).unit or quantity(predicted).unit:
        return gold, predicted
    nouns = [_NOUN.search(text) for text in (gold, predicted)]
    if len({noun[0].replace(" ", "") for noun in nouns if noun}) != 1:
        return gold, predicted
    bare = [text[: noun.start()] if noun else text for text, noun in zip((gold, predicted), nouns, strict=True)]
    return bare[0], bare[1]
