from pathlib import Path
from typing import Any

import pytest

from callbacks.evaluation.conditions import answers_by_suite, read_conditions
from callbacks.evaluation.frontier import group_losses, lost_first, points_of
from callbacks.evaluation.frontier_figures import plot_frontier
from callbacks.evaluation.metrics import aes
from callbacks.evaluation.paired import holm, mcnemar
from datamodules.errors import InputError
from datamodules.records.kinds import Trace
from datamodules.records.reader import to_json
from datamodules.suites.predictions import Prediction


def answers(right: str, tokens: int, **settings: Any) -> list[Prediction]:
    """An answer for each letter: ``1`` right, ``0`` wrong."""
    suite = settings.get("suite", "sums")
    made: list[dict[str, Any]] = [
        {
            "id": f"{suite}/{i}",
            "completion": "x",
            "question": f"{i}?",
            "gold": "1",
            "suite": suite,
            "n_tokens": tokens,
            "correct": letter == "1",
        }
        for i, letter in enumerate(right)
    ]
    return [Prediction(**(values | settings)) for values in made]


def test_numbers_by_hand() -> None:
    conditions = {
        "base": answers("1111111100", 100),
        "short": answers("1111111000", 40),
        "worse": answers("1000000000", 60),
        "better": answers("1111111110", 120),
    }
    found = {point.condition: point for point in points_of(answers_by_suite(conditions), "base")}
    assert {name: point.on_front for name, point in found.items()} == {
        "base": True, "short": True, "worse": False, "better": True,
    }  # fmt: skip
    assert found["base"].aes is None
    assert found["short"].aes == pytest.approx(aes(0.7, 40, 0.8, 100))
    ps = [mcnemar(1, 0), mcnemar(7, 0), mcnemar(0, 1)]
    assert [found[name].accuracy_p for name in ("short", "worse", "better")] == ps
    assert [found[name].accuracy_p_holm for name in ("short", "worse", "better")] == holm(ps)
    assert found["worse"].accuracy_difference == pytest.approx(-0.7)
    assert (found["short"].tokens_difference, found["short"].common) == (-60, 10)
    assert found["short"].accuracy_low <= 0.7 <= found["short"].accuracy_high


def test_questions_are_told_by_their_text_whatever_the_files_call_them() -> None:
    mine = answers("1100", 10, suite="mine")
    theirs = answers("1010", 20, suite="theirs", id="x")[::-1]
    points = points_of(answers_by_suite({"mine": mine, "theirs": theirs}), "mine")
    assert [(p.suite, p.common) for p in points] == [("mine", 4), ("mine", 4)]
    assert points[1].accuracy_p == mcnemar(1, 1)
    others = answers("11", 20, suite="others", question="another?")
    assert [p.suite for p in points_of(answers_by_suite({"mine": mine, "others": others}), "mine")] == [
        "mine",
        "others",
    ]


def test_a_name_decides_before_questions_do_and_two_sets_that_fit_equally_stay_apart() -> None:
    one = {"a": answers("1111", 10, suite="sums")}
    both = answers("1111", 5, suite="brief_sums") + answers("0000", 5, suite="sums")
    found = answers_by_suite(one | {"b": both})
    assert {suite: list(conditions) for suite, conditions in found.items()} == {"sums": ["a", "b"], "brief_sums": ["b"]}
    assert [answer.right for answer in found["sums"]["b"].values()] == [[0.0]] * 4
    either = answers("1111", 5, suite="x") + answers("0000", 5, suite="y")
    assert answers_by_suite(one | {"b": either}).keys() == {"sums", "x", "y"}
    closer = answers("111", 5, suite="x") + answers("0000", 5, suite="y")
    assert answers_by_suite(one | {"b": closer}).keys() == {"sums", "x"}


def test_groups_that_lose_first() -> None:
    def of(easy: str, hard: str, tokens: int) -> list[Prediction]:
        first = answers(easy, tokens, group="easy")
        return first + [
            Prediction(**{**vars(p), "id": f"h{p.id}", "question": f"hard {p.question}", "group": "hard"})
            for p in answers(hard, tokens)
        ]

    conditions = {
        "base": of("1" * 20, "1" * 20, 100),
        "shorter": of("1" * 20, "1" * 8 + "0" * 12, 60),
        "shortest": of("1" * 8 + "0" * 12, "0" * 20, 20),
    }
    losses = group_losses(answers_by_suite(conditions), "base")
    assert [(loss.condition, loss.group, loss.difference) for loss in losses[:2]] == [
        ("shorter", "hard", -0.6), ("shorter", "easy", 0),
    ]  # fmt: skip
    first = lost_first(losses, points_of(answers_by_suite(conditions), "base"))
    assert [(loss.group, point.condition, point.tokens) for loss, point in first] == [
        ("hard", "shorter", 60), ("easy", "shortest", 20),
    ]  # fmt: skip


def save(folder: Path, name: str, *records: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text("".join(to_json(record) + "\n" for record in records))
    return folder


def test_conditions_of_a_run(tmp_path: Path) -> None:
    both = answers("10", 5, system="system1") + answers("11", 9, system="system2", id="b")
    both = [Prediction(**{**vars(p), "id": f"{i}"}) for i, p in enumerate(both)]
    run = save(tmp_path / "run", "predictions.jsonl", *both)
    assert {name: len(own) for name, own in read_conditions(run, "run").conditions.items()} == {
        "run system1": 2, "run system2": 2,
    }  # fmt: skip
    single = save(tmp_path / "one", "predictions.jsonl", *answers("10", 5, system="system1", group="a"))
    assert list(read_conditions(single, "one").conditions) == ["one"]
    assert list(read_conditions(single, "one", by_group=True).conditions) == ["one a"]


def test_answers_of_a_sweep_that_were_cut_off_count_as_wrong(tmp_path: Path) -> None:
    def trace(n: int, **ending: Any) -> Trace:
        values: dict[str, Any] = {"tokens": 60, "reason": "stop", "answer": "1", "correct": True} | ending
        return Trace(
            f"{n}", f"{n}", f"{n}?", "1", "system2", 0.0, (), 0, 0, "", "x",
            values["tokens"], values["reason"], values["answer"], values["correct"], "m", "",
        )  # fmt: skip

    cut = trace(3, tokens=100, reason="length", answer=None, correct=None)
    run = save(tmp_path / "sweep", "traces.jsonl", *(trace(n) for n in range(3)), cut)
    (point,) = points_of(answers_by_suite(read_conditions(run, "sweep").conditions), "sweep α 0")
    assert (point.records, point.accuracy, point.tokens) == (4, 0.75, 70)


def test_strengths_of_a_sweep_are_conditions(tmp_path: Path) -> None:
    traces = [
        Trace(
            f"{i}|{alpha}", f"{i}", f"{i}?", "1", "system2", alpha, (3,) if alpha else (), 0, 0, "", "x",
            int(100 + 100 * alpha), "stop", "1", True, "m", "all" if alpha else "",
        )
        for i in range(3)
        for alpha in (-0.4, 0.0, -0.2)
    ]  # fmt: skip
    save(tmp_path / "sweep" / "traces", "traces.jsonl", *traces)  # as rod predict leaves them
    run = tmp_path / "sweep"
    found = read_conditions(run, "sweep")
    assert list(found.conditions) == ["sweep α 0", "sweep all α -0.2", "sweep all α -0.4"]
    assert found.strengths == {"sweep all α -0.2": ("sweep all", -0.2), "sweep all α -0.4": ("sweep all", -0.4)}
    points = points_of(answers_by_suite(found.conditions), "sweep α 0")
    assert [point.tokens for point in points] == [100, 80, 60]
    elsewhere = points_of(answers_by_suite({"other": answers("1", 5, suite="other")} | dict(found.conditions)), "other")
    assert [point.accuracy_difference for point in elsewhere] == [None, None, 0.0, 0.0]
    plot_frontier(points, "sweep α 0", tmp_path / "sweep.png", found.strengths)
    legend = (tmp_path / "sweep.svg").read_text()
    assert "<!-- sweep all -->" in legend  # one entry for the series
    assert "<!-- sweep all α -0.2 -->" not in legend


@pytest.mark.parametrize(
    ("settings", "reason"),
    [({"gold": None, "correct": None}, "score it with rod score --gold"), ({"n_tokens": None}, "--tokenizer")],
)
def test_runs_that_cannot_be(settings: dict[str, Any], reason: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=reason):
        read_conditions(save(tmp_path / "run", "predictions.jsonl", *answers("1", 5, **settings)), "run")
    with pytest.raises(InputError, match=r"has none of predictions\.jsonl, traces"):
        read_conditions(tmp_path, "run")
