import csv
import json
import math
import os
import subprocess
import sys
from collections import Counter
from functools import partial
from io import StringIO
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from rich.console import Console

from callbacks.reasoning import ReasoningMetrics
from callbacks.reasoning_report import print_table
from datamodules.curriculum import CurriculumData
from datamodules.errors import InputError
from datamodules.records import CurriculumItem, Prediction, Variant, read_records, to_json
from llm_modules.generation import Completion, GenerationListener
from llm_modules.metrics import aes
from tests.callbacks.sampling_run import data, module, prepare, trainer

ROOT = Path(__file__).resolve().parents[2]
TESTED = {"alphas": None, "layer_sets": None, "systems": ["system1", "system2"]}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepare(tmp_path_factory.mktemp("source"), questions=5)


def run_test(source: Path, root: Path, callback: ReasoningMetrics, **settings: Any) -> dict:
    run = trainer(root, callback, logger=CSVLogger(root, name="logs"))
    run.test(module(source, max_new_tokens=8), data(source, **(TESTED | settings)), verbose=False)
    return json.loads((root / "metrics.json").read_text())


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
        self.rows[self.trainer.global_step] += 1


def test_a_fit_measures_the_base_first_and_chooses_by_aes(source: Path, tmp_path: Path) -> None:
    root, reasoning, count = tmp_path / "fit", ReasoningMetrics(), CountRows()
    best = ModelCheckpoint(root / "checkpoints", filename="best", monitor="val/aes", mode="max", save_last=True)
    run = fit(source, root, reasoning, best, count)
    assert count.rows == {0: 10, 12: 10, 24: 10}  # five questions, two systems: all of them before the first step
    base_accuracy, base_tokens = logged(root, "base/system2_accuracy"), logged(root, "base/system2_tokens")
    assert (len(base_accuracy), len(base_tokens)) == (1, 1)
    assert (reasoning.baseline.accuracy, reasoning.baseline.tokens) == (base_accuracy[0], base_tokens[0])
    accuracy, tokens, scores = (logged(root, f"val/{key}") for key in ("system1_accuracy", "system1_tokens", "aes"))
    assert len(scores) == 2
    assert scores[-1] == pytest.approx(aes(accuracy[-1], tokens[-1], base_accuracy[0], base_tokens[0]))
    assert accuracy[-1] == pytest.approx(0.2)  # the one question whose answer is 3
    assert best.best_model_score == max(scores)
    assert (root / "checkpoints" / "best.ckpt").is_file()
    assert run.num_sanity_val_steps == math.inf


def test_a_resumed_fit_keeps_the_baseline(source: Path, tmp_path: Path) -> None:
    root, first, second, count = tmp_path / "fit", ReasoningMetrics(), ReasoningMetrics(), CountRows()
    saving = ModelCheckpoint(root / "checkpoints", filename="{epoch}", save_top_k=-1)
    fit(source, root, first, saving)
    fit(source, tmp_path / "again", second, count, ckpt=root / "checkpoints" / "epoch=0.ckpt")
    assert second.baseline == first.baseline
    assert second.baseline is not None
    assert count.rows == {24: 10}
    assert logged(tmp_path / "again", "val/aes") == logged(root, "val/aes")[1:]


def test_a_tested_checkpoint_brings_no_baseline_of_other_questions(source: Path, tmp_path: Path) -> None:
    saving = ModelCheckpoint(tmp_path / "checkpoints", filename="{epoch}", save_top_k=-1)
    fit(source, tmp_path / "fit", ReasoningMetrics(), saving)
    run = trainer(tmp_path / "test", ReasoningMetrics())
    model, last = module(source, max_new_tokens=40, temperature=0.0), tmp_path / "checkpoints" / "epoch=1.ckpt"
    run.test(model, data(source, **TESTED), ckpt_path=last, verbose=False)
    metrics = json.loads((tmp_path / "test" / "metrics.json").read_text())
    assert metrics["systems"]["system1"]["accuracy"] == pytest.approx(0.2)  # the trained weights were tested
    assert metrics["baseline"] is None
    assert metrics["settings"]["checkpoint"] == str(last)


def test_files_of_a_test(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    metrics = run_test(source, tmp_path, ReasoningMetrics(), samples=3)
    predictions = read_records(tmp_path / "predictions.jsonl", Prediction, strict=True)
    assert len(predictions) == 5 * 2 * 3
    first = next(p for p in predictions if p.id == "q2|system1|-|a0|s1")
    assert (first.question, first.gold, first.system, first.sample) == ("2 + 1?", "3", "system1", 1)
    assert first.correct is False
    assert first.finish_reason == ("stop" if first.n_tokens < 8 else first.finish_reason)
    for system in ("system1", "system2"):
        own, found = [p for p in predictions if p.system == system], metrics["systems"][system]
        assert (found["n"], found["questions"], found["accuracy"]) == (15, 5, 0)
        assert found["tokens"] == pytest.approx(mean(p.n_tokens for p in own))
        assert found["truncation"] == pytest.approx(mean(p.finish_reason == "length" for p in own))
        by_sample = [mean(p.n_tokens for p in own if p.sample == sample) for sample in range(3)]
        assert [entry["tokens"] for entry in found["by_sample"]] == pytest.approx(by_sample)
        assert found["tokens_std"] == pytest.approx(stdev(by_sample))
        assert found["aes"] is None
    assert metrics["model"] == str((source / "model").resolve())
    assert metrics["settings"]["generation"]["max_new_tokens"] == 8
    assert metrics["versions"].keys() == {"torch", "lightning", "transformers", "peft"}
    assert sorted(path.name for path in tmp_path.glob("*.json*")) == ["metrics.json", "predictions.jsonl"]
    table = capsys.readouterr().out
    assert "system1" in table
    assert "5 questions" in table


def test_aes_of_a_test_against_anothers_metrics(source: Path, tmp_path: Path, recwarn: Any) -> None:
    base = run_test(source, tmp_path / "base", ReasoningMetrics())
    again = run_test(source, tmp_path / "tuned", ReasoningMetrics(baseline=tmp_path / "base" / "metrics.json"), seed=1)
    found, against = again["systems"]["system1"], base["systems"]["system2"]
    expected = aes(found["accuracy"], found["tokens"], against["accuracy"], against["tokens"])
    assert found["aes"] == pytest.approx(expected)
    assert not [warning for warning in recwarn if "different sets of questions" in str(warning.message)]
    run_test(source, tmp_path / "part", ReasoningMetrics(baseline=tmp_path / "base" / "metrics.json"), limit=3)
    assert [warning for warning in recwarn if "different sets of questions" in str(warning.message)]


def test_validate_logs_without_a_baseline(source: Path, tmp_path: Path) -> None:
    run = trainer(tmp_path, ReasoningMetrics(), logger=False)
    (metrics,) = run.validate(module(source, max_new_tokens=8), data(source, **TESTED), verbose=False)
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
    run.test(module(source, max_new_tokens=8), data(source, **TESTED, samples=10), verbose=False)
    (columns, *rows) = logger.tables["test/samples"]
    assert len(rows) == 32
    assert columns[:3] == ["id", "question", "gold"]


def test_input_that_cannot_be(source: Path, tmp_path: Path) -> None:
    run, model = trainer(tmp_path, ReasoningMetrics()), module(source)
    with pytest.raises(InputError, match="measures unsteered answers"):
        run.test(model, data(source, alphas=[0.0, -0.1]))
    no_gold = prepare(tmp_path / "no_gold")
    (no_gold / "questions.jsonl").write_text(json.dumps({"question": "1?"}))
    with pytest.raises(InputError, match="no question has a gold answer"):
        run.test(model, data(no_gold, **TESTED, require_gold=False))
    (tmp_path / "broken.json").write_text("{}")
    for name, reason in (("absent.json", "cannot be read"), ("broken.json", r"is no metrics\.json")):
        run = trainer(tmp_path, ReasoningMetrics(baseline=tmp_path / name))
        with pytest.raises(InputError, match=reason):
            run.test(model, data(source, **TESTED))
    assert model.model is None


def test_table_shows_what_is_not_known_as_a_dash() -> None:
    numbers = {"n": 4, "accuracy": None, "accuracy_low": None, "accuracy_high": None, "accuracy_std": None}
    numbers |= {"tokens": 12.5, "tokens_std": 0.5, "truncation": 0.25, "repetition": 0.0, "aes": None}
    text = StringIO()
    print_table({"system1": numbers}, "a model", Console(file=text, width=120))
    assert "---" in text.getvalue()
    assert "12.5 ± 0.5" in text.getvalue()


@pytest.mark.slow
def test_two_processes_write_what_one_writes(source: Path, tmp_path: Path) -> None:
    script = tmp_path / "two.py"
    script.write_text(
        "from pathlib import Path\nfrom tests.callbacks.test_reasoning import *\n"
        f"source, root = Path({str(source)!r}), Path({str(tmp_path / 'two')!r})\n"
        "run = trainer(root, ReasoningMetrics(), devices=2, strategy='ddp')\n"
        "run.test(module(source, max_new_tokens=8), data(source, **TESTED, samples=2))\n"
    )
    command, environment = [sys.executable, str(script)], os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    alone = run_test(source, tmp_path / "one", ReasoningMetrics(), samples=2)
    both = json.loads((tmp_path / "two" / "metrics.json").read_text())
    assert both["systems"] == alone["systems"]
    one, two = ((tmp_path / name / "predictions.jsonl").read_bytes() for name in ("one", "two"))
    assert one == two
