"""Modules have the same names in every family and under every wrapper."""

from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model

from datamodules.errors import InputError
from llm_modules.optim.module_names import TYPES, Module, fused, modules_of, parameters_by_module, select, types_of
from tests.architectures import ARCHITECTURES, LAYERS

NO_GATE = {"falcon", "falcon_alibi", "opt", "gpt_neox", "gpt2"}
FUSED = {
    **{name: [("q", "k", "v")] for name in ("falcon", "falcon_alibi", "gpt_neox", "gpt2")},
    "phi3": [("gate", "up"), ("q", "k", "v")],
    "qwen3_moe": [("gate", "up")],
}


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_matrix_of_a_layer_but_the_router_has_a_name(name: str) -> None:
    model = ARCHITECTURES[name]()
    types = [kind for kind in TYPES if kind != "mixer" and (kind != "gate" or name not in NO_GATE)]
    assert modules_of(model) == [Module(layer, kind) for kind in types for layer in range(LAYERS)]
    assert fused(model) == FUSED.get(name, [])
    names = {id(p): n for n, p in model.named_parameters()}
    nameless = {names[id(p)] for p, modules in parameters_by_module(model) if not modules and p.ndim > 1}
    assert nameless == ({f"model.layers.{i}.mlp.gate.weight" for i in range(LAYERS)} if name == "qwen3_moe" else set())


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_an_adapter_counts_with_the_module_that_it_adapts(name: str) -> None:
    bare = modules_of(ARCHITECTURES[name]())
    model = get_peft_model(ARCHITECTURES[name](), LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM"))
    assert modules_of(model) == bare
    trained = {module for p, modules in parameters_by_module(model) for module in modules if p.requires_grad}
    missing = {module.type for module in set(bare) - trained}
    assert not missing, "every module has an adapter, and it is found"


def test_compiling_changes_no_name() -> None:
    model = ARCHITECTURES["llama"]()
    bare = modules_of(model)
    compiled: Any = torch.compile(model)
    assert modules_of(compiled) == bare
    for index, layer in enumerate(model.model.layers):
        model.model.layers[index] = torch.compile(layer)
    assert modules_of(model) == bare


@pytest.mark.parametrize(
    ("name", "types"),
    [
        ("self_attn.q_proj.weight", ("q",)),
        ("_orig_mod.self_attn.qkv_proj.base_layer.weight", ("q", "k", "v")),
        ("attn.c_proj.weight", ("o",)),
        ("mlp.c_proj.weight", ("down",)),
        ("attention.dense.bias", ("o",)),
        ("mlp.experts.base_layer.gate_up_proj", ("gate", "up")),
        ("mlp.experts.lora_A.default.weight", ("gate", "up", "down")),
        ("mlp.shared_expert.up_proj.lora_B.default.weight", ("up",)),
        ("mlp.gate.weight", ()),
        ("self_attn.q_norm.weight", ()),
        ("input_layernorm.weight", ()),
    ],
)
def test_types_of_a_parameter(name: str, types: tuple[str, ...]) -> None:
    assert types_of(name) == types


def test_patterns() -> None:
    modules = [Module(layer, kind) for layer in range(12) for kind in ("q", "down")]
    assert select(["layers.11.q"], modules, "key") == {Module(11, "q")}
    assert select(["layers.1-2.*"], modules, "key") == {Module(i, t) for i in (1, 2) for t in ("q", "down")}
    assert select(["layers.*.down"], modules, "key") == {Module(i, "down") for i in range(12)}


@pytest.mark.parametrize(
    "pattern", ["layers.12.q", "layers.*.gate", "layers.3-2.q", "layers.1", "model.1.q", "1.q", "*"]
)
def test_a_pattern_that_means_nothing_is_an_error(pattern: str) -> None:
    with pytest.raises(InputError, match=r"learning_rates\.modules: "):
        select([pattern], [Module(i, "q") for i in range(12)], "learning_rates.modules")


def test_names_are_read_back() -> None:
    assert Module.parse(Module(3, "down").name) == Module(3, "down")
    for name in ("layers.3.qkv", "layer.3.q", "layers.3.q.weight"):
        with pytest.raises(InputError, match=r"layers\.3\.q"):
            Module.parse(name)
