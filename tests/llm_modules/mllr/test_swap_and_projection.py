"""The causal check and SafeLoRA's projection."""

import pytest
import torch
from torch import nn

from datamodules.errors import InputError
from llm_modules.baselines.safelora import project
from llm_modules.mllr.swap import Swap
from llm_modules.mllr.weights import checksum, weights_of
from llm_modules.optim.module_names import Module, modules_of
from tests.architectures import ARCHITECTURES


@pytest.mark.parametrize("name", ["llama", "phi3", "gpt2", "qwen3_moe"])
def test_swapping_everything_makes_the_other_model_s_layers_and_leaves_no_trace(name: str) -> None:
    model, donor = ARCHITECTURES[name](), ARCHITECTURES[name](seed=1)
    before, other = checksum(model), checksum(donor)
    swap = Swap(model, donor)
    assert set().union(*swap.sets.values()) == set(modules_of(model))
    with swap.applied(swap.sets["all modules"]):
        for module, weights in weights_of(model).items():
            for mine, theirs in zip(weights, weights_of(donor)[module], strict=True):
                assert torch.equal(mine.view(), theirs.view())
    assert (checksum(model), checksum(donor)) == (before, other)


def test_only_the_named_modules_are_swapped_also_when_it_fails() -> None:
    model, donor = ARCHITECTURES["llama"](), ARCHITECTURES["llama"](seed=1)
    before = {name: p.clone() for name, p in model.named_parameters()}
    swap = Swap(model, donor)

    def fail() -> None:
        with swap.applied(swap.sets["down"]):
            changed = {n for n, p in model.named_parameters() if not torch.equal(p, before[n])}
            assert changed == {f"model.layers.{i}.mlp.down_proj.weight" for i in range(3)}
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert all(torch.equal(p, before[n]) for n, p in model.named_parameters())


def test_changes_are_relative() -> None:
    model, donor = ARCHITECTURES["llama"](), ARCHITECTURES["llama"]()
    weights_of(donor)[Module(1, "up")][0].view().mul_(1.5)
    changed = Swap(model, donor).changed()
    assert changed[Module(1, "up")] == pytest.approx(0.5)
    assert sum(changed.values()) == pytest.approx(0.5)


def test_models_of_another_family_are_refused() -> None:
    with pytest.raises(InputError, match="different modules"):
        Swap(ARCHITECTURES["llama"](), ARCHITECTURES["opt"]())
    with pytest.raises(InputError, match="different modules"):
        project(ARCHITECTURES["llama"](), ARCHITECTURES["llama"](), ARCHITECTURES["opt"]())


def changed_by(model: nn.Module, module: Module, change: torch.Tensor) -> None:
    weights_of(model)[module][0].view().add_(change)


def test_changes_inside_the_aligned_subspace_stay_and_others_are_projected() -> None:
    base, aligned, tuned = (ARCHITECTURES["llama"]() for _ in range(3))
    shape = weights_of(base)[Module(0, "o")][0].view().shape
    generator = torch.Generator().manual_seed(0)
    left = torch.linalg.qr(torch.randn(shape[0], shape[0], generator=generator)).Q
    along, across = left[:, :1] @ torch.ones(1, shape[1]), left[:, 1:2] @ torch.ones(1, shape[1])
    for model in (aligned, tuned):
        for layer in (0, 1):
            changed_by(model, Module(layer, "o"), along)
    changed_by(tuned, Module(0, "o"), 0.3 * along)
    changed_by(tuned, Module(1, "o"), 0.3 * across)
    state = {n: p.clone() for n, p in tuned.named_parameters()}
    rows = {row.module: row for row in project(tuned, aligned, base, threshold=0.5)}
    assert not rows[Module(0, "o")].projected
    assert rows[Module(0, "o")].similarity == pytest.approx(1.0, abs=1e-4)
    assert rows[Module(1, "o")].projected
    assert rows[Module(1, "o")].similarity == pytest.approx(0.0, abs=1e-3)
    moved = {n for n, p in tuned.named_parameters() if not torch.equal(p, state[n])}
    assert moved == {"model.layers.1.self_attn.o_proj.weight"}
    torch.testing.assert_close(
        weights_of(tuned)[Module(1, "o")][0].view(), weights_of(aligned)[Module(1, "o")][0].view(), atol=1e-4, rtol=0
    )
    with pytest.raises(InputError, match="threshold"):
        project(tuned, aligned, base, threshold=2.0)
