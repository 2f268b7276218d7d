"""Batches pass unharmed through what Lightning does to them on their way to the model."""

from typing import Literal

import pytest
import torch
from lightning.fabric.utilities.apply_func import move_data_to_device
from lightning.pytorch.plugins.precision import HalfPrecision

from datamodules.batch import ContrastBatch, PromptBatch, PromptRow
from datamodules.records.kinds import Question


@pytest.mark.parametrize("precision", ["bf16-true", "16-true"])
def test_batches_travel(precision: Literal["bf16-true", "16-true"]) -> None:
    plugin = HalfPrecision(precision)
    row = PromptRow(id="q", question=Question("q", "1+1?"), system="system2", prompt="1+1?", token_ids=(1,))
    batch = PromptBatch([row])
    assert move_data_to_device(plugin.convert_input(batch), "cpu").rows == (row,)
    ids = torch.ones(1, 2, dtype=torch.long)
    pair = move_data_to_device(plugin.convert_input(ContrastBatch(("a",), ids, ids, ids, ids)), "cpu")
    assert pair.ids == ("a",)
    assert pair.positive_ids.dtype == torch.long
