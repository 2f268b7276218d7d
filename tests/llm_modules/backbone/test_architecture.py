"""Decoder layers are found in every family, whatever wraps the model."""

from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model

from datamodules.errors import InputError
from llm_modules.backbone.architecture import decoder_layers, hidden_size, layer_path, num_layers, uncompiled, unwrap
from tests.architectures import ARCHITECTURES, HIDDEN, LAYERS

PATHS = {"gpt2": "h", "falcon": "h", "falcon_alibi": "h", "opt": "decoder.layers"}


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_layers_of_every_family(name: str) -> None:
    model = ARCHITECTURES[name]()
    path = layer_path(model)
    assert (num_layers(model), hidden_size(model), path) == (LAYERS, HIDDEN, PATHS.get(name, "layers"))
    assert model.base_model.get_submodule(path) is decoder_layers(model)
    seen: list[torch.Size] = []
    for layer in decoder_layers(model):
        layer.register_forward_hook(
            lambda _m, _a, output: seen.append((output if torch.is_tensor(output) else output[0]).shape)
        )
    model(input_ids=torch.tensor([[3, 4, 5]]))
    assert seen == [torch.Size([1, 3, hidden_size(model)])] * LAYERS


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_layers_through_wrappers(name: str) -> None:
    model = ARCHITECTURES[name]()
    layers = decoder_layers(model)
    target = "c_attn" if name == "gpt2" else "q_proj"
    adapted = get_peft_model(
        model, LoraConfig(r=2, target_modules=[target], fan_in_fan_out=name == "gpt2", task_type="CAUSAL_LM")
    )
    compiled: list[Any] = [torch.compile(module, backend="eager") for module in (adapted, model)]
    for wrapped in (adapted, *compiled):
        assert decoder_layers(wrapped) is layers
        assert unwrap(wrapped) is model


def test_layers_of_a_compiled_decoder() -> None:
    model = ARCHITECTURES["llama"]()
    layers = model.model.layers
    model.model = torch.compile(model.model, backend="eager")
    assert decoder_layers(model) is layers
    assert layer_path(model) == "layers"


def test_unknown_family_names_what_it_found() -> None:
    model = ARCHITECTURES["llama"]()
    model.model.blocks = model.model._modules.pop("layers")
    assert decoder_layers(model) is model.model.blocks, "the one list of their number"
    model.config.num_hidden_layers = 4
    with pytest.raises(InputError, match=r"LlamaForCausalLM.*'model.blocks' \(3 x LlamaDecoderLayer\)"):
        decoder_layers(model)


def test_a_hook_that_comes_after_compilation_is_seen_only_uncompiled() -> None:
    """The trap itself, so that the day when Dynamo guards hooks by default is noticed."""
    model = ARCHITECTURES["llama"]()
    model.compile(backend="eager")
    ids, calls = torch.tensor([[3, 4, 5]]), []
    with torch.no_grad():
        model(input_ids=ids)
        decoder_layers(model)[0].register_forward_hook(lambda *_: calls.append(1))
        model(input_ids=ids)
        assert calls == []
        with uncompiled():
            model(input_ids=ids)
    assert calls == [1]
