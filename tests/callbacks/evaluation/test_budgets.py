from typing import Any

import pytest

from callbacks.evaluation.budgets import budget_accuracies, cut_at
from callbacks.evaluation.measures import Measures
from callbacks.evaluation.scoring import check_answers
from datamodules.answers import AnswerChecker
from datamodules.suites.predictions import BUDGETS, Prediction
from datamodules.suites.token_places import with_token_places


def prediction(name: str, completion: str, n_tokens: int, **settings: Any) -> Prediction:
    made = Prediction(name, completion, question_id=name, question=name, gold="7", **settings)
    return with_token_places(made, n_tokens, lambda count: count * 4)


def worded(words: int, answer_after: int) -> str:
    """A completion of four characters a token, with the answer after a number of tokens."""
    box = "So it is \\boxed{7}. "
    return "abc " * answer_after + box + "abc " * (words - answer_after - len(box) // 4)


def test_a_run_cut_off_earlier_keeps_the_answers_that_it_had_reached(checker: AnswerChecker) -> None:
    early, late, short = worded(400, 20), worded(400, 300), worded(40, 20)
    made = [prediction("early", early, 400), prediction("late", late, 400), prediction("short", short, 40)]
    rows = {row.budget: row for row in budget_accuracies(check_answers(made, checker), checker)}
    assert {budget: round(row.accuracy, 3) for budget, row in rows.items()} == {
        32: 0.667, 64: 0.667, 128: 0.667, 256: 0.667, 512: 1.0,
    }  # fmt: skip
    assert [rows[budget].cut for budget in (32, 256, 512)] == [1, pytest.approx(2 / 3), 0]
    assert rows[256].tokens == pytest.approx((256 + 256 + 40) / 3)
    assert {row.method for row in rows.values()} == {"tokens"}


def test_a_number_that_the_cut_shortened_is_no_answer(checker: AnswerChecker) -> None:
    text = "abc " * 31 + "\\boxed{7}"
    (row, *_) = budget_accuracies(check_answers([prediction("a", text, 40)], checker), checker, [32])
    assert (row.accuracy, row.cut) == (0, 1)


def test_without_places_the_text_is_cut_by_its_share(checker: AnswerChecker) -> None:
    made = Prediction("a", "x" * 1000, gold="7", n_tokens=100)
    assert len(cut_at(made, 50).completion) == 500
    assert cut_at(made, 50).finish_reason == "length"
    assert cut_at(made, 100) is made
    (row,) = budget_accuracies([made], checker, [50])
    assert row.method == "characters"
    assert budget_accuracies([Prediction("a", "x", gold="7")], checker) == []  # no count, no budget


def test_places_of_budgets_and_of_the_thought() -> None:
    thought = "<think>" + "abc " * 50 + "</think>"
    made = prediction("a", thought + "It is 7.", 54)
    assert made.budget_ends == (32 * 4,)
    assert made.thought_tokens == -(-len(thought) // 4)
    assert prediction("b", "It is 7.", 2).thought_tokens == 0
    assert prediction("c", "<think>" + "abc " * 50, 52).thought_tokens == 52  # the thought does not end
    assert len(prediction("d", "abc " * 5000, 5000).budget_ends) == sum(budget < 5000 for budget in BUDGETS)


def test_tokens_of_right_and_wrong_answers_and_of_thoughts() -> None:
    def numbers(*made: Prediction) -> dict[str, dict[str, float]]:
        measures = Measures()
        measures.update(made)
        return measures.compute()

    plain = [
        Prediction(f"{i}", "x", gold="7", n_tokens=10 * (i + 1), correct=i < 2, question_id=f"{i}") for i in range(4)
    ]
    found = numbers(*plain)
    assert (found["tokens_right"]["value"], found["tokens_right"]["n"]) == (15, 2)
    assert (found["tokens_wrong"]["value"], found["tokens_wrong"]["n"]) == (35, 2)
    assert "tokens_thinking" not in found
    estimated = Prediction("e", "<think>" + "y" * 86 + "</think>" + "z" * 99 + ".", gold="7", n_tokens=200)
    counted = prediction("f", "<think>" + "abc " * 50 + "</think>It is 7.", 54)
    found = numbers(estimated, counted)
    assert found["tokens_thinking"]["value"] == pytest.approx((200 * 101 / 201 + 54) / 2, abs=1)
    assert found["tokens_thinking"]["value"] + found["tokens_answer"]["value"] == pytest.approx((200 + 54) / 2)
    assert found["tokens_thinking"]["exact"] == 0.5
