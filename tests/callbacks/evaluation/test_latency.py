"""Times of one prompt at a time, at the end of a test."""

import itertools
import json
import time
from pathlib import Path
from typing import Any, ClassVar, cast

import pytest
from lightning.pytorch import Trainer

from callbacks.evaluation.latency import WARM_UP, Latency, measure
from datamodules.batch import PromptBatch, PromptRow
from datamodules.errors import InputError
from datamodules.records.kinds import Question
from llm_modules.causal_lm import CausalLM
from llm_modules.generation import Completion
from tests.callbacks.evaluation.evaluation_run import data, module, prepare
from tests.callbacks.generation.sampling_run import trainer


class Slow(Latency):
    """Every answer takes 100 ms and every token of it 5 ms more: far apart on a busy machine too."""

    def on_test_end(self, trainer: Trainer, pl_module: Any) -> None:
        complete = pl_module.complete

        def slowly(batch: PromptBatch) -> list[Completion]:
            answers = complete(batch)
            time.sleep(0.1 + 0.005 * (len(answers[0].token_ids) - 1))
            return answers

        pl_module.complete = slowly
        super().on_test_end(trainer, pl_module)


def test_the_first_token_and_the_others_are_told_apart(tmp_path: Path) -> None:
    prepare(tmp_path)
    trainer(tmp_path / "run", Slow(prompts=4, tokens=6)).test(
        module(tmp_path, temperature=0.0), data(tmp_path, "benign"), verbose=False
    )
    found = json.loads((tmp_path / "run/latency.json").read_text())
    assert found["prompts"] == 4
    assert 1 < found["tokens"] <= 6
    assert found["device"] == "cpu"
    assert found["first_token_ms"] >= 100
    assert 5 <= found["next_token_ms"] < 100


def test_what_cannot_be_timed_is_said(tmp_path: Path) -> None:
    prepare(tmp_path)
    with pytest.raises(InputError, match="tokens 2 or more"):
        Latency(tokens=1)
    with pytest.raises(InputError, match="the data have no prompts"):
        trainer(tmp_path / "run", Latency()).test(module(tmp_path), data(tmp_path, "likelihood"), verbose=False)


def test_prompts_are_taken_from_all_over_the_test() -> None:
    class Model:
        device = "cpu"
        asked: ClassVar[list[str]] = []

        def complete(self, batch: PromptBatch) -> list[Completion]:
            (row,) = batch.rows
            self.asked.append(row.id)
            return [Completion((1,) * (row.max_new_tokens or 0), "length")]

    rows = [PromptRow(str(n), Question(str(n), "?"), "plain", "?", (1,)) for n in range(35)]
    measure(cast(CausalLM, Model()), rows, 20, 3)
    timed = [int(name) for name in Model.asked[2 * WARM_UP :: 2]]
    assert len(timed) == 20
    assert timed[0] == 0
    assert timed[-1] > 30
    assert max(b - a for a, b in itertools.pairwise(timed)) == 2
