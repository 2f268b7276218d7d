"""vLLM itself against the other engines; ``make test-engine`` runs these, in about two minutes for each model."""

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from peft import LoraConfig, get_peft_model

from llm_modules.backbone.loading import load_model
from llm_modules.generation import GenerationSettings, Generator
from llm_modules.generation.remote_model import remote_model
from llm_modules.generation.vllm_engine import VllmGenerator
from llm_modules.generation.vllm_process import TESTED, VllmProcess
from llm_modules.mogu.adapters import random_adapter
from llm_modules.mogu.hand_off import HandOff
from llm_modules.mogu.model import MoGUModel
from llm_modules.mogu.target import output_projections
from llm_modules.s3cot.steering import Positions
from tests.llm_modules.generation.engine_model import NEW, Model, check_samples

SETTINGS = GenerationSettings()
SMOLLM2 = Path(os.environ.get("ROD_SMOLLM2", "models/smollm2-135m"))
pytestmark = [
    pytest.mark.engine,
    pytest.mark.skipif(not SETTINGS.vllm.interpreter.exists(), reason="there is no vLLM: 'make engine' installs it"),
]


@pytest.fixture(
    scope="module",
    params=[
        "miniature",
        pytest.param(
            str(SMOLLM2),
            id="smollm2",
            marks=pytest.mark.skipif(not SMOLLM2.is_dir(), reason=f"no {SMOLLM2}: 'rod real-model' fetches it"),
        ),
    ],
)
def model(request: pytest.FixtureRequest) -> Iterator[Model]:
    made = Model(request.param)
    yield made
    made.vllm.close()


@pytest.fixture
def reused(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Prompt tokens that each row took over from another."""
    found: list[int] = []
    receive = VllmProcess.receive

    def watch(process: VllmProcess) -> dict[str, Any]:
        message = receive(process)
        found.extend([message["reused"]] if "reused" in message else [])
        return message

    monkeypatch.setattr(VllmProcess, "receive", watch)
    return found


@pytest.mark.parametrize("positions", get_args(Positions))
def test_steered_greedy_tokens_places_and_sizes_are_those_of_the_other_engines(
    model: Model, positions: Positions, reused: list[int]
) -> None:
    found = model.steered(model.vllm, positions)
    assert any(reused), "no prefix was reused"
    for engine in model.others:
        expected = model.steered(engine, positions)
        assert found == expected
        for row, (one, other) in enumerate(zip(found, expected, strict=True)):
            assert one.steered is not None
            assert other.steered is not None
            assert one.steered.places == other.steered.places
            assert bool(one.steered.places) == bool(model.strengths()[row].any())
            rel = 0.3 if max(reused) else 1e-3  # of a reused prefix the size is not measured again
            assert one.steered.relative_size == pytest.approx(other.steered.relative_size, rel=rel)


def test_greedy_tokens_without_steering_are_those_of_the_other_engines(model: Model) -> None:
    limits = [1 + 5 * (row % 6) for row in range(len(model.prompts))]
    found = model.vllm.generate(model.prompts, max_new_tokens=limits)
    for engine in model.others:
        assert found == engine.generate(model.prompts, max_new_tokens=limits)
    assert all(done.steered is None for done in found)


def test_the_steering_of_earlier_rows_leaves_nothing(model: Model) -> None:
    plain = model.vllm.generate(model.prompts)
    steered = model.steered(model.vllm, "all")
    assert model.vllm.generate(model.prompts) == plain
    changed = [one != other for one, other in zip(steered, plain, strict=True)]
    assert any(changed)
    assert not any(change for change, row in zip(changed, model.strengths(), strict=True) if not row.any())


def test_sampled_tokens_are_those_of_the_other_engines(model: Model) -> None:
    check_samples(model, model.vllm, top_p=0.9, top_k=0)
    check_samples(model, model.vllm, top_p=1.0, top_k=20)
    if not model.is_large:  # in a large vocabulary rounding chooses among the many unlikely tokens
        check_samples(model, model.vllm, top_p=1.0, top_k=0)


@pytest.mark.parametrize("temperature", [0.0, 0.7])
def test_a_mogu_hands_its_rows_over(model: Model, temperature: float) -> None:
    """The first five tokens from the mixture here, the others from the base model in vLLM: as slots do it."""
    base = load_model(model.name, dtype="float32")
    projections = output_projections(base)
    glad, unwilling = (
        random_adapter(projections, r=4, alpha=1 if model.is_large else 16, seed=seed) for seed in (1, 2)
    )
    mogu = MoGUModel(base, glad, unwilling)
    settings = GenerationSettings(slots=6, max_new_tokens=NEW, temperature=temperature, top_k=20)
    first = mogu.generator(settings, mode="first_m", m=5, eos_ids=model.ends)
    seeds, limits = range(50, 50 + len(model.prompts)), [NEW - 2 * row for row in range(len(model.prompts))]
    expected = first.generate(model.prompts, seeds, limits)
    handed, before = HandOff(first, model.vllm), model.vllm.settings
    handed.settings = replace(before, temperature=temperature, top_k=20)
    found = handed.generate(model.prompts, seeds, limits)
    model.vllm.settings, model.vllm.drawn, model.vllm.listeners = before, 0, []
    assert found == expected
    assert found != mogu.generator(settings, mode="off", eos_ids=model.ends).generate(model.prompts, seeds, limits)


@pytest.mark.parametrize("patterns", [{}, {"rank_pattern": {"q_proj": 12}, "alpha_pattern": {"down_proj": 64}}])
def test_an_adapter_is_served_as_it_is(tmp_path: Path, patterns: dict[str, Any]) -> None:
    base = load_model("miniature")
    adapted: Any = get_peft_model(base, LoraConfig(r=4, target_modules=["q_proj", "v_proj", "down_proj"], **patterns))
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0, 0.05, generator=torch.Generator().manual_seed(0))
    adapted.save_pretrained(tmp_path)
    served = remote_model(
        "miniature",
        base.config,
        revision=None,
        dtype="float32",
        trust_remote_code=False,
        adapter=str(tmp_path),
    )
    settings = GenerationSettings(slots=4, max_new_tokens=NEW)
    prompts = [[1, 972, 201, 30 + row] for row in range(6)]
    expected = Generator(adapted, settings, pad_id=0, eos_ids=()).generate(prompts)
    with adapted.disable_adapter():
        plain = Generator(adapted, settings, pad_id=0, eos_ids=()).generate(prompts)
    settings.vllm.options = {"enforce_eager": True}
    engine = VllmGenerator(served, load_model("miniature"), settings, pad_id=0, eos_ids=())
    found = engine.generate(prompts)
    engine.close()
    assert found == expected
    assert found != plain


def test_a_version_that_was_tested(model: Model) -> None:
    assert model.vllm.version in TESTED
    assert Path(model.vllm.settings.vllm.interpreter).exists()
