"""A predict run over contrast pairs leaves a direction, its table and its figure."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.loggers import CSVLogger, Logger, WandbLogger
from PIL import Image

from callbacks.s3cot.direction import DirectionWriter
from callbacks.s3cot.figures import plot_direction
from datamodules.errors import InputError
from datamodules.prompts.contrast_data import ContrastData
from llm_modules.backbone.states import capture_last_token
from llm_modules.s3cot import Direction, DirectionAccumulator
from llm_modules.s3cot.module import S3CoT
from tests.tiny import save_tiny

LAYERS, HIDDEN, PAIRS = 4, 32, 6


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("model"), layers=LAYERS, hidden=HIDDEN)


@pytest.fixture
def questions(tmp_path: Path) -> Path:
    path = tmp_path / "questions.jsonl"
    lines = [{"id": f"q{i}", "question": f"What is {i} + {i * i}" + "?" * (1 + i % 3)} for i in range(PAIRS)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def predict(
    writer: DirectionWriter, model: LightningModule, data: ContrastData, folder: Path, logger: Logger | bool = False
) -> Trainer:
    trainer = Trainer(
        default_root_dir=folder,
        accelerator="cpu",
        devices=1,
        logger=logger,
        callbacks=[writer],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )
    trainer.predict(model, datamodule=data, return_predictions=False)
    return trainer


def test_writes_the_difference_in_means_with_table_and_figure(
    checkpoint: Path, questions: Path, tmp_path: Path
) -> None:
    module = S3CoT(backbone=str(checkpoint))
    data = ContrastData(questions=questions, batch_size=4, positive=" Think long.", negative=" Be brief.")
    predict(DirectionWriter(), module, data, tmp_path / "run")

    direction = Direction.load(tmp_path / "run" / "direction.safetensors")
    direction.check(model_id=str(checkpoint), layers=LAYERS, hidden=HIDDEN)
    assert (direction.n, direction.model_type, direction.layer_path) == (PAIRS, "llama", "layers")
    assert (direction.positive, direction.negative) == (" Think long.", " Be brief.")

    differences = []
    for pair in data.pairs:
        batch = data.collate([pair])
        long = capture_last_token(module.language_model, batch.positive_ids, batch.positive_mask)
        differences.append(long - capture_last_token(module.language_model, batch.negative_ids, batch.negative_mask))
    torch.testing.assert_close(direction.vectors, torch.cat(differences).mean(dim=0), atol=1e-5, rtol=1e-5)

    with (tmp_path / "run" / "direction.csv").open() as file:
        table = list(csv.DictReader(file))
    assert [int(row["layer"]) for row in table if row["anchor"] == "1"] == [direction.anchor]
    assert [float(row["separation"]) for row in table] == pytest.approx(direction.separation, rel=1e-5)
    assert [float(row["cosine"]) for row in table] == pytest.approx(direction.cosine, abs=1e-6)
    with Image.open(tmp_path / "run" / "direction.png") as image:
        assert min(image.size) > 500


def test_the_same_run_gives_the_same_bytes(checkpoint: Path, questions: Path, tmp_path: Path) -> None:
    for run in ("a", "b"):
        predict(DirectionWriter(), S3CoT(backbone=str(checkpoint)), ContrastData(questions=questions), tmp_path / run)
    for name in ("direction.safetensors", "direction.csv", "direction.png"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), name


def test_a_file_of_pairs_gives_another_direction(checkpoint: Path, tmp_path: Path) -> None:
    pairs = tmp_path / "polite.jsonl"
    pairs.write_text(
        "".join(
            json.dumps({"id": str(i), "positive": f"Please do {i}.", "negative": f"Do {i}."}) + "\n" for i in range(3)
        )
    )
    output = tmp_path / "out" / "polite.safetensors"
    writer = DirectionWriter(output=output, notes="politeness")
    predict(writer, S3CoT(backbone=str(checkpoint)), ContrastData(contrast_file=pairs), tmp_path / "run")
    direction = Direction.load(output)
    assert (direction.n, direction.positive) == (3, "'positive' in polite.jsonl")
    assert direction.notes.endswith("politeness")
    assert sorted(path.name for path in output.parent.iterdir()) == [
        f"polite.{end}" for end in ("csv", "png", "safetensors", "svg")
    ]


def test_the_figure_goes_to_loggers_that_take_images(checkpoint: Path, questions: Path, tmp_path: Path) -> None:
    wandb = pytest.importorskip("wandb")
    run = wandb.init(mode="offline", dir=tmp_path, settings=wandb.Settings(silent=True, x_disable_stats=True))
    try:
        module, data = S3CoT(backbone=str(checkpoint)), ContrastData(questions=questions)
        predict(DirectionWriter(), module, data, tmp_path / "run", logger=WandbLogger(experiment=run))
        assert len(list(Path(run.dir).rglob("direction*.png"))) == 1
    finally:
        run.finish()


def test_loggers_without_images_are_left_alone(checkpoint: Path, questions: Path, tmp_path: Path) -> None:
    module, data = S3CoT(backbone=str(checkpoint)), ContrastData(questions=questions, limit=2)
    predict(DirectionWriter(), module, data, tmp_path / "run", logger=CSVLogger(tmp_path))
    assert (tmp_path / "run" / "direction.png").exists()


class Fails(S3CoT):
    """Breaks in its second batch."""

    def predict_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> Any:
        if batch_idx == 1:
            raise ZeroDivisionError
        return super().predict_step(batch, batch_idx, dataloader_idx)


def test_an_exception_leaves_nothing_behind(checkpoint: Path, questions: Path, tmp_path: Path) -> None:
    spool = tmp_path / "spool"
    spool.mkdir()
    writer = DirectionWriter(spool_dir=spool)
    with pytest.raises(ZeroDivisionError):
        predict(
            writer, Fails(backbone=str(checkpoint)), ContrastData(questions=questions, batch_size=2), tmp_path / "run"
        )
    assert list(spool.iterdir()) == []
    assert writer._accumulator is None
    assert not (tmp_path / "run" / "direction.safetensors").exists()


def test_refuses_bad_input_before_weights_are_loaded(checkpoint: Path, questions: Path, tmp_path: Path) -> None:
    existing = tmp_path / "mine.safetensors"
    existing.write_text("precious")
    module = S3CoT(backbone=str(checkpoint))
    with pytest.raises(InputError, match="exists; remove it"):
        predict(DirectionWriter(output=existing), module, ContrastData(questions=questions), tmp_path)
    with pytest.raises(InputError, match="there is no folder"):
        predict(DirectionWriter(spool_dir=tmp_path / "no"), module, ContrastData(questions=questions), tmp_path)
    assert module.model is None
    assert existing.read_text() == "precious"
    with pytest.raises(InputError, match="above 0 and at most 1"):
        DirectionWriter(consistency=1.5)


def test_figure_of_a_single_layer_and_of_constant_curves(tmp_path: Path) -> None:
    with DirectionAccumulator(1, 2) as accumulator:
        accumulator.update(torch.tensor([[[1.0, 0.0]]]), torch.tensor([[[0.0, 0.0]]]))
        plot_direction(accumulator.finish(), tmp_path / "one.png")
    assert (tmp_path / "one.png").stat().st_size > 10_000
