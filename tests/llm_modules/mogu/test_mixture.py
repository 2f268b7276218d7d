"""The mixture is the paper's equation in every architecture, and leaves no trace when it is off."""

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn
from transformers import AutoModelForCausalLM

from datamodules.batch import IGNORE_INDEX
from datamodules.errors import InputError
from llm_modules.mogu.adapters import random_adapter, read_adapter, write_adapter
from llm_modules.mogu.config import RouterConfig
from llm_modules.mogu.losses import gate_penalty
from llm_modules.mogu.mixture import Mixture
from llm_modules.mogu.model import MoGUModel
from llm_modules.mogu.target import output_projections, projection_pattern
from tests.architectures import ARCHITECTURES, LAYERS
from tests.llm_modules.mogu.parts import batch, plain_copy, responders, tiny_mogu


def logits(model: nn.Module, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=ids, attention_mask=mask, use_cache=False).logits[mask.bool()]


# Falcon's ALiBi and Gemma 2's capped scores have eager attention only.
ATTENTION = [
    (name, kind)
    for name in ARCHITECTURES
    for kind in ("sdpa", "eager")
    if kind == "eager" or ARCHITECTURES[name]()._supports_sdpa
]


@pytest.mark.parametrize(("name", "attention"), ATTENTION)
def test_off_is_the_base_bit_for_bit_and_forced_gates_are_the_single_adapters(
    name: str, attention: str, tmp_path
) -> None:
    ids, mask = batch()
    base = ARCHITECTURES[name]()
    base.set_attn_implementation(attention)
    expected = logits(base, ids, mask)
    mogu = tiny_mogu(name, attention=attention)
    with mogu.base():
        assert torch.equal(logits(mogu.model, ids, mask), expected)
    assert not torch.allclose(logits(mogu.model, ids, mask), expected, atol=1e-3), "the mixture must show"
    for responder, gates in ((mogu.glad, (1.0, 0.0)), (mogu.unwilling, (0.0, 1.0))):
        write_adapter(responder, responder.deltas, tmp_path / str(gates))
        other = ARCHITECTURES[name]()
        other.set_attn_implementation(attention)
        single = PeftModel.from_pretrained(other, tmp_path / str(gates))
        with mogu.control.set(forced=gates):
            torch.testing.assert_close(logits(mogu.model, ids, mask), logits(single, ids, mask), atol=2e-4, rtol=1e-4)
    assert torch.equal(logits(mogu.unload(), ids, mask), expected)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_forward_gates_loss_and_gradients_are_those_of_the_equations(name: str) -> None:
    """Against a plain reading: factored routers multiplied token by token, both responders computed apart."""
    ids, mask = batch()
    labels = ids.masked_fill(~mask.bool(), IGNORE_INDEX)
    malicious = torch.tensor([True, False, True])
    mogu = tiny_mogu(name)
    plain, layers = plain_copy(name, mogu)
    with mogu.recording() as record:
        ours = mogu.model(input_ids=ids, attention_mask=mask, labels=labels, use_cache=False)
    theirs = plain(input_ids=ids, attention_mask=mask, labels=labels, use_cache=False)
    torch.testing.assert_close(ours.logits[mask.bool()], theirs.logits[mask.bool()], atol=2e-4, rtol=1e-4)

    gates = record.stacked()
    expected = torch.stack([torch.stack(layer.gates, dim=-1) for layer in layers])
    torch.testing.assert_close(gates[:, mask.bool()], expected[:, mask.bool()], atol=1e-4, rtol=1e-4)

    penalty = gate_penalty(gates, malicious, mask.bool(), "l1")
    by_row = []
    for row in range(3):
        glad, unwilling = expected[:, row, mask[row].bool()].unbind(-1)
        pulled = (glad + (1 - unwilling)) if malicious[row] else ((1 - glad) + unwilling)
        by_row.append(pulled.mean())
    torch.testing.assert_close(penalty, torch.stack(by_row), atol=1e-4, rtol=1e-4)

    (ours.loss + 2 * penalty.mean()).backward()
    (theirs.loss + 2 * torch.stack(by_row).mean()).backward()
    found: list[Any] = [
        p.grad for m in mogu.mixtures.values() for r in (m.routers.glad, m.routers.unwilling) for p in r.parameters()
    ]
    wanted: list[Any] = [p.grad for layer in layers for p in layer.routers.parameters()]
    assert len(found) == len(wanted) == LAYERS * 6
    for got, want in zip(found, wanted, strict=True):
        scale = want.abs().max().clamp(min=1e-6)
        torch.testing.assert_close(got / scale, want / scale, atol=2e-3, rtol=1e-3)


def test_zero_adapters_with_gates_one_and_zero_are_the_base() -> None:
    ids, mask = batch()
    model = ARCHITECTURES["llama"]()
    expected = logits(model, ids, mask)
    glad, unwilling = responders(model)
    for responder in (glad, unwilling):
        for _, up in responder.deltas.values():
            up.zero_()
    mogu = MoGUModel(model, glad, unwilling)
    with mogu.control.set(forced=(1.0, 0.0)):
        assert torch.equal(logits(mogu.model, ids, mask), expected)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("name", ["llama", "gpt2", "falcon"])
def test_folded_equals_factored(name: str, bias: bool) -> None:
    ids, mask = batch()
    mogu = tiny_mogu(name, bias=bias)
    gates, expected = mogu.gates(ids, mask), logits(mogu.model, ids, mask)
    factored = sum(p.numel() for p in mogu.router_parameters())
    mogu.fold()
    assert sum(p.numel() for p in mogu.router_parameters()) < factored / 8
    torch.testing.assert_close(mogu.gates(ids, mask), gates, atol=5e-5, rtol=1e-4)
    torch.testing.assert_close(logits(mogu.model, ids, mask), expected, atol=1e-4, rtol=1e-4)
    for mixture in mogu.mixtures.values():
        mixture.unjoin()
    torch.testing.assert_close(mogu.gates(ids, mask), gates, atol=5e-5, rtol=1e-4)


@pytest.mark.parametrize("joined", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_a_shift_moves_the_logits_of_the_two_gates_apart(bias: bool, joined: bool) -> None:
    ids, mask = batch()
    mogu = tiny_mogu(bias=bias, layers=(1,))
    before = mogu.gates(ids, mask)
    if joined:
        mogu.fold()
    mogu.shift_gates(1.0)
    mogu.shift_gates(-0.25)
    moved = (before.logit() + torch.tensor([-0.75, 0.75])).sigmoid()
    assert (moved - before).abs().max() > 0.1
    torch.testing.assert_close(mogu.gates(ids, mask), moved, atol=1e-4, rtol=1e-4)
    mogu.fold()
    torch.testing.assert_close(mogu.gates(ids, mask), moved, atol=1e-4, rtol=1e-4)
    mogu.shift_gates(-0.75)
    torch.testing.assert_close(mogu.gates(ids, mask), before, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("joined", [False, True])
def test_only_the_rows_that_are_mixed_differ_from_the_base(joined: bool) -> None:
    ids, mask = batch()
    mogu = tiny_mogu()
    if joined:
        mogu.fold()

    def run(**settings: Any) -> torch.Tensor:
        with mogu.control.set(**settings), torch.no_grad():
            return mogu.model(input_ids=ids, attention_mask=mask, use_cache=False).logits

    mixed, base = run(), run(active=False)
    part = run(rows=torch.tensor([True, False, True]))
    torch.testing.assert_close(part[[0, 2]], mixed[[0, 2]])
    assert torch.equal(part[1], base[1])
    start = run(rows=torch.arange(ids.shape[1])[None] < 4)
    torch.testing.assert_close(start[:, :4], mixed[:, :4])
    assert not torch.allclose(start[:, 4:], mixed[:, 4:], atol=1e-3), "the later tokens are the base's"
    single = run(rows=torch.ones_like(ids, dtype=torch.bool) & torch.tensor([[True], [False], [True]]))
    torch.testing.assert_close(single, part)


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_a_padded_row_is_the_single_row(name: str) -> None:
    ids, mask = batch()
    mogu = tiny_mogu(name)
    together, alone = mogu.gates(ids, mask), mogu.gates(ids[1:2, :6])
    torch.testing.assert_close(together[:, 1, :6], alone[:, 0], atol=1e-5, rtol=1e-5)


def test_everything_but_the_routers_is_frozen() -> None:
    mogu = tiny_mogu()
    names = {name for name, parameter in mogu.model.named_parameters() if parameter.requires_grad}
    assert len(names) == LAYERS * 6
    assert all(".routers." in name for name in names)


def test_gates_belong_to_one_pass() -> None:
    ids, mask = batch()
    mogu = tiny_mogu()
    with mogu.recording() as first:
        mogu.model(input_ids=ids, attention_mask=mask)
    kept = first.stacked().clone()
    with mogu.recording() as second:
        mogu.model(input_ids=ids.flip(0), attention_mask=mask.flip(0))
    mogu.model(input_ids=ids[:1])
    assert torch.equal(first.stacked(), kept)
    assert not torch.equal(second.stacked(), kept)
    assert mogu.control.record is None
    with pytest.raises(ZeroDivisionError), mogu.recording(active=False):
        raise ZeroDivisionError
    assert mogu.control.active
    with mogu.base(), mogu.recording(active=False) as nothing:
        mogu.model(input_ids=ids)
    with pytest.raises(RuntimeError, match="no mixture has run"):
        nothing.stacked()


def test_re_entrant_checkpointing_cuts_the_gates_off_and_the_other_kind_does_not() -> None:
    ids, mask = batch()
    grads = {}
    for kind in ("none", "not_reentrant", "reentrant"):
        mogu = tiny_mogu()
        mogu.model.train()
        if kind != "none":
            mogu.model.gradient_checkpointing_enable(
                gradient_checkpointing_kwargs={"use_reentrant": kind == "reentrant"}
            )
        with mogu.recording() as record:
            mogu.model.get_decoder()(input_ids=ids, attention_mask=mask, use_cache=False)
        gates = record.stacked()
        assert gates.requires_grad == (kind != "reentrant")
        if gates.requires_grad:
            gate_penalty(gates, torch.tensor([True, False, True]), mask.bool()).sum().backward()
            grads[kind] = [p.grad for p in mogu.router_parameters()]
    for a, b in zip(grads["none"], grads["not_reentrant"], strict=True):
        torch.testing.assert_close(a, b)


def test_a_quantised_base_and_one_of_bfloat16_keep_adapters_and_routers_in_float32() -> None:
    ids, mask = batch()
    quantised = torch.ao.quantization.quantize_dynamic(ARCHITECTURES["llama"](), {nn.Linear}, torch.qint8)
    for model in (quantised, ARCHITECTURES["llama"]().bfloat16()):
        expected = logits(model, ids, mask)
        mogu = MoGUModel(model, *responders(model), RouterConfig(d_router=4))
        with mogu.base():
            assert torch.equal(logits(mogu.model, ids, mask), expected)
        with mogu.recording() as record:
            out = mogu.model(input_ids=ids, attention_mask=mask).logits
        assert out.dtype == expected.dtype
        assert torch.isfinite(out).all()
        assert record.stacked().dtype == torch.float32
        record.stacked().sum().backward()
        for parameter in mogu.router_parameters():
            assert parameter.dtype == torch.float32
            assert parameter.grad is not None
            assert parameter.grad.any()


def test_merging_is_refused_with_the_reason() -> None:
    mogu = tiny_mogu()
    with pytest.raises(InputError, match="another weight for every token"):
        mogu.merge_and_unload()
    with pytest.raises(RuntimeError, match="another weight for every token"):
        mogu.mixtures[0].merge()


def test_a_model_with_mixtures_is_not_saved_as_its_base_and_one_without_is(tmp_path) -> None:
    mogu = tiny_mogu()
    for holder in (mogu.model, copy.deepcopy(mogu).model):
        with pytest.raises(InputError, match=r"save_pretrained: .*with new random.*MoGU folder"):
            holder.save_pretrained(tmp_path / "mixed")
    assert not (tmp_path / "mixed").exists()
    mogu.unload().save_pretrained(tmp_path / "base")
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    assert torch.equal(logits(base, *batch()), logits(ARCHITECTURES["llama"](), *batch()))


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_output_projection_is_found_in_every_family(name: str) -> None:
    model = ARCHITECTURES[name]()
    found = output_projections(model)
    assert [projection.layer for projection in found] == list(range(LAYERS))
    assert all("attn" in p.path or "attention" in p.path for p in found)
    assert [p.path for p in output_projections(model, found[0].name if name != "gpt2" else "attn.c_proj")] == [
        p.path for p in found
    ]
    adapted = get_peft_model(model, LoraConfig(r=2, target_modules=projection_pattern(model), task_type="CAUSAL_LM"))
    assert sum("lora_A" in key for key, _ in adapted.named_parameters()) == LAYERS


def test_wrong_targets_layers_and_adapters_are_named(tmp_path) -> None:
    model = ARCHITECTURES["llama"]()
    glad, unwilling = responders(model)
    with pytest.raises(InputError, match=r"no decoder layer has 'wo'.*self_attn\.o_proj"):
        output_projections(model, "wo")
    with pytest.raises(InputError, match=r"'c_proj' means attn\.c_proj, mlp\.c_proj"):
        output_projections(ARCHITECTURES["gpt2"](), "c_proj")
    with pytest.raises(InputError, match=r"no output projection in layer 7.*layers 0-2"):
        MoGUModel(model, glad, unwilling, RouterConfig(layers=(0, 7)))
    other = random_adapter(output_projections(ARCHITECTURES["gpt2"]()), 2, 4, 0)
    with pytest.raises(InputError, match=r"model\.glad.*nothing for model\.layers\.0\.self_attn\.o_proj"):
        MoGUModel(model, other, unwilling)
    wide = random_adapter(output_projections(model), 2, 4, 0)
    wrong = {"model.layers.1.self_attn.o_proj": (torch.zeros(2, 48), torch.zeros(32, 2))}
    wide = replace(wide, deltas={**wide.deltas, **wrong})
    with pytest.raises(InputError, match=r"model\.unwilling.*48 to 32 features.*another\s+base"):
        MoGUModel(model, glad, wide)
    assert not any(isinstance(module, Mixture) for module in model.modules()), "nothing changes before all is checked"
    MoGUModel(model, glad, unwilling)
    with pytest.raises(InputError, match="holds mixtures already"):
        MoGUModel(model, glad, unwilling)
    with pytest.raises(InputError, match=r"d_router.*-1"):
        RouterConfig(d_router=-1)
    with pytest.raises(InputError, match="the list is empty"):
        RouterConfig(layers=())


def test_responder_folders_that_cannot_be_mixed_are_refused(tmp_path) -> None:
    with pytest.raises(InputError, match=r"model\.glad: .* is no PEFT folder"):
        read_adapter(tmp_path, "model.glad")
    model = ARCHITECTURES["llama"]()
    glad, _ = responders(model)
    for options, why in (
        ({"use_dora": True}, "DoRA"),
        ({"bias": "all"}, "biases"),
        ({"modules_to_save": ["lm_head"]}, "whole modules"),
    ):
        folder = tmp_path / why.replace(" ", "")
        config = LoraConfig(r=2, target_modules=["o_proj"], task_type="CAUSAL_LM", **options)
        get_peft_model(ARCHITECTURES["llama"](), config).save_pretrained(folder)
        with pytest.raises(InputError, match=why):
            read_adapter(folder, "model.glad")
    write_adapter(glad, glad.deltas, tmp_path / "pickled")
    (tmp_path / "pickled/adapter_model.safetensors").rename(tmp_path / "pickled/adapter_model.bin")
    with pytest.raises(InputError, match="pickled weights are not read"):
        read_adapter(tmp_path / "pickled", "model.glad")


def test_any_rank_pattern_and_scaling_of_peft_is_kept(tmp_path) -> None:
    """Ranks, alphas and rank-stabilised scaling by layer: the forced mixture is what PEFT computes."""
    ids, mask = batch()
    config = LoraConfig(
        r=4,
        lora_alpha=12,
        use_rslora=True,
        rank_pattern={r"layers\.1\.self_attn\.o_proj": 2},
        alpha_pattern={r"layers\.2\.self_attn\.o_proj": 5},
        target_modules=["o_proj"],
        init_lora_weights=False,
        task_type="CAUSAL_LM",
    )
    adapted = get_peft_model(ARCHITECTURES["llama"](), config).eval()
    adapted.save_pretrained(tmp_path)
    model = ARCHITECTURES["llama"]()
    _, unwilling = responders(model)
    mogu = MoGUModel(model, read_adapter(tmp_path, "model.glad"), unwilling)
    with mogu.control.set(forced=(1.0, 0.0)):
        torch.testing.assert_close(logits(mogu.model, ids, mask), logits(adapted, ids, mask), atol=2e-4, rtol=1e-4)


def test_nothing_of_a_responder_is_left_out_unsaid() -> None:
    model = ARCHITECTURES["llama"]()
    projections = output_projections(model)
    glad, unwilling = (random_adapter(projections, 2, 4, seed) for seed in (0, 1))
    places = {"model.layers.0.self_attn.q_proj": next(iter(glad.deltas.values()))}
    more = replace(glad, deltas=dict(glad.deltas) | places)
    with pytest.raises(InputError, match=r"model\.glad: .*adapts model\.layers\.0\.self_attn\.q_proj \(one of 1\)"):
        MoGUModel(model, more, unwilling)
    deeper = replace(unwilling, deltas={**unwilling.deltas, "model.layers.7.self_attn.o_proj": places.popitem()[1]})
    with pytest.raises(InputError, match=r"model\.unwilling: .*also adapts model\.layers\.7"):
        MoGUModel(model, glad, deeper)
    # Layers that are not routed are another matter: that was asked for.
    MoGUModel(model, glad, unwilling, RouterConfig(layers=(1,), d_router=0))


@pytest.mark.parametrize("folded", [True, False])
def test_a_cast_of_the_model_is_one_of_its_base_alone(folded: bool) -> None:
    """What ``precision: bf16-true`` does: gates of bfloat16 would be too coarse."""
    mogu = tiny_mogu()
    if folded:
        mogu.fold()
    ids, mask = batch()
    wanted = mogu.gates(ids, mask)
    model: Any = mogu.model
    model.to(torch.bfloat16)
    mixture = mogu.mixtures[0]
    assert mixture.base.weight.dtype == torch.bfloat16
    assert {p.dtype for p in [mixture.down, mixture.up, mixture.scale, *mixture.routers.parameters()]} == {
        torch.float32
    }
    found = mogu.gates(ids, mask)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found[:, mask.bool()], wanted[:, mask.bool()], atol=0.1, rtol=0)
