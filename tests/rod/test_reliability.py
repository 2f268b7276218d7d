"""The small form of `benchmarks/reliability.py`: nothing is lost, doubled, torn or left unfinished."""

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import reliability
from tests.processes import Processes

TRIALS = [("kill", "direction"), ("SIGTERM", "direction"), ("disk", "world"), ("two", "direction")]


def trials(output: Path) -> int:
    """One trial of each kind; 1 if anything was counted."""
    command = reliability.load()
    seconds = reliability.undisturbed(command, output / "whole", ["world", "direction"])
    runs = reliability.Trials(command, output, seconds, seed=0)
    done = [runs.run(number, fault, job) for number, (fault, job) in enumerate(TRIALS)]
    print(reliability.table(done))
    return int(any(trial.counts for trial in done))


@pytest.mark.slow
def test_stopped_starved_and_doubled_runs_end_as_undisturbed_ones(tmp_path: Path) -> None:
    Processes(trials, tmp_path / "trials", log=tmp_path / "log.txt").succeed()


def test_products_that_differ_are_counted(tmp_path: Path) -> None:
    for name, text in (("whole", '{"id": 1}\n{"id": 2}\n'), ("found", '{"id": 1}\n{"id": 1}\n{"id')):
        (tmp_path / name / "world").mkdir(parents=True)
        (tmp_path / name / "world" / "questions.jsonl").write_text(text)
    (tmp_path / "whole" / "world" / "missing.jsonl").touch()
    trial = reliability.Trial(0, "kill", "world")
    reliability.compare(trial, tmp_path / "whole", tmp_path / "found")
    assert trial.counts == {"lost": 2, "doubled": 1, "torn": 1}
    assert "| kill | 1 | 0 | 2 | 1 | 1 | 0 |" in reliability.table([trial])


@pytest.mark.parametrize(
    ("whole", "found", "counts"),
    [
        ([{"id": 1}, {"id": 2}], [{"id": 1}, {"id": 2}, {"id": 3}], {"differs": 1}),
        ([{"id": 1}, {"id": 2}], [{"id": 1}, {"id": 2, "x": 0}], {"differs": 1}),
        ([{"id": 1}, {"id": 2}], [{"id": 1}, {"id": 3}], {"lost": 1, "differs": 1}),
        ([{"x": 1}, {"x": 1}], [{"x": 1}, {"x": 1}], {}),
        ([{"x": 1}, {"x": 1}], [{"x": 1}] * 3, {"doubled": 1}),
        ([{"id": 1}, {"id": 2}], [{"id": 2}, {"id": 1}], {"differs": 1}),
    ],
)
def test_rows_that_are_lost_doubled_changed_or_more(
    whole: list[Any], found: list[Any], counts: dict[str, int], tmp_path: Path
) -> None:
    for name, rows in (("whole", whole), ("found", found)):
        (tmp_path / name / "world").mkdir(parents=True)
        (tmp_path / name / "world" / "questions.jsonl").write_text("\n".join(map(json.dumps, rows)))
    trial = reliability.Trial(0, "kill", "world")
    reliability.compare(trial, tmp_path / "whole", tmp_path / "found")
    assert trial.counts == counts


def test_faults_and_commands_take_turns() -> None:
    plan = reliability.plan(["world", "glad", "export"], seed=0)
    first = [next(plan) for _ in range(45)]
    assert [fault for _, fault, _ in first[:9]] == ["kill"] * 5 + ["SIGTERM", "disk", "two", "flip"]
    assert {job for _, fault, job in first if fault == "flip"} == {"glad", "export"}
    assert reliability.needed(["export"]) == ["world", "direction", "sample", "filter", "curriculum", "export"]
