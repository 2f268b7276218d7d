"""Every method takes ``learning_rates``, and its parts with rates of their own keep them."""

import importlib
import pkgutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from jsonargparse import ArgumentParser
from peft import LoraConfig
from torch.utils.data import DataLoader

import llm_modules
from datamodules.mogu.batch import ResponderBatch
from datamodules.mogu.branching import branch
from llm_modules.causal_lm import CausalLM
from llm_modules.crisp import CRISP
from llm_modules.mllr.module import MLLR
from llm_modules.mogu.config import RouterConfig
from llm_modules.mogu.module import MoGU
from llm_modules.mogu.responder import Responder
from llm_modules.optim.learning_rates import LearningRates
from llm_modules.optim.schedules import WarmupConstant
from llm_modules.s3cot.module import S3CoT
from tests.llm_modules.crisp.test_module import OTHERS, PROMPTS
from tests.llm_modules.crisp.test_module import batch as distillation
from tests.llm_modules.mogu.test_module import PROMPT, adapters, examples, router_batch, rows
from tests.llm_modules.optim.test_learning_rates import DEEP, trainer
from tests.tiny import save_tiny


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(save_tiny(tmp_path_factory.mktemp("tiny"), layers=2))


def pairs_batch() -> ResponderBatch:
    both = rows(4)
    both.input_ids[2:, :PROMPT] = both.input_ids[:2, :PROMPT]
    return ResponderBatch(both, branch(list(zip(examples(both)[:2], examples(both)[2:], strict=True))))


METHODS: dict[str, tuple[type[CausalLM], Callable[[], Any]]] = {
    "CausalLM": (CausalLM, lambda: rows(4)),
    "S3CoT": (S3CoT, lambda: rows(4)),
    "MLLR": (MLLR, lambda: rows(4)),
    "Responder": (Responder, pairs_batch),
    "MoGU": (MoGU, router_batch),
    "CRISP": (CRISP, lambda: distillation(PROMPTS, OTHERS)),
}
"""LightningModules that are trained, with a function that makes a batch for each."""


@pytest.mark.parametrize("policy", ["modular", "freeze"])
@pytest.mark.parametrize("name", METHODS)
def test_every_method_takes_learning_rates(name: str, policy: Any, checkpoint: str, tmp_path: Path) -> None:
    method, batch = METHODS[name]
    peft = LoraConfig(r=2, target_modules=["q_proj", "v_proj"])
    options: dict[str, Any] = {"peft": peft}
    if method is MoGU:
        routers = RouterConfig(d_router=0, bias=True)
        options = {
            "router": routers,
            "backbone_peft": peft,
            "backbone_rate": 1.0,
            **adapters(Path(checkpoint), tmp_path),
        }
    module = method(
        backbone=checkpoint,
        optimizer=partial(torch.optim.AdamW, lr=1e-2),
        schedule=partial(WarmupConstant, warmup=0.0),
        learning_rates=LearningRates(modules=DEEP, ratio=0.1, policy=policy),
        **options,
    )
    run = trainer(tmp_path)
    batches: Any = [batch()]
    run.fit(module, DataLoader(batches, batch_size=None))
    found = {group["name"]: group["lr"] for group in run.optimizers[0].param_groups}
    expected = {"robust/matrices": 1e-2} | ({"rest/matrices": 1e-3} if policy == "modular" else {})
    assert found == pytest.approx(expected | ({"routers/vectors": 1e-2} if method is MoGU else {}))


def test_every_module_has_the_option_in_yaml() -> None:
    """Also the baselines, and methods that are not among those that are trained above."""
    for module in pkgutil.walk_packages(llm_modules.__path__, "llm_modules."):
        if ".vllm_worker." not in module.name:  # programs in vLLM's environment
            importlib.import_module(module.name)
    modules = [method for method in CausalLM.__subclasses__() if method.__module__.startswith("llm_modules")]
    assert len(modules) >= len(METHODS)
    for method in modules:
        parser = ArgumentParser()
        parser.add_class_arguments(method, "model")
        assert "--model.learning_rates" in parser.format_help(), method
