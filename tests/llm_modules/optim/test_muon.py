"""MuonAdamW is Muon and AdamW, and behaves as one optimiser."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from datamodules.errors import InputError
from llm_modules.optim.muon import MuonAdamW
from llm_modules.optim.parameter_groups import named_groups
from llm_modules.optim.schedules import WarmupCosine


def _model() -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential()
    model.add_module("embed", nn.Embedding(10, 8))
    model.add_module("hidden", nn.Linear(8, 6))
    model.add_module("norm", nn.LayerNorm(6))
    return model


def _train(model: nn.Module, optimizers: list[torch.optim.Optimizer], steps: int, start: int = 0) -> None:
    for i in range(start, start + steps):
        tokens = torch.randint(0, 10, (4, 5), generator=torch.Generator().manual_seed(i))
        model(tokens).square().sum(-1).cos().mean().backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()


def _equal(a: nn.Module, b: nn.Module) -> bool:
    return all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))


def test_it_is_muon_on_matrices_and_adamw_on_the_rest() -> None:
    model, twin = _model(), _model()
    _train(model, [MuonAdamW(named_groups(model.named_parameters()), lr=0.02, adamw_lr=1e-2)], 5)
    hidden = [twin.get_parameter("hidden.weight")]
    rest = [p for p in twin.parameters() if p is not hidden[0]]
    muon = torch.optim.Muon(hidden, lr=0.02, weight_decay=0.0)
    adamw = torch.optim.AdamW(rest, lr=1e-2, betas=(0.9, 0.95), weight_decay=0.0)
    _train(twin, [muon, adamw], 5)
    assert _equal(model, twin)
    assert not _equal(model, _model())


def test_a_schedule_scales_each_group_from_its_own_rate() -> None:
    model = _model()
    optimizer = MuonAdamW(named_groups(model.named_parameters()), lr=0.02, adamw_lr=1e-2)
    schedule = WarmupCosine(optimizer, total_steps=10, warmup=0.2)
    before = copy.deepcopy(model)
    rates = []
    for i in range(10):
        rates.append({group["name"]: group["lr"] for group in optimizer.param_groups})
        _train(model, [optimizer], 1, start=i)
        schedule.step()
    assert all(r["matrices"] == pytest.approx(2 * r["embeddings"]) == pytest.approx(2 * r["vectors"]) for r in rates)
    assert rates[0]["matrices"] < rates[3]["matrices"] > rates[9]["matrices"]
    assert not _equal(model, before)
    ended = copy.deepcopy(model)
    _train(model, [optimizer], 1)  # the schedule has ended at a rate of 0
    assert _equal(model, ended)


def test_a_loaded_state_goes_on_where_it_was_saved(tmp_path: Path) -> None:
    whole = _model()
    optimizer = MuonAdamW(named_groups(whole.named_parameters()))
    _train(whole, [optimizer], 3)
    torch.save({"model": whole.state_dict(), "optimizer": optimizer.state_dict()}, tmp_path / "checkpoint")
    _train(whole, [optimizer], 3, start=3)

    resumed = _model()
    optimizer = MuonAdamW(named_groups(resumed.named_parameters()))
    saved = torch.load(tmp_path / "checkpoint", weights_only=True)
    resumed.load_state_dict(saved["model"])
    optimizer.load_state_dict(saved["optimizer"])
    _train(resumed, [optimizer], 3, start=3)
    assert _equal(whole, resumed)


def test_groups_without_names_are_refused() -> None:
    without: Any = _model().parameters()
    with pytest.raises(InputError, match="named"):
        MuonAdamW(without)
