from typing import Any

import pytest

from callbacks.evaluation.places import by_any, by_box, check_places
from callbacks.evaluation.report import results_of
from callbacks.evaluation.scoring import check_answers, score_predictions
from datamodules.answers import AnswerChecker, AnswerRule
from datamodules.suites.predictions import Prediction


@pytest.mark.parametrize(
    ("completion", "rule", "box", "anywhere"),
    [
        ("So \\boxed{5}.", {}, True, True),
        ("Answer: 5", {}, False, True),
        ("Answer: 5", {"type": "number"}, False, True),
        ("#### 5", {}, False, True),
        ("We get\n\n$5$", {}, False, True),
        ("There are 5 of them", {}, False, True),
        ("\\boxed{6} is wrong. Answer: 5", {}, False, False),  # the surest place decides
        ("\\boxed{5}. Final: 6", {"pattern": r"Final: (\d)", "type": "number"}, True, False),
        ("No idea.", {}, False, False),
    ],
)
def test_by_the_last_box_and_by_any_place(
    completion: str, rule: dict[str, Any], box: bool, anywhere: bool, checker: AnswerChecker
) -> None:
    made = [Prediction("a", completion, gold="5", rule=AnswerRule(**rule))]
    (found,) = check_places(check_answers(made, checker), checker)
    assert (found.right_box, found.right_any) == (box, anywhere)


def test_both_stand_in_every_result_of_maths_and_in_no_other(checker: AnswerChecker) -> None:
    texts = ["\\boxed{5}", "Answer: 5", "Answer: 6", "?"]
    maths = [Prediction(f"{i}", text, question_id=f"{i}", gold="5", suite="m") for i, text in enumerate(texts)]
    other = [
        Prediction("c", "(B)", gold="B", suite="c", rule=AnswerRule(type="choice")),
        Prediction("n", "5", suite="n"),
    ]
    found = {result.suite: result for result in results_of(score_predictions([*maths, *other], checker, []))}
    values = {name: found["m"].value(name) for name in ("accuracy", "accuracy_box", "accuracy_any")}
    assert values == {"accuracy": 0.25, "accuracy_box": 0.25, "accuracy_any": 0.5}
    assert found["m"].metrics["accuracy_any"]["n"] == 4
    assert not {"accuracy_box", "accuracy_any"} & {*found["c"].metrics, *found["n"].metrics}


def test_marks_of_an_earlier_rule_go(checker: AnswerChecker) -> None:
    before = Prediction("a", "5", gold="5", right_box=False, right_any=True, rule=AnswerRule(type="text"))
    (found,) = check_places(check_answers([before], checker), checker)
    assert (found.right_box, found.right_any) == (None, None)


def test_the_rules() -> None:
    assert by_box(AnswerRule(type="number")).places == ("boxed",)
    assert by_any(AnswerRule(pattern="A: (.+)")).places[:2] == ("pattern", "boxed")
