"""Perturbations are norm-matched, and leave no bit changed behind."""

from typing import Any

import pytest
import torch

from datamodules.errors import InputError
from llm_modules.mllr.perturb import Kind, Perturbation
from llm_modules.mllr.weights import checksum, weights_of
from llm_modules.optim.module_names import Module
from tests.architectures import ARCHITECTURES

KINDS: tuple[Kind, ...] = ("gaussian", "zero", "scale", "delta")


def perturbation(
    name: str, kind: Kind, eps: float = 0.5, dtype: torch.dtype = torch.float32
) -> tuple[torch.nn.Module, Perturbation]:
    build: Any = ARCHITECTURES[name]
    model = build().to(dtype)
    pilot = build(seed=1).to(dtype) if kind == "delta" else None
    return model, Perturbation(model, kind, eps, pilot)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_only_the_module_changes_and_every_bit_comes_back(name: str, kind: Kind) -> None:
    model, found = perturbation(name, kind)
    before, state = checksum(model), {n: p.clone() for n, p in model.named_parameters()}
    for module in found.modules:
        views = [weight.view().clone() for weight in found.weights[module]]
        with found.applied([module]):
            changed = [n for n, p in model.named_parameters() if not torch.equal(p, state[n])]
            assert len(changed) == len(views), module.name
            assert all(f".{module.layer}." in n for n in changed)
            for weight, old in zip(found.weights[module], views, strict=True):
                total = (model.get_parameter(changed[0]) != state[changed[0]]).sum()
                assert total <= old.numel(), "no other type of a fused weight"
                expected = {"gaussian": 0.5, "delta": 0.5, "scale": 0.5, "zero": 1.0}[kind]
                relative = torch.linalg.vector_norm(weight.view() - old) / torch.linalg.vector_norm(old)
                assert float(relative) == pytest.approx(expected, rel=0.25 if kind == "gaussian" else 1e-3)
        assert checksum(model) == before


def test_two_types_of_one_weight_change_it_in_one_direction() -> None:
    """As those of a fused weight whose layout is not known do."""
    _, found = perturbation("llama", "delta", eps=0.9)
    key, value = Module(0, "k"), Module(0, "v")
    for weights in (found.weights, found._tuned):
        weights[value] = weights[key]
    weight = found.weights[key][0]
    before = weight.view().clone()
    with found.applied([key]):
        once = weight.view() - before
    with found.applied([key, value]):
        both = weight.view() - before
    torch.testing.assert_close(both, once * (both.norm() / once.norm()), atol=1e-5, rtol=1e-4)
    assert both.norm() > 1.5 * once.norm()
    assert torch.equal(weight.view(), before)


def test_the_bits_come_back_after_an_error_too() -> None:
    model, found = perturbation("phi3", "gaussian", dtype=torch.bfloat16)
    before = checksum(model)

    def fail() -> None:
        with found.applied(found.modules, seed=3):
            assert checksum(model) != before
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert checksum(model) == before


def test_subtracting_the_noise_would_not_bring_them_back() -> None:
    """Why a copy is kept: in bfloat16 (and in float32) adding and subtracting is not exact."""
    weights = torch.randn(64, 64, generator=torch.Generator().manual_seed(0)).bfloat16()
    noise = torch.randn(64, 64, generator=torch.Generator().manual_seed(1)).bfloat16()
    assert not torch.equal((weights + noise) - noise, weights)


def test_noise_depends_on_seed_and_module_alone() -> None:
    _, found = perturbation("llama", "gaussian")
    module, other = Module(1, "up"), Module(0, "q")
    view = found.weights[module][0].view

    def under(modules: list[Module], seed: int) -> torch.Tensor:
        with found.applied(modules, seed):
            return view().clone()

    alone = under([module], 0)
    assert torch.equal(alone, under([other, module], 0))
    assert not torch.equal(alone, under([module], 1))
    noises = [under([module], seed) - view() for seed in range(2)]
    assert abs(float(torch.corrcoef(torch.stack([n.flatten() for n in noises]))[0, 1])) < 0.1


@pytest.mark.parametrize("name", ["phi3", "gpt2", "gpt_neox", "falcon"])
def test_parts_of_a_fused_projection_are_what_the_model_takes_for_them(name: str) -> None:
    """Zeroed keys make all attention weights equal; zeroed values make attention give nothing (but its bias)."""
    model = ARCHITECTURES[name]()
    model.set_attn_implementation("eager")
    found = Perturbation(model, "zero")
    ids = torch.randint(3, 100, (1, 6), generator=torch.Generator().manual_seed(0))

    def attention() -> torch.Tensor:
        return model(input_ids=ids, output_attentions=True, use_cache=False).attentions[0][0, :, -1]

    with torch.no_grad():
        for kind in ("q", "k"):
            with found.applied([Module(0, kind)]):
                weights = attention()
            torch.testing.assert_close(weights, torch.full_like(weights, 1 / 6), msg=f"{name} {kind}")
        with found.applied([Module(0, "v")]):
            assert not torch.allclose(attention(), torch.full((1,), 1 / 6)), "values do not make attention"


def test_the_parts_of_every_fused_weight_cover_it_once() -> None:
    for name in ("phi3", "gpt2", "gpt_neox", "falcon", "qwen3_moe"):
        model = ARCHITECTURES[name]()
        counted = {id(p): torch.zeros_like(p) for p in model.parameters()}
        for parts in weights_of(model).values():
            for part in parts:
                whole = counted[id(part.parameter)]
                (whole.view(part.shape).narrow(part.dim, part.start, part.length) if part.shape else whole).add_(1)
        touched = [count for count in counted.values() if count.any()]
        assert touched
        assert all((count == 1).all() for count in touched), name


def test_a_pilot_is_needed_for_its_kind_and_must_fit() -> None:
    model = ARCHITECTURES["llama"]()
    with pytest.raises(InputError, match="needs a pilot"):
        Perturbation(model, "delta")
    with pytest.raises(InputError, match="needs a pilot"):
        Perturbation(model, "gaussian", pilot=model)
    with pytest.raises(InputError, match="did not change in the pilot"):
        Perturbation(model, "delta", pilot=ARCHITECTURES["llama"]())
    with pytest.raises(InputError, match="another shape"):
        Perturbation(model, "delta", pilot=ARCHITECTURES["opt"]())
    for eps in (0.0, -1.0, float("nan")):
        with pytest.raises(InputError, match="eps"):
            Perturbation(model, "gaussian", eps)


def test_a_checksum_sees_one_bit_and_an_exchange() -> None:
    model = ARCHITECTURES["llama"]()
    before = checksum(model)
    weight = model.get_parameter("model.layers.0.mlp.up_proj.weight").data
    old = weight.clone()
    weight.view(torch.int32)[3, 5] ^= 1
    assert checksum(model) != before
    weight.copy_(old)
    assert checksum(model) == before
    weight[[0, 1]] = weight[[1, 0]]
    assert checksum(model) != before
