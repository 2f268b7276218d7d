"""Answers are compared by their type, and gold answers that cannot be compared are named."""

import json
import re
from pathlib import Path

import pytest

from datamodules.answers import extract_boxed
from datamodules.answers.checker import AnswerChecker
from datamodules.answers.gold import compare, readable, require_gold
from datamodules.answers.rule import AnswerRule, AnswerType, Options
from datamodules.errors import InputError


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
        ("text", "nk", '"nk".', True),
        ("text", "nk", "“nk.”", True),
        ("text", "Paris", r"\text{Paris}", True),
        ("text", "New York", r"\textbf{New York}.", True),
        ("text", "5", "5'", False),
        ("text", "Paris", r"\text{Paris} or \text{Rome}", False),
        ("text", "05/01/2021", "05/02/2021", False),
        ("number", "18", "18.0", True),
        ("number", "3/4", "0.75", True),
        ("number", "18", None, False),
        ("number", "4.5e33", "4.5e33", True),
        ("number", "4.5e33", r"4.5 \times 10^{33}", True),
        ("number", "2.55e-10", "0.000000000255", True),
        ("number", "5e-05", "0.00005", True),
        ("number", "1e-3", "1e-4", False),
        ("number", "$1,234", "1234", True),
        ("number", "twelve", "12", True),
        ("number", "50", "50%", True),
        ("number", "0.5", "50%", True),
        ("number", "50%", "50", True),
        ("number", "50", "51%", False),
        ("maths", "4.5e33", r"4.5 \times 10^{33}", True),
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


def test_each_gold_answer_in_e_notation_is_found_in_all_its_forms(checker: AnswerChecker, shared_data: Path) -> None:
    rows = (shared_data / "minerva_math" / "test.jsonl").read_text(encoding="utf-8").splitlines()
    boxes = [extract_boxed(json.loads(row)["solution"]) or "" for row in rows]
    golds = [box for box in boxes if re.fullmatch(r"[\d.]+e[-+]?\d+", box)]
    assert len(golds) == 58
    for kind in ("maths", "number"):
        rule = AnswerRule(kind)
        forms = [gold.replace("e", sign) + "}" for gold in golds for sign in (r" \times 10^{", r" \cdot 10^{")]
        forms += golds
        answers = [rule.extract(rf"\boxed{{{form}}}") for form in forms]
        pairs = [(gold, answer) for gold, answer in zip([g for g in golds for _ in "ab"] + golds, answers, strict=True)]
        assert all(compare(rule, pairs, checker))
        assert all(readable(rule, golds, checker))


def test_options_named_by_digits(checker: AnswerChecker) -> None:
    require_gold(AnswerRule("choice"), ["3"], checker, [{"1": "a", "2": "b", "3": "c"}])
