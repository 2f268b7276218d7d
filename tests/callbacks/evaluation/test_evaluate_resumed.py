"""A test that was interrupted, doubled or started again gives the bytes of one that was not."""

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from callbacks.evaluation.evaluate import Evaluate
from datamodules.answers.rule import AnswerRule
from datamodules.errors import InputError
from llm_modules.generation import Completion, GenerationListener
from tests.callbacks.evaluation.evaluation_run import (
    data,
    judges,
    measure,
    metrics,
    module,
    predictions,
    prepare,
    results,
    run,
    run_on,
    suites,
)
from tests.callbacks.generation.sampling_run import trainer
from tests.processes import Processes

PRODUCTS = ("predictions.jsonl", "metrics.json", "responses.jsonl")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepare(tmp_path_factory.mktemp("source"))


@pytest.fixture(scope="module")
def whole(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a test of everything."""
    root = tmp_path_factory.mktemp("whole")
    run(source, root)
    return root


def same(first: Path, second: Path) -> None:
    for name in PRODUCTS:
        assert (first / name).read_bytes() == (second / name).read_bytes(), name


class Counter(GenerationListener):
    """Counts what is really generated, and can break."""

    def __init__(self, breaks_at: int = 0) -> None:
        self.rows, self.breaks_at = 0, breaks_at

    def row_finished(self, row: int, completion: Completion) -> None:
        self.rows += 1
        if self.rows == self.breaks_at:
            raise RuntimeError("out of memory")


def counted(source: Path, root: Path, counter: Counter) -> None:
    model = module(source)

    class Counted(Evaluate):
        def on_test_start(self, *args: Any) -> None:
            super().on_test_start(*args)
            model.generator.listeners.append(counter)

    measure(trainer(root, Counted(judges=judges())), model, data(source))


def test_an_error_while_generating_keeps_what_is_done(source: Path, whole: Path, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="out of memory"):
        counted(source, tmp_path, Counter(breaks_at=7))
    assert (tmp_path / "completions.rank0.jsonl").read_bytes().count(b"\n") == 7
    assert not (tmp_path / "metrics.json").exists()
    rest = Counter()
    counted(source, tmp_path, rest)
    assert rest.rows == 25 - 7
    same(tmp_path, whole)


def test_responses_go_on_where_they_were_and_are_the_same_to_the_bit(tmp_path: Path) -> None:
    source = prepare(tmp_path / "source", records=40)  # three batches
    run(source, tmp_path / "whole", "likelihood")
    run(source, tmp_path / "killed", "likelihood")
    shard = tmp_path / "killed" / "responses.rank0.jsonl"
    # Killed in the middle of a batch and of a line.
    shard.write_bytes(b"".join(shard.read_bytes().splitlines(keepends=True)[:21])[:-9])
    run(source, tmp_path / "killed", "likelihood")
    same(tmp_path / "killed", tmp_path / "whole")
    assert shard.read_bytes().count(b"\n") == 16 + 4 + 16 + 8  # the first batch is not done again


def test_a_response_that_has_changed_is_not_taken_for_the_one_that_was_measured(tmp_path: Path) -> None:
    source = prepare(tmp_path / "source")
    run(source, tmp_path / "run", "likelihood")
    with pytest.raises(InputError, match="has another prompt or response there than in data now"):
        run(source, tmp_path / "run", suites=[replace(suites("likelihood")[0], instruction="Now.")])


def test_a_finished_run_is_only_scored_again(source: Path, whole: Path, tmp_path: Path) -> None:
    counted(source, tmp_path, Counter())
    again = Counter()
    (tmp_path / "metrics.json").unlink()
    counted(source, tmp_path, again)
    assert again.rows == 0
    same(tmp_path, whole)


def test_other_settings_are_refused_and_overwrite_replaces(source: Path, tmp_path: Path) -> None:
    run(source, tmp_path)
    model = module(source, temperature=0.5)
    with pytest.raises(InputError, match=r"other settings \(generation: .*\).*--overwrite true"):
        run(source, tmp_path, model=model)
    assert model.model is None
    changed = [replace(suites("maths")[0], systems=("plain",))]
    with pytest.raises(InputError, match=r"'maths/.*has another prompt"):
        run(source, tmp_path, suites=[replace(suites("maths")[0], instruction="Now.")])
    with pytest.raises(InputError, match=r"'maths/.*has another answer rule"):
        run(source, tmp_path, suites=[replace(suites("maths")[0], answer=AnswerRule("number"))])
    run(source, tmp_path, callback=Evaluate(judges=[], overwrite=True), model=model, suites=changed)
    assert len(predictions(tmp_path)) == 5
    assert [result["suite"] for result in metrics(tmp_path)["results"]] == ["maths"]
    assert not (tmp_path / "responses.jsonl").exists()


def test_what_a_smaller_run_does_not_ask_for_is_not_counted(source: Path, tmp_path: Path) -> None:
    run(source, tmp_path)
    run(source, tmp_path, limit=2)
    cells = results(tmp_path)
    assert (cells["maths system1"]["n"], cells["forbidden prefill"]["n"], cells["likelihood"]["n"]) == (2, 2, 2)


def start(source: Path, root: Path, devices: int) -> Processes:
    root.mkdir(exist_ok=True)
    return Processes(run_on, source, root, devices, ranks=devices, log=root / "log.txt")


def lines(root: Path) -> int:
    return sum(path.read_bytes().count(b"\n") for path in root.glob("completions.rank*.jsonl"))


@pytest.mark.slow
def test_two_processes_write_what_one_writes(source: Path, whole: Path, tmp_path: Path) -> None:
    two = tmp_path / "two"  # five records: an uneven share, and one batch of responses for both
    start(source, two, 2).succeed()
    assert len(list(two.glob("completions.rank*.jsonl"))) == 2
    same(two, whole)


@pytest.mark.slow
@pytest.mark.parametrize("devices", [(1, 2), (2, 1)])
def test_a_killed_run_goes_on_and_ends_the_same(tmp_path: Path, devices: tuple[int, int]) -> None:
    source, killed = prepare(tmp_path / "source", records=60), tmp_path / "killed"
    first = start(source, killed, devices[0])
    deadline = time.monotonic() + 120
    while lines(killed) < 20 and first.running() and time.monotonic() < deadline:
        time.sleep(0.005)
    first.kill()
    assert 20 <= lines(killed) < 300, (killed / "log.txt").read_text()
    assert not (killed / "predictions.jsonl").exists()
    start(source, killed, devices[1]).succeed()
    run(source, tmp_path / "whole")
    same(killed, tmp_path / "whole")
    assert len(predictions(killed)) == 300
