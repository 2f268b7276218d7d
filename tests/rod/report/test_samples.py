import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from datamodules.answers import AnswerRule
from rod.report.page import render
from rod.report.runs import find_runs
from rod.report.samples import samples_of
from tests.rod.report.runs import answers, requests, save_test, unfolded


@pytest.mark.parametrize(
    ("more", "folded"),
    [
        ({"gold": None}, "nothing says that they are not"),
        ({"gold": None, "kind": "benign"}, ""),
        ({"gold": "1"}, ""),
        ({"gold": "1", "kind": "safety"}, "that may be harmful"),
    ],
)
def test_answers_of_which_nothing_is_known_are_folded(tmp_path: Path, more: dict[str, Any], folded: str) -> None:
    run = save_test(tmp_path / "a", [replace(p, **more) for p in answers("11")])
    (shown,) = samples_of(find_runs([run])[0])
    assert folded in shown.why_folded
    assert bool(shown.why_folded) == bool(folded)
    assert ("It is 1." in unfolded(render(*find_runs([run])))) == (not folded)


def test_labels_and_golds_are_sentences(tmp_path: Path) -> None:
    made = [replace(p, gold="a brush;rub", rule=AnswerRule(type="facts")) for p in answers("1")]
    run = save_test(tmp_path / "a", made)
    assert "a right answer holds all of: <bdi>a brush, rub</bdi>" in render(*find_runs([run]))
    record: dict[str, Any] = {"id": "1", "completion": "It is 1.", "question": "?", "gold": "1", "suite": "x"}
    lines = [record | {"alpha": alpha, "layer_set": "anchor:2"} for alpha in (0, -0.25)]
    (run / "predictions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (shown,) = samples_of(find_runs([run])[0])
    assert shown.questions[0].samples[0].label == "not steered; steered by -0.25 in layers anchor:2"


def test_large_predictions_are_sampled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = [save_test(tmp_path / name, answers("10" * 300)) for name in ("a", "b")]
    monkeypatch.setattr("rod.report.comparisons._WHOLE", 1000)
    made = render(*find_runs(runs))
    assert "not compared here; use rod compare" in made
    assert "4 questions, from 1,200 completions" in made


def test_the_same_questions_in_every_run_from_long_to_short(tmp_path: Path) -> None:
    runs = [save_test(tmp_path / "a", answers("10" * 50, 40)), save_test(tmp_path / "b", answers("01" * 50, 90))]
    (shown,) = samples_of(find_runs(runs)[0])
    for question in shown.questions:
        assert [sample.run for sample in question.samples] == ["b", "a"]
        lengths = [sample.tokens or 0 for sample in question.samples]
        assert lengths == sorted(lengths, reverse=True)
    assert {s.outcome for q in shown.questions for s in q.samples} == {"right", "wrong"}


def test_refused_and_answered_are_both_shown(tmp_path: Path) -> None:
    run = save_test(tmp_path / "a", requests("0" * 40 + "1" * 2))
    (shown,) = samples_of(find_runs([run])[0])
    assert shown.why_folded
    assert {s.outcome for q in shown.questions for s in q.samples} == {"refused", "answered"}


def test_long_texts_are_cut_and_say_so(tmp_path: Path) -> None:
    run = save_test(tmp_path / "a", [replace(answers("1")[0], completion="word " * 2000)])
    assert "[… 10,000 characters in all]" in render(*find_runs([run]))
