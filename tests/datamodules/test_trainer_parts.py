"""What a DataModule takes from its run."""

from pathlib import Path
from typing import Any

import pytest
from lightning import seed_everything

from datamodules.errors import InputError
from datamodules.prompts.prompt_data import PromptData
from datamodules.trainer_parts import run_folder, run_seed, shard_of, tokenizer_of
from datamodules.training.instruction_data import InstructionData
from datamodules.world.data import WorldData


def test_the_seed_is_the_one_given_else_that_of_the_run_else_zero() -> None:
    assert (run_seed(), run_seed(3)) == (0, 3)
    seed_everything(7, verbose=False)
    assert (run_seed(), run_seed(0)) == (7, 0)


def test_data_take_the_seed_of_the_run() -> None:
    assert WorldData("align").seed == 0
    seed_everything(5, verbose=False)
    data: list[Any] = [PromptData(Path("q.jsonl")), WorldData("align"), InstructionData(Path("i.jsonl"))]
    assert [each.seed for each in data] == [5, 5, 5]
    assert PromptData(Path("q.jsonl"), seed=1).seed == 1


def test_data_without_a_trainer_are_one_process_and_bring_a_tokenizer() -> None:
    data = PromptData(Path("q.jsonl"))
    assert (shard_of(data), run_folder(data)) == ((0, 1), None)
    with pytest.raises(InputError, match="the data has no tokenizer"):
        tokenizer_of(data)
