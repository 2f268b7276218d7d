import csv
import json
import math
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger

from callbacks.evaluation.measures import Baseline
from callbacks.evaluation.metrics import aes
from callbacks.evaluation.reasoning import ReasoningMetrics, chance_warning
from datamodules.errors import InputError
from datamodules.records.reader import to_json
from datamodules.s3cot.curriculum_data import CurriculumData
from datamodules.s3cot.records import CurriculumItem, Variant
from llm_modules.generation import Completion, GenerationListener
from tests.callbacks.generation.sampling_run import data, module, prepare, trainer
from tests.processes import Processes

ASKED = {"alphas": None, "layer_sets": None, "systems": ["system1", "system2"]}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepare(tmp_path_factory.mktemp("source"), questions=5)


def teach(source: Path, folder: Path) -> Path:
    """Items from which a tiny model learns to answer 3 whatever it is asked, briefly or at length."""
    long, short = "It is, I would say, \\boxed{3}", "\\boxed{3}"
    items = [
        CurriculumItem(f"t{i}", f"{i} * 1?", "3", long, len(long) + 1, (Variant(short, len(short) + 1, -0.5, 0.3),))
        for i in range(8)
    ]
    path = folder / "items.jsonl"
    path.write_text("\n".join(to_json(item) for item in items))
    return path


def fit(source: Path, root: Path, *callbacks: Callback, ckpt: Path | None = None) -> Trainer:
    """Two stages of twelve steps."""
    model = module(source, temperature=0.0, max_new_tokens=40)
    model.optimizer = partial(torch.optim.AdamW, lr=5e-3)
    questions = CurriculumData(
        items=teach(source, root.parent),
        val_questions=source / "questions.jsonl",
        lower_bounds=[0.2, 0.0],
        items_per_stage=48,
        batch_size=8,
    )
    run = trainer(
        root,
        *callbacks,
        logger=CSVLogger(root, name="logs", version=""),
        max_epochs=2,
        reload_dataloaders_every_n_epochs=1,
        num_sanity_val_steps=0,
        log_every_n_steps=1,
        enable_checkpointing=any(isinstance(c, ModelCheckpoint) for c in callbacks),
    )
    run.fit(model, questions, ckpt_path=ckpt)
    return run


def logged(root: Path, key: str) -> list[float]:
    with (root / "logs" / "metrics.csv").open() as file:
        return [float(line[key]) for line in csv.DictReader(file) if line.get(key)]


class CountRows(Callback, GenerationListener):
    """Rows generated, by the global step at which they were."""

    def __init__(self) -> None:
        self.rows: Counter[int] = Counter()
        self.trainer: Trainer | None = None

    def on_validation_start(self, trainer: Trainer, pl_module: Any) -> None:
        self.trainer = trainer
        if self not in pl_module.generator.listeners:
            pl_module.generator.listeners.append(self)

    def row_finished(self, row: int, completion: Completion) -> None:
        assert self.trainer is not None
        self.rows[self.trainer.global_step] += 1


def test_a_fit_measures_the_base_first_and_chooses_by_aes(source: Path, tmp_path: Path) -> None:
    root, reasoning, count = tmp_path / "fit", ReasoningMetrics(), CountRows()
    best = ModelCheckpoint(root / "checkpoints", filename="best", monitor="val/aes", mode="max", save_last=True)
    run = fit(source, root, reasoning, best, count)
    assert count.rows == {0: 10, 12: 10, 24: 10}  # five questions, two systems: all of them before the first step
    base_accuracy, base_tokens = logged(root, "base/system2_accuracy"), logged(root, "base/system2_tokens")
    assert (len(base_accuracy), len(base_tokens)) == (1, 1)
    assert reasoning.baseline == Baseline(base_accuracy[0], base_tokens[0])
    accuracy, tokens, scores = (logged(root, f"val/{key}") for key in ("system1_accuracy", "system1_tokens", "aes"))
    assert len(scores) == 2
    assert scores[-1] == pytest.approx(aes(accuracy[-1], tokens[-1], base_accuracy[0], base_tokens[0]))
    assert accuracy[-1] == pytest.approx(0.2)  # the one question whose answer is 3
    assert best.best_model_score == max(scores)
    assert (root / "checkpoints" / "best.ckpt").is_file()
    assert run.num_sanity_val_steps == math.inf


@pytest.mark.parametrize(
    ("value", "low", "high", "warned"), [(0.18, 0.08, 0.28, True), (0.97, 0.94, 0.99, False), (0.5, 0.45, 0.55, False)]
)
def test_few_questions_choose_a_checkpoint_by_chance(value: float, low: float, high: float, warned: bool) -> None:
    """60 answers of which a fifth is right, and 200 and 400 that are right more often."""
    said = chance_warning({"value": value, "low": low, "high": high})
    assert ("to within 0.08 to 0.28" in said) == warned
    assert bool(said) == warned


def test_a_fit_says_so_when_it_has_measured_the_base(source: Path, tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match=r"val/aes: the validation questions tell .*data\.val_limit"):
        fit(source, tmp_path / "fit", ReasoningMetrics())


def test_a_resumed_fit_keeps_the_baseline(source: Path, tmp_path: Path) -> None:
    root, first, second, count = tmp_path / "fit", ReasoningMetrics(), ReasoningMetrics(), CountRows()
    saving = ModelCheckpoint(root / "checkpoints", filename="{epoch}", save_top_k=-1)
    fit(source, root, first, saving)
    fit(source, tmp_path / "again", second, count, ckpt=root / "checkpoints" / "epoch=0.ckpt")
    assert second.baseline == first.baseline
    assert second.baseline is not None
    assert count.rows == {24: 10}
    assert logged(tmp_path / "again", "val/aes") == logged(root, "val/aes")[1:]


def test_validate_logs_without_a_baseline(source: Path, tmp_path: Path) -> None:
    run = trainer(tmp_path, ReasoningMetrics(), logger=False)
    (metrics,) = run.validate(module(source, max_new_tokens=8), data(source, **ASKED), verbose=False)
    assert metrics["val/system2_accuracy"] == 0
    assert 1 <= metrics["val/system1_tokens"] <= 8
    assert "val/aes" not in metrics


def test_samples_reach_loggers_that_take_tables(source: Path, tmp_path: Path) -> None:
    class Tables(CSVLogger):
        def __init__(self, folder: Path) -> None:
            super().__init__(folder)
            self.tables: dict[str, list] = {}

        def log_table(self, key: str, columns: list[str], data: list[list]) -> None:
            self.tables[key] = [columns, *data]

    logger = Tables(tmp_path)
    run = trainer(tmp_path, ReasoningMetrics(), logger=logger)
    run.validate(module(source, max_new_tokens=8), data(source, **ASKED, samples=10), verbose=False)
    (columns, *rows) = logger.tables["val/samples"]
    assert len(rows) == 32
    assert columns[:3] == ["id", "question", "gold"]


def test_input_that_cannot_be(source: Path, tmp_path: Path) -> None:
    run, model = trainer(tmp_path, ReasoningMetrics()), module(source)
    with pytest.raises(InputError, match="measures unsteered answers"):
        run.validate(model, data(source, alphas=[0.0, -0.1]))
    no_gold = prepare(tmp_path / "no_gold")
    (no_gold / "questions.jsonl").write_text(json.dumps({"question": "1?"}))
    with pytest.raises(InputError, match="no question has a gold answer"):
        run.validate(model, data(no_gold, **ASKED, require_gold=False))
    assert model.model is None


def test_it_keeps_out_of_a_test(source: Path, tmp_path: Path) -> None:
    reasoning = ReasoningMetrics()
    trainer(tmp_path, reasoning).test(module(source, max_new_tokens=8), data(source, **ASKED), verbose=False)
    assert reasoning.measures == {}


def validate(source: Path, root: Path, devices: int) -> None:
    run = trainer(root, ReasoningMetrics(), devices=devices, strategy="ddp" if devices > 1 else "auto")
    (found,) = run.validate(module(source, max_new_tokens=8), data(source, **ASKED, samples=2), verbose=False)
    (root / f"{run.global_rank}.json").write_text(json.dumps(found, sort_keys=True))


@pytest.mark.slow
def test_two_processes_log_what_one_logs(source: Path, tmp_path: Path) -> None:
    for devices in (1, 2):
        (tmp_path / str(devices)).mkdir()
        log = tmp_path / f"{devices}.txt"
        Processes(validate, source, tmp_path / str(devices), devices, ranks=devices, log=log).succeed()
    alone = (tmp_path / "1" / "0.json").read_bytes()
    assert b"val/system1_tokens" in alone
    assert [(tmp_path / "2" / f"{rank}.json").read_bytes() for rank in (0, 1)] == [alone, alone]
