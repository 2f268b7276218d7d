"""The engines against each other: the same tokens, ends and reports, whatever the batch looks like."""

import warnings
from collections.abc import Sequence
from typing import Any, get_args

import pytest
import torch
from torch import Tensor

from datamodules.errors import InputError
from llm_modules.backbone.architecture import decoder_layers, hidden_size, num_layers, residual_of, with_residual
from llm_modules.backbone.loading import load_model, load_tokenizer
from llm_modules.generation import (
    Completion,
    GenerationEngine,
    GenerationListener,
    GenerationSettings,
    Generator,
    TransformersGenerator,
)
from llm_modules.generation.prefill import takes_no_cache
from llm_modules.s3cot import Steering
from llm_modules.s3cot.steering import Positions
from tests.architectures import ARCHITECTURES
from tests.families import families, tiny_model
from tests.llm_modules.generation.test_generator import EOS, limits_of, ragged

WITHOUT_CACHE = ["openai-gpt", "rwkv", "xlstm"]


def tokens(completions: Sequence[Completion]) -> list[tuple[int, ...]]:
    return [completion.token_ids for completion in completions]


def miniature_prompts() -> list[list[int]]:
    tokenizer: Any = load_tokenizer("miniature")
    words = ["a jar", "a vault without its key", "x", "a door that is stuck since the rain of last week", "bread", "it"]
    turns = [[{"role": "user", "content": f"How do I open {word}?"}] for word in words]
    return [tokenizer.apply_chat_template(turn, add_generation_prompt=True, return_dict=False) for turn in turns]


def both(model: Any, eos: Sequence[int] = EOS, **settings: Any) -> tuple[GenerationEngine, GenerationEngine]:
    made = GenerationSettings(**settings)
    return Generator(model, made, pad_id=0, eos_ids=eos), TransformersGenerator(model, made, pad_id=0, eos_ids=eos)


@pytest.mark.parametrize("name", ["llama", "gemma3", "gpt2", "opt", "falcon_alibi"])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_greedy_and_sampled_tokens_are_those_of_slots(name: str, temperature: float) -> None:
    slots, library = both(ARCHITECTURES[name](), slots=4, temperature=temperature, top_p=0.9)
    prompts, limits, seeds = ragged(11), limits_of(11), range(50, 61)
    expected = slots.generate(prompts, seeds, limits)
    found = library.generate(prompts, seeds, limits)
    assert found == expected
    assert all(done.finish_reason == ("stop" if done.token_ids[-1] in EOS else "length") for done in found)


@pytest.mark.parametrize("family", ["falcon_mamba", "jamba", "lfm2", "minimax", "deepseek_v4", "gemma4_text"])
def test_families_with_states_and_caches_of_their_own_are_equal_too(family: str) -> None:
    slots, library = both(tiny_model(family), (7,), slots=3, max_new_tokens=8)
    prompts = [torch.arange(5, 5 + n).mul(7).remainder(90).tolist() for n in (4, 9, 5, 9, 12, 6)]
    assert library.generate(prompts) == slots.generate(prompts)


@pytest.mark.parametrize("positions", get_args(Positions))
def test_steered_miniature_is_equal_in_both_engines(positions: Positions) -> None:
    model, prompts = load_model("miniature").eval(), miniature_prompts()
    torch.manual_seed(0)
    vectors = 10 * torch.randn(num_layers(model), hidden_size(model))
    strengths = torch.zeros(len(prompts), num_layers(model))
    strengths[:, 2:4] = torch.tensor([0.0, 2.0, -3.0, 0.0, 1.0, -6.0])[:, None]
    ends = [load_tokenizer("miniature").eos_token_id]
    runs, plain = [], None
    for engine in both(model, ends, slots=4, max_new_tokens=24):
        plain = engine.generate(prompts)
        with Steering(model, vectors, positions) as steering:
            engine.listeners.append(steering)
            steering.set_strengths(strengths)
            runs.append(engine.generate(prompts))
    assert tokens(runs[0]) == tokens(runs[1])
    assert plain is not None
    changed = [one != other for one, other in zip(tokens(runs[0]), tokens(plain), strict=True)]
    assert not changed[0]
    assert not changed[3]
    assert any(changed)
    for row, (slots, library) in enumerate(zip(*runs, strict=True)):
        assert slots.steered is not None
        assert library.steered is not None
        inputs = {
            "all": len(prompts[row]) + slots.n_tokens - 1,
            "prompt": len(prompts[row]),
            "last": 1,
            "generated": slots.n_tokens - 1,
        }[positions]
        places = 2 * inputs if strengths[row].any() else 0
        assert (slots.steered.places, library.steered.places) == (places, places)
        assert library.steered.relative_size == pytest.approx(slots.steered.relative_size, rel=1e-4)
        assert (slots.steered.relative_size > 0) == (places > 0)


def test_relative_size_is_the_norm_of_the_addend_over_that_of_the_residual() -> None:
    model = ARCHITECTURES["llama"]()
    prompt = [5, 9, 30]
    with torch.no_grad():
        states = model(torch.tensor([prompt]), output_hidden_states=True).hidden_states[2][0]
    vectors = torch.zeros(num_layers(model), hidden_size(model))
    vectors[1] = 0.25
    with Steering(model, vectors) as steering:
        slots = both(model, (), max_new_tokens=1)[0]
        slots.listeners.append(steering)
        steering.set_strengths(torch.tensor([[0.0, -2.0, 0.0]]))
        (done,) = slots.generate([prompt])
    assert done.steered is not None
    assert done.steered.places == len(prompt)
    expected = (0.5 * hidden_size(model) ** 0.5 / states.norm(dim=-1)).mean()
    assert done.steered.relative_size == pytest.approx(float(expected), rel=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("family", WITHOUT_CACHE)
@pytest.mark.parametrize("positions", get_args(Positions))
def test_models_without_a_cache_are_steered_at_their_positions(family: str, positions: Positions) -> None:
    model = tiny_model(family)
    prompts = [row.tolist() for row in torch.arange(5, 5 + 12).mul(7).remainder(90).split((4, 4, 3, 1))]
    vectors = torch.randn(num_layers(model), hidden_size(model), generator=torch.Generator().manual_seed(0))
    strengths = torch.tensor([0.0, 2.0, -2.0, 1.0])
    engine = TransformersGenerator(model, GenerationSettings(max_new_tokens=6, slots=3), pad_id=0, eos_ids=())
    with Steering(model, vectors, positions) as steering:
        engine.listeners.append(steering)
        steering.set_strengths(strengths)
        found = engine.generate(prompts)
    for prompt, strength, done in zip(prompts, strengths, found, strict=True):
        ids = list(prompt)
        for _ in range(6):
            ids.append(int(by_hand(model, ids, len(prompt), float(strength) * vectors, positions).argmax()))
        assert done.token_ids == tuple(ids[len(prompt) :])
        assert done.steered is not None
        counts = {"all": len(ids) - 1, "prompt": len(prompt), "last": 1, "generated": 5}
        assert done.steered.places == (num_layers(model) * counts[positions] if strength else 0)


def by_hand(model: Any, ids: list[int], width: int, added: Tensor, positions: Positions) -> Tensor:
    """Logits after all tokens, from one pass without cache in which the places are steered by hand."""
    first, last = {"all": (0, None), "prompt": (0, width), "last": (width - 1, width), "generated": (width, None)}[
        positions
    ]

    def add(layer: int) -> Any:
        def hook(_module: Any, _args: Any, output: Any) -> Any:
            hidden = residual_of(output).clone()
            hidden[:, first:last] += added[layer]
            return with_residual(output, hidden)

        return hook

    hooks = [layer.register_forward_hook(add(number)) for number, layer in enumerate(decoder_layers(model))]
    try:
        return model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1]
    finally:
        for hook in hooks:
            hook.remove()


def test_positions_of_a_model_without_cache_are_refused_where_nobody_knows_the_prompt() -> None:
    model = tiny_model("openai-gpt")
    vectors = torch.ones(num_layers(model), hidden_size(model))
    with Steering(model, vectors, "last") as steering, torch.no_grad():
        steering.set_strengths(torch.tensor([1.0]))
        with pytest.raises(InputError, match="takes no cache to tell it by"):
            model(input_ids=torch.tensor([[5, 6]]))


def test_families_without_a_cache_are_known_by_their_classes() -> None:
    assert [family for family in families() if takes_no_cache(family)] == WITHOUT_CACHE
    with pytest.raises(InputError, match=r"cannot generate in slots.*engine: transformers"):
        Generator(tiny_model("openai-gpt"), GenerationSettings(), pad_id=0, eos_ids=())


def test_generation_settings_of_a_checkpoint_do_not_count_and_stay() -> None:
    model = ARCHITECTURES["llama"]()
    slots, library = both(model, (), slots=4, max_new_tokens=12)
    prompts = ragged(5)
    expected = slots.generate(prompts)
    model.generation_config.repetition_penalty = 5.0
    model.generation_config.max_length = 7
    assert library.generate(prompts) == expected
    assert model.generation_config.repetition_penalty == 5.0


def test_rows_are_reported_as_they_end_and_tokens_counted() -> None:
    class Recorder(GenerationListener):
        def __init__(self) -> None:
            self.finished: list[int] = []
            self.tokens = 0

        def tokens_generated(self, number: int) -> None:
            self.tokens += number

        def row_finished(self, row: int, completion: Completion) -> None:
            self.finished.append(row)

    prompts, limits = [[9, 8, 7]] * 4, [9, 3, 5, 1]
    for engine in both(ARCHITECTURES["llama"](), (), slots=4):
        recorder = Recorder()
        engine.listeners.append(recorder)
        engine.generate(prompts, max_new_tokens=limits)
        assert recorder.finished == [3, 1, 2, 0]
        assert recorder.tokens == sum(limits)
        assert engine.listeners[0] is recorder


def test_no_hook_is_left_after_an_error() -> None:
    class Breaks(GenerationListener):
        def row_finished(self, row: int, completion: Completion) -> None:
            raise ValueError("broken")

    model = ARCHITECTURES["llama"]()
    library = both(model)[1]
    library.listeners.append(Breaks())
    before = model.generation_config
    with pytest.raises(ValueError, match="broken"):
        library.generate(ragged(3))
    assert not model._forward_pre_hooks
    assert model.generation_config is before


def test_rows_that_begin_again_are_counted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    model, prompts = ARCHITECTURES["llama"](), ragged(4, low=3)
    vectors = torch.ones(num_layers(model), hidden_size(model))
    found = []
    for breaks in (False, True):
        engine: Any = both(model, (), slots=4, max_new_tokens=6)[0]
        forward = engine.forward
        passes: list[int] = []

        def pass_or_break(*args: Any, breaks: bool = breaks, forward: Any = forward, passes: list[int] = passes) -> Any:
            logits = forward(*args)
            passes.append(1)
            if breaks and len(passes) == 3:
                raise torch.OutOfMemoryError
            return logits

        monkeypatch.setattr(engine, "forward", pass_or_break)
        with Steering(model, vectors) as steering, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            engine.listeners.append(steering)
            steering.set_strengths(torch.tensor([0.0, 0.5, -0.5, 0.1]))
            found.append([done.steered.places for done in engine.generate(prompts) if done.steered])
    assert found[0] == found[1] == [0, *(3 * (len(prompt) + 5) for prompt in prompts[1:])]
