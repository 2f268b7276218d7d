"""Families with states, latent attention, experts and caches of their own: found, named, generated with and steered."""

from functools import partial
from typing import Any

import pytest
import torch

from datamodules.errors import InputError
from llm_modules.backbone.architecture import decoder_layers, num_layers
from llm_modules.generation import GenerationSettings, Generator
from llm_modules.optim.module_names import modules_of
from llm_modules.s3cot import Steering
from tests.families import HIDDEN, tiny_model

SLOTS = [
    "bailing_hybrid",
    "deepseek_v3",
    "falcon_mamba",
    "gemma4_text",
    "glm4_moe",
    "gpt_oss",
    "granite",
    "jamba",
    "kimi_linear",
    "lfm2",
    "llama4_text",
    "mamba",
    "mpt",
    "nemotron_h",
    "olmo_hybrid",
    "qwen3_5_text",
    "qwen3_next",
    "smollm3",
]
"""Rows join and leave the batch."""
BATCHES = ["deepseek_v4", "glm_moe_dsa", "minimax"]
"""A batch is decoded to its end."""
PROMPTS = [torch.arange(5, 5 + n).mul(7).remainder(90).tolist() for n in (4, 9, 5, 9, 12, 6)]
NEW = 8


def greedy(model: torch.nn.Module, prompt: list[int]) -> tuple[int, ...]:
    """Each token from a pass over all tokens before it, one row, no cache."""
    ids = list(prompt)
    while len(ids) < len(prompt) + NEW and (len(ids) == len(prompt) or ids[-1] != 7):
        ids.append(int(model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1].argmax()))
    return tuple(ids[len(prompt) :])


@torch.no_grad()
@pytest.mark.parametrize("family", [*SLOTS, *BATCHES])
def test_rows_in_slots_are_what_each_row_is_without_cache(family: str) -> None:
    model = tiny_model(family)
    generator = Generator(model, GenerationSettings(max_new_tokens=NEW, slots=3), pad_id=0, eos_ids={7})
    assert generator.takes_newcomers == (family in SLOTS)
    assert [done.token_ids for done in generator.generate(PROMPTS)] == [greedy(model, prompt) for prompt in PROMPTS]


@torch.no_grad()
@pytest.mark.parametrize("family", [*SLOTS, "minimax"])
def test_a_strength_acts_on_its_row_alone(family: str) -> None:
    model = tiny_model(family)
    settings = GenerationSettings(max_new_tokens=NEW, slots=3)

    def generate(strength: float) -> list[tuple[int, ...]]:
        vectors = torch.randn(num_layers(model), HIDDEN, generator=torch.Generator().manual_seed(1))
        generator = Generator(model, settings, pad_id=0, eos_ids=())
        with Steering(model, 20 * vectors) as steering:
            generator.listeners.append(steering)
            steering.set_strengths(torch.tensor([0.0, strength] * 3))
            return [done.token_ids for done in generator.generate(PROMPTS)]

    plain, steered = generate(0.0), generate(1.0)
    assert steered[::2] == plain[::2]
    assert steered[1::2] != plain[1::2]


@pytest.mark.parametrize("family", [*SLOTS, *BATCHES])
def test_modules_of_attention_and_feed_forward_have_their_types(family: str) -> None:
    types = {module.type for module in modules_of(tiny_model(family))}
    if family in ("mamba", "falcon_mamba"):
        assert types == {"mixer", "o"}
    else:
        assert types >= {"q", "k", "v", "o", "up", "down"}


@pytest.mark.parametrize("family", ["cpmant", "llama4_text", "modernbert-decoder", "mpt"])
def test_decoder_layers_are_found_by_their_number(family: str) -> None:
    assert num_layers(tiny_model(family)) == 3


@torch.no_grad()
@pytest.mark.parametrize("family", ["deepseek_v4", "gemma3n_text", "qwen4_exp_text"])
def test_several_residual_streams_are_not_steered(family: str) -> None:
    model = tiny_model(family)
    with Steering(model, torch.ones(num_layers(model), HIDDEN)) as steering:
        steering.set_strengths(torch.ones(2))
        with pytest.raises(InputError, match="residual streams"):
            model(input_ids=torch.tensor([PROMPTS[0], PROMPTS[0]]))


@torch.no_grad()
@pytest.mark.parametrize("family", [*SLOTS, "minimax"])
def test_the_last_token_of_the_prompt_alone_is_steered(family: str) -> None:
    """The states of each pass are those of one pass over all tokens in which a hook adds the vector at that place."""
    model, prompt = tiny_model(family), PROMPTS[1]
    vectors = torch.randn(num_layers(model), HIDDEN, generator=torch.Generator().manual_seed(1))
    generator = Generator(model, GenerationSettings(max_new_tokens=NEW), pad_id=0, eos_ids=())
    passes: list[torch.Tensor] = []

    def keep(_module: Any, _inputs: Any, output: Any) -> None:
        passes.append((output[0] if isinstance(output, tuple) else output).clone())

    with Steering(model, vectors, positions="last") as steering:
        generator.listeners.append(steering)
        steering.set_strengths(torch.ones(1))
        hook = decoder_layers(model)[-1].register_forward_hook(keep)
        ids = generator.generate([prompt])[0].token_ids
        hook.remove()
    found = torch.cat([states[0, -1:] for states in passes])

    def add(layer: int, _module: Any, _inputs: Any, output: Any) -> None:
        (output[0] if isinstance(output, tuple) else output)[:, len(prompt) - 1] += vectors[layer]

    hooks = [module.register_forward_hook(partial(add, layer)) for layer, module in enumerate(decoder_layers(model))]
    hooks.append(decoder_layers(model)[-1].register_forward_hook(keep))
    model(input_ids=torch.tensor([[*prompt, *ids[:-1]]]), use_cache=False)
    for hook in hooks:
        hook.remove()
    torch.testing.assert_close(found, passes[-1][0, len(prompt) - 1 :], atol=1e-3, rtol=1e-3)
