"""Checkpoints that were written before the modules moved to their rooms resume, to the weights of the whole run.

They were written after the first of two epochs. The expected numbers, sums of the absolute
trained weights, are those of the second epoch's end in the same runs.
"""

from functools import partial
from pathlib import Path

import pytest
import torch
from lightning.pytorch import LightningDataModule
from peft import LoraConfig

from llm_modules.causal_lm import CausalLM
from llm_modules.optim.learning_rates import LearningRates
from tests.conftest import ROOT
from tests.llm_modules.mogu.test_v2 import Requests, joint
from tests.llm_modules.test_causal_lm import trainer
from tests.supervised import RandomExamples
from tests.tiny import save_tiny

CHECKPOINTS = ROOT / "tests/data/first_layout"


def resumed(module: CausalLM, data: LightningDataModule, name: str, folder: Path) -> float:
    run = trainer(folder, max_epochs=2)
    run.fit(module, datamodule=data, ckpt_path=CHECKPOINTS / f"{name}.ckpt", weights_only=True)
    return sum(float(p.detach().double().abs().sum()) for p in module.parameters() if p.requires_grad)


def test_named_groups_of_modular_learning_rates(tmp_path: Path) -> None:
    checkpoint = save_tiny(tmp_path / "tiny", layers=2)
    module = CausalLM(
        str(checkpoint),
        peft=LoraConfig(r=1, target_modules=["q_proj"]),
        optimizer=partial(torch.optim.AdamW, lr=1e-2),
        learning_rates=LearningRates(modules=["layers.1.*"], ratio=0.1),
    )
    found = resumed(module, RandomExamples(n=12, batch_size=2), "learning_rates", tmp_path)
    assert found == pytest.approx(6.930948565299332, rel=1e-6)


def test_one_group_of_mogu_s_routers_and_one_of_its_backbone(tmp_path: Path) -> None:
    """They had other names, another order and no kind; each keeps its rate and weight decay."""
    module = joint(tmp_path, optimizer=partial(torch.optim.AdamW, lr=1e-2))
    assert resumed(module, Requests(), "mogu_joint", tmp_path) == pytest.approx(26.919446548214182, rel=1e-6)
