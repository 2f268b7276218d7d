"""A fit that is stopped leaves a checkpoint, from which it ends as if nothing had happened."""

import csv
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from rod.__main__ import main
from tests.conftest import ROOT
from tests.tiny import save_tiny


def fit_config(folder: Path, *callbacks: dict[str, Any], **trainer: Any) -> Path:
    """A fit of two epochs of six batches, with a validation of two batches after each."""
    settings = {
        "seed_everything": 0,
        "model": {
            "class_path": "CausalLM",
            "init_args": {
                "backbone": str(
                    folder / "base" if (folder / "base").is_dir() else save_tiny(folder / "base", layers=2)
                ),
                "peft": {"class_path": "peft.LoraConfig", "init_args": {"r": 2, "target_modules": "all-linear"}},
                "optimizer": {"class_path": "torch.optim.AdamW", "init_args": {"lr": 0.01}},
            },
        },
        "data": {"class_path": "tests.supervised.RandomExamples"},
        "trainer": {
            "default_root_dir": str(folder / "run"),
            "accelerator": "cpu",
            "max_epochs": 2,
            "enable_progress_bar": False,
            "log_every_n_steps": 1,
            "callbacks": [
                *callbacks,
                {
                    "class_path": "lightning.pytorch.callbacks.ModelCheckpoint",
                    "init_args": {"filename": "end", "every_n_epochs": 2},
                },
            ],
        }
        | trainer,
    }
    path = folder / f"fit{len(callbacks)}.yaml"
    path.write_text(yaml.safe_dump(settings))
    return path


def stop_at(count: int, place: str = "batch", kind: str = "StopAt", **init: Any) -> dict[str, Any]:
    return {"class_path": f"tests.rod.stopping.{kind}", "init_args": {"count": count, "place": place, **init}}


def rod(*words: object) -> int:
    return main([str(word) for word in words])


def weights(checkpoint: Path) -> dict[str, torch.Tensor]:
    return torch.load(checkpoint, weights_only=True)["state_dict"]


def logged(*runs: Path) -> dict[tuple[str, str], float]:
    """The losses of one or several parts of a run, by name and step."""
    rows = [row for run in runs for path in run.rglob("metrics.csv") for row in csv.DictReader(path.open())]
    names = ("train/loss", "val/loss")
    return {(name, row["step"]): float(row[name]) for row in rows for name in names if row.get(name)}


PLACES = {
    "within an epoch": (2, "batch", {}, 2),
    "within the second epoch": (9, "batch", {}, 9),
    "between two steps": (5, "batch", {"accumulate_grad_batches": 3}, 1),
    "in the first validation": (1, "validation", {}, 6),
    "in the last validation": (2, "validation", {"accumulate_grad_batches": 3}, 4),
    "in a validation within an epoch": (3, "validation", {"val_check_interval": 2}, 6),
    "at the end of an epoch without validation": (6, "batch", {"limit_val_batches": 0}, 6),
}


@pytest.mark.parametrize(("count", "place", "trainer", "kept"), PLACES.values(), ids=PLACES)
def test_sigterm_leaves_a_checkpoint_and_loses_nothing(
    count: int, place: str, trainer: dict[str, Any], kept: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also between two optimizer steps and within a validation, where the state of the last step is kept."""
    whole = fit_config(tmp_path, **trainer)
    words = ["--trainer.default_root_dir", tmp_path / "whole"]
    assert rod("fit", "--config", whole, *words) == 0

    stopped = fit_config(tmp_path, stop_at(count, place), **trainer)
    assert rod("fit", "--config", stopped) == 143
    assert "rod: stopped by SIGTERM" in capsys.readouterr().err
    checkpoint = tmp_path / f"run/checkpoints/recovery-step={kept}.ckpt"
    assert checkpoint.is_file()
    assert not (tmp_path / "run" / "done").exists()

    words = ["--trainer.default_root_dir", tmp_path / "rest"]
    assert rod("fit", "--config", whole, "--ckpt_path", checkpoint, *words) == 0
    expected, found = (weights(tmp_path / name / "checkpoints" / "end.ckpt") for name in ("whole", "rest"))
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    assert logged(tmp_path / "run", tmp_path / "rest") == logged(tmp_path / "whole")


def test_checkpoints_come_by_time_two_are_kept_and_a_finished_fit_needs_none(tmp_path: Path) -> None:
    crashing = fit_config(tmp_path, stop_at(5, kind="Crash"))
    with pytest.raises(RuntimeError, match="crashed"):
        rod("fit", "--config", crashing, "--recovery_minutes", 1e-9)
    folder = tmp_path / "run" / "checkpoints"
    assert sorted(path.name for path in folder.iterdir()) == ["recovery-step=3.ckpt", "recovery-step=4.ckpt"]

    words = ["--config", fit_config(tmp_path), "--overwrite", "true", "--recovery_minutes", 1e-9]
    assert rod("fit", *words) == 0
    assert [path.name for path in folder.iterdir()] == ["end.ckpt"]


def test_no_checkpoint_is_kept_where_none_is_wanted(tmp_path: Path) -> None:
    config = fit_config(tmp_path, stop_at(3), callbacks=[stop_at(3)], enable_checkpointing=False)
    assert rod("fit", "--config", config) == 143
    assert not list(tmp_path.rglob("*.ckpt"))


def test_a_time_that_is_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert rod("fit", "--config", fit_config(tmp_path), "--recovery_minutes", 0) == 2
    assert "recovery_minutes: must be more than 0, not 0" in capsys.readouterr().err


def test_both_processes_stop_at_the_same_step_if_one_gets_the_signal(tmp_path: Path) -> None:
    strategy = yaml.safe_load((ROOT / "configs/trainer/fsdp.yaml").read_text())["trainer"]["strategy"]
    config = fit_config(tmp_path, stop_at(2, rank=1), devices=2, strategy=strategy)
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "rod", "fit", "--config", str(config)]
    done = subprocess.run(command, env=environment, cwd=ROOT, timeout=120, capture_output=True, text=True)
    assert done.returncode == 143, done.stderr[-3000:]
    assert (tmp_path / "run/checkpoints/recovery-step=2.ckpt").is_file()
