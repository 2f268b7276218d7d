"""Steering does what it says for each row and each token, in every architecture, and nothing else."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, distributed, nn
from torch.distributed.device_mesh import DeviceMesh
from transformers import DynamicCache, PreTrainedModel

from datamodules.errors import InputError
from llm_modules.backbone.architecture import decoder_layers
from llm_modules.backbone.sharding import shard
from llm_modules.backbone.states import capture_last_token
from llm_modules.generation import GenerationSettings, Generator
from llm_modules.generation.prefill import cache_in
from llm_modules.s3cot.steering import Positions, Steering
from tests.architectures import ARCHITECTURES, CACHE, HIDDEN, LAYERS, VOCAB

PROMPTS = [[5, 9, 17, 33, 6, 71], [8, 44, 3], [90, 21, 62, 10]]
NEW_TOKENS = 6
BATCH_MAY_MATTER = {"qwen3_moe"}
"""Experts multiply the tokens routed to them together, so that bits depend on what else is in a batch."""

every_architecture = pytest.mark.parametrize("name", ARCHITECTURES)


def direction(scale: float = 4.0) -> Tensor:
    return scale * torch.randn(LAYERS, HIDDEN, generator=torch.Generator().manual_seed(1))


def pad(prompts: list[list[int]]) -> dict[str, Tensor]:
    """Left-padded ids and mask, (batch, seq)."""
    width = max(map(len, prompts))
    ids = torch.tensor([[0] * (width - len(p)) + p for p in prompts])
    mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts])
    return {"input_ids": ids, "attention_mask": mask}


@torch.no_grad()
def generate(model: Any, prompts: list[list[int]], **options: Any) -> tuple[Tensor, Tensor]:
    """Greedy tokens (batch, new) and the logits that they were taken from (batch, new, vocabulary)."""
    options = {"max_new_tokens": NEW_TOKENS, "do_sample": False, "eos_token_id": None, "pad_token_id": 0} | options
    out = model.generate(**pad(prompts), return_dict_in_generate=True, output_logits=True, **options)
    return out.sequences[:, -len(out.logits) :], torch.stack(out.logits, dim=1)


def steered(
    model: Any, prompts: list[list[int]], alpha: list[float], positions: Positions = "all", **options: Any
) -> Any:
    with Steering(model, direction(), positions) as steering:
        steering.set_strengths(torch.tensor(alpha))
        return generate(model, prompts, **options)


def has_hooks(model: nn.Module) -> bool:
    return any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_pitfall_1_layers_that_return_a_tensor_or_a_tuple() -> None:
    """Both kinds are among the architectures, and both get exactly strength times vector."""
    kinds = set()
    for name, build in ARCHITECTURES.items():
        model, layer = build(), 1
        outputs: list[Any] = []
        keep = decoder_layers(model)[layer].register_forward_hook(lambda _m, _a, out, seen=outputs: seen.append(out))
        with torch.no_grad(), Steering(model, direction()) as steering:
            model(**pad(PROMPTS[:1]))
            keep.remove()
            strengths = torch.zeros(1, LAYERS)
            strengths[0, layer] = -0.5
            steering.set_strengths(strengths)
            decoder_layers(model)[layer].register_forward_hook(lambda _m, _a, out, seen=outputs: seen.append(out))
            model(**pad(PROMPTS[:1]))
        plain, moved = (out[0] if isinstance(out, tuple) else out for out in outputs)
        kinds.add(type(outputs[0]))
        assert type(outputs[0]) is type(outputs[1]), name
        torch.testing.assert_close(moved, plain - 0.5 * direction()[layer], msg=name)
    assert kinds == {torch.Tensor, tuple}


@every_architecture
def test_pitfall_3_alpha_zero_is_bit_identical(name: str) -> None:
    model = ARCHITECTURES[name]()
    tokens, logits = generate(model, PROMPTS)
    same_tokens, same_logits = steered(model, PROMPTS, [0.0, 0.0, 0.0])
    assert torch.equal(same_tokens, tokens)
    assert torch.equal(same_logits, logits)
    if name in BATCH_MAY_MATTER:
        return
    mixed_tokens, mixed_logits = steered(model, PROMPTS, [-0.5, 0.0, 0.5])
    assert torch.equal(mixed_logits[1], logits[1])
    assert not torch.equal(mixed_logits[0], logits[0])
    assert torch.equal(mixed_tokens[1], tokens[1])


def test_pitfall_3_keeps_the_sign_of_zero() -> None:
    model, outputs = ARCHITECTURES["llama"](), []
    layer = decoder_layers(model)[0]
    layer.register_forward_hook(lambda _m, _a, out: torch.full_like(out, -0.0))
    with torch.no_grad(), Steering(model, direction()) as steering:
        steering.set_strengths(torch.tensor([0.0, 1.0]))
        layer.register_forward_hook(lambda _m, _a, out: outputs.append(out))
        model(**pad([[3, 4], [3, 4]]))
    assert torch.signbit(outputs[0][0]).all()
    torch.testing.assert_close(outputs[0][1], direction()[0].expand(2, -1))


@every_architecture
def test_pitfall_4_and_5_a_row_in_a_batch_is_as_alone(name: str) -> None:
    """Prompts of different length, left-padded, each with a strength of its own: as one after the other."""
    model = ARCHITECTURES[name]()
    alphas = [-0.4, 0.0, 0.3]
    tokens, logits = steered(model, PROMPTS, alphas)
    assert not torch.equal(tokens, generate(model, PROMPTS)[0])
    for row, (prompt, alpha) in enumerate(zip(PROMPTS, alphas, strict=True)):
        alone_tokens, alone_logits = steered(model, [prompt], [alpha])
        assert torch.equal(tokens[row], alone_tokens[0])
        torch.testing.assert_close(logits[row], alone_logits[0], atol=2e-4, rtol=2e-4)


@every_architecture
def test_pitfall_6_every_token_is_steered_under_the_cache(name: str) -> None:
    """With the cache each token passes once; without it all pass again. Both agree only if none was missed."""
    model = ARCHITECTURES[name]()
    cached = steered(model, PROMPTS, [-0.5, 0.2, 0.5])
    recomputed = steered(model, PROMPTS, [-0.5, 0.2, 0.5], use_cache=False)
    assert torch.equal(cached[0], recomputed[0])
    torch.testing.assert_close(cached[1], recomputed[1], atol=2e-4, rtol=2e-4)


def insists_on(model: PreTrainedModel, token: int) -> Tensor:
    """A direction so strong in the last layer that every steered position says ``token``."""
    vectors = torch.zeros(LAYERS, HIDDEN)
    vectors[-1] = 1e4 * model.get_output_embeddings().weight[token].detach()
    return vectors


@pytest.mark.parametrize("compiled", ["not", "before", "within", "in place", "decoder only", "layers"])
def test_pitfall_6_every_token_is_counted_under_compile(compiled: str) -> None:
    model, token = ARCHITECTURES["llama"](), 77
    plain, plain_logits = generate(model, PROMPTS)
    assert not (plain == token).any()
    compile_ = partial(torch.compile, backend="eager")
    wrapped: Any = model
    if compiled == "before":
        wrapped = compile_(model)
    elif compiled == "in place":
        model.compile(backend="eager")
    elif compiled == "decoder only":
        model.model = compile_(model.model)
    elif compiled == "layers":
        for index, layer in enumerate(model.model.layers):
            model.model.layers[index] = compile_(layer)

    def first_logits() -> Tensor:
        with torch.no_grad():
            return wrapped(**pad(PROMPTS)).logits[:, -1]

    torch.testing.assert_close(first_logits(), plain_logits[:, 0])
    with Steering(wrapped, insists_on(model, token)) as steering:
        if compiled == "within":
            wrapped = compile_(model)
        steering.set_strengths(torch.tensor([1.0, 0.0, 1.0]))
        tokens, _ = generate(wrapped, PROMPTS)
        assert (first_logits()[[0, 2]].argmax(-1) == token).all()
    assert int((tokens == token).sum()) == 2 * NEW_TOKENS
    assert torch.equal(tokens[1], plain[1])
    torch.testing.assert_close(first_logits(), plain_logits[:, 0], msg="steering stayed in compiled code")
    torch.compiler.reset()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_pitfall_7_the_product_is_rounded_once(dtype: torch.dtype) -> None:
    build: Any = ARCHITECTURES["llama"]
    model, outputs = build().to(dtype), []
    layer = decoder_layers(model)[1]
    layer.register_forward_hook(lambda _m, _a, out: torch.zeros_like(out))
    alpha, vectors = -0.3, direction()
    with torch.no_grad(), Steering(model, vectors) as steering:
        strengths = torch.zeros(1, LAYERS)
        strengths[0, 1] = alpha
        steering.set_strengths(strengths)
        layer.register_forward_hook(lambda _m, _a, out: outputs.append(out))
        model(**pad(PROMPTS[1:2]))
    once = (torch.tensor(alpha) * vectors[1]).to(dtype)
    twice = torch.tensor(alpha).to(dtype) * vectors[1].to(dtype)
    assert torch.equal(outputs[0], once.expand(1, 3, -1))
    assert not torch.equal(once, twice)


@every_architecture
def test_positions_follow_the_cache(name: str) -> None:
    """Against a loop by hand that steers all positions of the passes of one phase."""
    model = ARCHITECTURES[name]()
    alphas = torch.tensor([-0.4, 0.0, 0.3])
    steered_passes: dict[Positions, Callable[[int], bool]] = {
        "all": lambda _: True,
        "prompt": lambda step: step == 0,
        "generated": lambda step: step > 0,
    }
    for positions, applies in steered_passes.items():
        inputs, cache, tokens = pad(PROMPTS), DynamicCache(), []
        ids, mask = inputs["input_ids"], inputs["attention_mask"]
        with torch.no_grad(), Steering(model, direction()) as steering:
            for step in range(NEW_TOKENS):
                steering.set_strengths(alphas * applies(step))
                at = (mask.cumsum(1) - 1).clamp(min=0)[:, -ids.shape[1] :]
                out = model(input_ids=ids, attention_mask=mask, position_ids=at, use_cache=True, **{CACHE: cache})
                ids = out.logits[:, -1:].argmax(-1)
                mask = torch.cat([mask, torch.ones_like(ids)], dim=1)
                tokens.append(ids)
        assert torch.equal(steered(model, PROMPTS, alphas.tolist(), positions)[0], torch.cat(tokens, dim=1)), positions


def test_generated_only_leaves_the_first_token_alone() -> None:
    model = ARCHITECTURES["llama"]()
    plain = generate(model, PROMPTS)[1]
    logits = steered(model, PROMPTS, [0.5] * 3, "generated")[1]
    assert torch.equal(logits[:, 0], plain[:, 0])
    assert not torch.isclose(logits[:, 1], plain[:, 1]).all(dim=-1).any()


def test_last_steers_the_last_token_of_the_prompt_alone() -> None:
    model = ARCHITECTURES["llama"]()
    seen: list[Tensor] = []
    for alpha in (0.0, 0.5):
        with Steering(model, direction(), "last") as steering:
            strengths = torch.zeros(len(PROMPTS), LAYERS)
            strengths[:, 1] = alpha
            steering.set_strengths(strengths)
            hook = decoder_layers(model)[1].register_forward_hook(lambda _m, _i, out: seen.append(out))
            out = model(**pad(PROMPTS), use_cache=True)
            model(input_ids=torch.full((len(PROMPTS), 1), 5), **{CACHE: cache_in(out)})
            hook.remove()
    plain, _, steered_prompt, _ = seen
    assert torch.equal(steered_prompt[:, :-1], plain[:, :-1])
    added = (0.5 * direction()[1]).expand(len(PROMPTS), -1)
    torch.testing.assert_close(steered_prompt[:, -1] - plain[:, -1], added, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", ["llama", "gpt2", "opt"])
@pytest.mark.parametrize("positions", ["all", "prompt", "last", "generated"])
def test_rows_keep_their_strengths_when_slots_are_refilled(name: str, positions: Positions) -> None:
    model = ARCHITECTURES[name]()
    prompts = [prompt[: 1 + (3 * row) % 6] for row in range(4) for prompt in PROMPTS]
    alphas = [0.1 * (row % 5 - 2) for row in range(len(prompts))]
    limits = [1 + (5 * row) % 7 for row in range(len(prompts))]
    generator = Generator(model, GenerationSettings(slots=4), pad_id=0, eos_ids=())
    with Steering(model, direction(), positions) as steering:
        generator.listeners.append(steering)
        steering.set_strengths(torch.tensor(alphas))
        completions = generator.generate(prompts, max_new_tokens=limits)
        steering.set_strengths(torch.zeros(len(prompts)))
        unsteered = generator.generate(prompts, max_new_tokens=limits)
    generator.listeners.clear()
    assert unsteered == generator.generate(prompts, max_new_tokens=limits)
    for prompt, alpha, limit, completion in zip(prompts, alphas, limits, completions, strict=True):
        alone = steered(model, [prompt], [alpha], positions, max_new_tokens=limit)[0]
        assert completion.token_ids == tuple(alone[0].tolist())


@pytest.mark.parametrize("positions", ["all", "prompt", "last", "generated"])
@every_architecture
def test_a_prompt_that_several_strengths_share_is_steered_as_if_each_had_its_own(
    name: str, positions: Positions
) -> None:
    model = ARCHITECTURES[name]()
    settings = GenerationSettings(max_new_tokens=NEW_TOKENS, slots=6)
    generator = Generator(model, settings, pad_id=0, eos_ids=())
    prompts = [prompt for prompt in PROMPTS for _ in range(4)]
    found = []
    for shares in (generator.shares_prompts, False):
        generator.shares_prompts = shares
        with Steering(model, direction(), positions) as steering:
            steering.set_strengths(torch.tensor([0.0, -0.5, -0.5, 1.0] * 3))
            generator.listeners = [steering]
            found.append(generator.generate(prompts))
    shared, apart = found
    assert [row.token_ids for row in shared] == [row.token_ids for row in apart]
    assert len({row.token_ids for row in apart}) > len(PROMPTS), "strengths must show"
    for one, other in zip(shared, apart, strict=True):
        assert one.steered is not None
        assert other.steered is not None
        assert one.steered.places == other.steered.places
        assert one.steered.relative_size == pytest.approx(other.steered.relative_size, rel=1e-4)


def test_a_pass_of_no_row_is_not_steered() -> None:
    """A sharded model runs such passes to keep step with other ranks."""
    model = ARCHITECTURES["llama"]()
    with torch.no_grad(), Steering(model, direction()) as steering:
        steering.set_strengths(torch.tensor([1.0, 1.0]))
        steering.before_forward(torch.empty(0, dtype=torch.long))
        logits = model(**pad(PROMPTS[:1])).logits
    assert torch.equal(logits, model(**pad(PROMPTS[:1])).logits)


def test_layers_have_strengths_of_their_own() -> None:
    """Steering two layers at once is what steering each by hand gives."""
    model = ARCHITECTURES["llama"]()
    strengths = torch.tensor([[0.0, 0.3, 0.0], [0.5, 0.0, -0.2]])
    with torch.no_grad(), Steering(model, direction()) as steering:
        steering.set_strengths(strengths)
        logits = model(**pad(PROMPTS[:2])).logits
    for index, layer in enumerate(decoder_layers(model)):
        layer.register_forward_hook(
            lambda _m, _a, out, i=index: out + (strengths[:, i, None] * direction()[i])[:, None]
        )
    torch.testing.assert_close(logits, model(**pad(PROMPTS[:2])).logits)


def test_only_steered_layers_are_hooked_and_all_hooks_come_off() -> None:
    model = ARCHITECTURES["llama"]()
    layers = decoder_layers(model)
    strengths = torch.zeros(2, LAYERS)
    strengths[1, 2] = 0.1

    def fails_in_the_middle() -> None:
        with Steering(model, direction(), "generated") as steering:
            assert not any(layer._forward_hooks for layer in layers)
            steering.set_strengths(strengths)
            assert [bool(layer._forward_hooks) for layer in layers] == [False, False, True]
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fails_in_the_middle()
    assert not has_hooks(model)


def test_steers_under_an_adapter() -> None:
    model = ARCHITECTURES["llama"]()
    expected = steered(model, PROMPTS, [0.3, -0.3, 0.0])[1]
    adapted = get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM"))
    adapted.eval()
    torch.testing.assert_close(steered(adapted, PROMPTS, [0.3, -0.3, 0.0])[1], expected)


@pytest.mark.parametrize(
    ("strengths", "says"),
    [
        (torch.tensor([0.1, float("nan")]), "row 1 is not a finite"),
        (torch.tensor([float("inf"), 0.1]), "row 0 is not a finite"),
        (torch.zeros(2, LAYERS + 1), f"model of {LAYERS} layers"),
        (torch.zeros(2, LAYERS, 1), f"model of {LAYERS} layers"),
    ],
)
def test_refuses_strengths(strengths: Tensor, says: str) -> None:
    model = ARCHITECTURES["llama"]()
    with Steering(model, direction()) as steering, pytest.raises(InputError, match=says):
        steering.set_strengths(strengths)
    assert not has_hooks(model)


@pytest.mark.parametrize("options", [{"num_return_sequences": 2, "num_beams": 2}, {"num_beams": 3}])
def test_refuses_a_pass_with_other_rows(options: dict[str, Any]) -> None:
    model = ARCHITECTURES["llama"]()
    with pytest.raises(InputError, match=r"3 rows|6 rows|9 rows"):
        steered(model, PROMPTS, [0.1, 0.2], **options)
    assert not has_hooks(model)


@pytest.mark.parametrize("positions", ["prompt", "last", "generated"])
def test_refuses_phases_without_a_cache(positions: Positions) -> None:
    with pytest.raises(InputError, match=f"'{positions}' needs a KV cache"):
        steered(ARCHITECTURES["llama"](), PROMPTS, [0.1] * 3, positions, use_cache=False)


def test_refuses_vectors_of_another_shape() -> None:
    with pytest.raises(InputError, match="do not fit"):
        Steering(ARCHITECTURES["llama"](), torch.zeros(LAYERS, VOCAB))


@pytest.fixture
def mesh() -> Iterator[DeviceMesh]:
    """A mesh of this process alone."""
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    yield DeviceMesh("cpu", [0])
    distributed.destroy_process_group()


def test_steers_a_sharded_model(mesh: DeviceMesh) -> None:
    model = ARCHITECTURES["llama"]()
    alphas = [0.3, -0.3, 0.0]
    plain, expected = generate(model, PROMPTS), steered(model, PROMPTS, alphas)
    states = capture_last_token(model, **pad(PROMPTS))
    shard(model, mesh)
    torch.testing.assert_close(capture_last_token(model, **pad(PROMPTS)), states)
    torch.testing.assert_close(steered(model, PROMPTS, alphas), expected)
    torch.testing.assert_close(generate(model, PROMPTS), plain)
