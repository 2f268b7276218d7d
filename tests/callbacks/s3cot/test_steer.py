"""Steering around a run: every row by its own strength and layers, nothing left behind."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from torch import nn

from callbacks.s3cot.steer import Steer
from datamodules.batch import PromptBatch, PromptRow
from datamodules.errors import InputError
from datamodules.prompts.prompt_data import PromptData
from datamodules.records.kinds import Question
from llm_modules.backbone.architecture import decoder_layers
from llm_modules.generation import Completion, GenerationListener, GenerationSettings
from llm_modules.s3cot import Direction, Positions, Steering, export_vectors, random_like, select_layers
from llm_modules.s3cot.module import S3CoT
from tests.tiny import save_tiny

LAYERS, HIDDEN, NEW_TOKENS = 4, 32, 6


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("model"), layers=LAYERS, hidden=HIDDEN)


@pytest.fixture
def direction(checkpoint: Path, tmp_path: Path) -> Path:
    vectors = 4 * torch.randn(LAYERS, HIDDEN, generator=torch.Generator().manual_seed(0))
    path = tmp_path / "direction.safetensors"
    Direction(vectors=vectors, model=str(checkpoint), anchor=1).save(path)
    return path


def data(tmp_path: Path, **options: Any) -> PromptData:
    questions = tmp_path / "questions.jsonl"
    questions.write_text("".join(json.dumps({"id": f"q{i}", "question": f"{i} + {i * i}?"}) + "\n" for i in range(3)))
    return PromptData(questions=questions, systems=["plain"], **options)


class Keep(Callback):
    """Keeps what a run generates, by row."""

    def __init__(self) -> None:
        self.tokens: dict[str, tuple[int, ...]] = {}
        self.rows: dict[str, PromptRow] = {}

    def keep(self, outputs: Sequence[Completion], batch: PromptBatch) -> None:
        for row, completion in zip(batch.rows, outputs, strict=True):
            self.tokens[row.id], self.rows[row.id] = completion.token_ids, row

    def on_predict_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        self.keep(outputs, batch)

    on_validation_batch_end = on_test_batch_end = on_predict_batch_end


def module_of(checkpoint: Path, slots: int = 4) -> S3CoT:
    return S3CoT(backbone=str(checkpoint), generation=GenerationSettings(max_new_tokens=NEW_TOKENS, slots=slots))


def run(steer: Callback | None, module: S3CoT, prompts: PromptData, verb: str = "predict") -> Keep:
    keep = Keep()
    trainer = Trainer(
        accelerator="cpu",
        devices=1,
        logger=False,
        callbacks=[callback for callback in (steer, keep) if callback is not None],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )
    options = {"return_predictions": False} if verb == "predict" else {}
    getattr(trainer, verb)(module, datamodule=prompts, **options)
    return keep


def by_hand(module: S3CoT, row: PromptRow, direction: Direction, layers: tuple[int, ...], positions: Positions) -> Any:
    """The row alone, by a plain ``generate`` under steering."""
    strengths = torch.zeros(1, LAYERS)
    strengths[0, list(layers)] = row.alpha
    with torch.no_grad(), Steering(module.language_model, direction.vectors, positions) as steering:
        steering.set_strengths(strengths)
        model: Any = module.language_model
        out = model.generate(
            torch.tensor([row.token_ids]),
            max_new_tokens=NEW_TOKENS,
            do_sample=False,
            eos_token_id=list(module.eos_ids),
        )
    return tuple(out[0, len(row.token_ids) :].tolist())


def has_hooks(module: nn.Module) -> bool:
    return any(part._forward_hooks or part._forward_pre_hooks for part in module.modules())


@pytest.mark.parametrize("positions", ["all", "prompt", "generated"])
def test_each_row_has_its_own_strength_and_layers(
    positions: Positions, checkpoint: Path, direction: Path, tmp_path: Path
) -> None:
    module = module_of(checkpoint)
    prompts = data(tmp_path, alphas=[0.0, -0.5, 0.4], layer_sets=["anchor:2", "0,3"])
    kept = run(Steer(direction, positions), module, prompts)
    loaded = Direction.load(direction)
    assert len(kept.tokens) == 3 * (1 + 2 * 2)
    for row_id, tokens in kept.tokens.items():
        row = kept.rows[row_id]
        layers = select_layers(row.layer_set, loaded) if row.layer_set else ()
        assert tokens == by_hand(module, row, loaded, layers, positions), row_id
    assert len(set(kept.tokens.values())) > len(kept.tokens) / 2
    assert not has_hooks(module)
    assert module.generator.listeners == []


@pytest.mark.parametrize("verb", ["predict", "validate", "test"])
def test_every_verb_steers_and_alpha_zero_does_nothing(
    verb: str, checkpoint: Path, direction: Path, tmp_path: Path
) -> None:
    module = module_of(checkpoint)
    plain = run(None, module, data(tmp_path, alphas=[0.0]), verb).tokens
    kept = run(Steer(direction), module, data(tmp_path, alphas=[0.0, -0.5], layer_sets=["all"]), verb)
    for row_id, tokens in kept.tokens.items():
        unsteered = plain[f"{kept.rows[row_id].question.id}|plain|-|a0|s0"]
        assert (tokens == unsteered) == (kept.rows[row_id].alpha == 0)


@pytest.mark.parametrize(("verb", "key"), [("predict", "data.alphas"), ("test", "data.alpha")])
def test_a_direction_without_strengths_is_told(
    verb: str, key: str, checkpoint: Path, direction: Path, tmp_path: Path
) -> None:
    with pytest.warns(UserWarning, match=f"no row is steered, because {key} is 0"):
        run(Steer(direction), module_of(checkpoint), data(tmp_path, alphas=[0.0]), verb)


def test_rows_without_a_layer_set_take_the_callback_s(checkpoint: Path, direction: Path, tmp_path: Path) -> None:
    module = module_of(checkpoint)
    steer = Steer(direction, layers="deepest:1")
    named = run(steer, module, data(tmp_path, alphas=[-0.5], layer_sets=["3"])).tokens
    assert list(run(steer, module, data(tmp_path, alphas=[-0.5])).tokens.values()) == list(named.values())
    assert steer.layers_of("") == (3,)
    assert steer.layers_of("anchor:2") == (1, 2)


def test_random_control_is_the_random_direction_of_the_seed(checkpoint: Path, direction: Path, tmp_path: Path) -> None:
    module = module_of(checkpoint)
    prompts = data(tmp_path, alphas=[-0.5], layer_sets=["all"], seed=3)
    control = run(Steer(direction, random=True), module, prompts)
    expected = random_like(Direction.load(direction), seed=3)
    for row_id, tokens in control.tokens.items():
        assert tokens == by_hand(module, control.rows[row_id], expected, tuple(range(LAYERS)), "all")
    assert control.tokens != run(Steer(direction), module, prompts).tokens


def test_imported_vectors_steer_as_well(checkpoint: Path, direction: Path, tmp_path: Path) -> None:
    """The file has layers 1 and 2 of 4; strength 1 of what was exported is the strength exported with."""
    module, imported = module_of(checkpoint), tmp_path / "imported.safetensors"
    export_vectors(Direction.load(direction), [1, 2], -0.5, "layers", imported)
    own = run(Steer(direction), module, data(tmp_path, alphas=[-0.5], layer_sets=["1,2"])).tokens
    theirs = run(Steer(imported), module, data(tmp_path, alphas=[1.0], layer_sets=["all"])).tokens
    assert list(own.values()) == list(theirs.values())


class Breaks(Callback, GenerationListener):
    """Fails in the middle of generation."""

    def on_predict_start(self, _trainer: Any, module: Any) -> None:
        module.generator.listeners.append(self)

    def row_finished(self, row: int, completion: Completion) -> None:
        raise ZeroDivisionError


def test_an_exception_leaves_the_model_as_it_was(checkpoint: Path, direction: Path, tmp_path: Path) -> None:
    module, breaks = module_of(checkpoint), Breaks()
    steer = Steer(direction)
    trainer = Trainer(accelerator="cpu", logger=False, callbacks=[steer, breaks], enable_progress_bar=False)
    with pytest.raises(ZeroDivisionError):
        trainer.predict(module, datamodule=data(tmp_path, alphas=[-0.5], layer_sets=["all"]), return_predictions=False)
    assert not has_hooks(module)
    assert module.generator.listeners == [breaks]


def test_refuses_before_weights_are_loaded(checkpoint: Path, direction: Path, tmp_path: Path) -> None:
    module = module_of(checkpoint)
    with pytest.raises(InputError, match="no direction can be read"):
        run(Steer(tmp_path / "absent.safetensors"), module, data(tmp_path))
    for layer_set, says in (
        ("9", "model has layers 0-3"),
        ("anchor:4", "1 to 3 layers"),
        ("some", "not a set of layers"),
    ):
        with pytest.raises(InputError, match=says):
            run(Steer(direction), module, data(tmp_path, alphas=[-0.1], layer_sets=[layer_set]))
    other = tmp_path / "other.safetensors"
    replace(Direction.load(direction), model="someone/else").save(other)
    with pytest.raises(InputError, match=r"'someone/else'.*allow_other_model"):
        run(Steer(other), module, data(tmp_path))
    assert module.model is None
    run(Steer(other, allow_other_model=True), module, data(tmp_path))


def test_refuses_a_direction_of_another_shape(checkpoint: Path, direction: Path, tmp_path: Path) -> None:
    wide = tmp_path / "wide.safetensors"
    Direction(vectors=torch.zeros(LAYERS, 2 * HIDDEN), model=str(checkpoint)).save(wide)
    module = module_of(checkpoint)
    with pytest.raises(InputError, match=r"4 layers x 64 do not fit .* 4 layers x 32"):
        run(Steer(wide), module, data(tmp_path))
    assert not has_hooks(module)


def test_refuses_a_strength_that_is_no_number(checkpoint: Path, direction: Path) -> None:
    module = module_of(checkpoint)
    module.configure_model()
    steer = Steer(direction)
    steer._attach(module)
    question, trainer = Question("q", "x"), Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    row = PromptRow("q|plain|-|anan|s0", question, "plain", "x", (1, 2), alpha=float("nan"), layer_set="all")
    with pytest.raises(InputError, match=r"row 'q\|plain\|-\|anan\|s0' is nan"):
        steer.on_predict_batch_start(trainer, module, PromptBatch((row,)), 0)
    steer.on_exception(trainer, module, ZeroDivisionError())
    assert not has_hooks(module)
    assert not any(layer._forward_hooks for layer in decoder_layers(module.language_model))
