"""Answers are compared by their type, and gold answers that cannot be compared are named."""

from collections.abc import Iterator

import pytest

from datamodules.answers.checker import AnswerChecker
from datamodules.answers.gold import compare, require_gold
from datamodules.answers.rule import AnswerRule, AnswerType, Options
from datamodules.errors import InputError


@pytest.fixture(scope="module")
def checker() -> Iterator[AnswerChecker]:
    with AnswerChecker(workers=1, time_limit=20) as checker:
        yield checker


@pytest.mark.parametrize(
    ("kind", "gold", "predicted", "right"),
    [
        ("choice", "B", "B", True),
        ("choice", "(b)", "B", True),
        ("choice", "B", "C", False),
        ("choice", "B", None, False),
        ("label", "Yes.", "yes", True),
        ("label", "yes", "no", False),
        ("text", "New  York", "new york.", True),
        ("text", "ab", "ba", False),
        ("text", "05/01/2021", "05/02/2021", False),
        ("number", "18", "18.0", True),
        ("number", "3/4", "0.75", True),
        ("number", "18", None, False),
        ("maths", "x+1", "1+x", True),
        ("maths", "3", "9^{9^9}", None),
    ],
)
def test_comparison(
    kind: AnswerType, gold: str, predicted: str | None, right: bool | None, checker: AnswerChecker
) -> None:
    assert compare(AnswerRule(kind), [(gold, predicted)], checker) == [right]


@pytest.mark.parametrize(
    ("kind", "golds", "options", "message"),
    [
        ("choice", ["A", "F", "G"], [("x", "y"), ("x", "y"), ("x",)], "t:2: 'F' cannot be the name of an option A, B; "
         "nor can 1 more of 3; name the field"),
        ("choice", ["A", "Z"], None, "t:2: 'Z' cannot be the name of an option A, B, C, D, E, F, G, H, I, J; name"),
        ("label", ["yes", "perhaps"], None, "t:2: 'perhaps' cannot be one of the labels yes, no, maybe;"),
        ("number", ["-1,234.5", "many"], None, "t:2: 'many' cannot be read as a number;"),
        ("text", ["a", " "], None, "t:2: ' ' cannot be compared: it is empty;"),
        ("maths", ["x+1", "\\frac{"], None, "t:2: '\\\\frac{' cannot be read as a number, a letter or mathematics;"),
    ],
)  # fmt: skip
def test_gold_that_cannot_be_compared(
    kind: AnswerType, golds: list[str], options: list[Options] | None, message: str, checker: AnswerChecker
) -> None:
    rule = AnswerRule(kind)
    require_gold(rule, golds[:1], checker, options[:1] if options else None, ["t:1"])
    with pytest.raises(InputError) as error:
        require_gold(rule, golds, checker, options, [f"t:{i + 1}" for i in range(len(golds))])
    assert str(error.value).startswith(message)


def test_without_places_the_error_says_what_it_is_about(checker: AnswerChecker) -> None:
    with pytest.raises(InputError, match="gold answers: 'x y' cannot be the name of an option"):
        require_gold(AnswerRule("choice"), ["x y"], checker)
    with pytest.raises(InputError, match="gold answers: 1 cannot be read"):
        require_gold(AnswerRule("maths"), ["\\frac{"], checker)


def test_options_named_by_digits(checker: AnswerChecker) -> None:
    require_gold(AnswerRule("choice"), ["3"], checker, [{"1": "a", "2": "b", "3": "c"}])
