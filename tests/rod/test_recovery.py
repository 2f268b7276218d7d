"""A run that is stopped goes on by itself and ends as if nothing had happened."""

import csv
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from tests.conftest import ROOT
from tests.rod.fits import fit_config, rod, stop_at

pytestmark = pytest.mark.slow


def weights(checkpoint: Path) -> dict[str, torch.Tensor]:
    return torch.load(checkpoint, weights_only=True)["state_dict"]


def logged(run: Path) -> dict[tuple[str, str], float]:
    """The losses of a run, whose parts have logs of their own, by name and step."""
    rows = [row for path in run.rglob("metrics.csv") for row in csv.DictReader(path.open())]
    names = ("train/loss", "val/loss")
    return {(name, row["step"]): float(row[name]) for row in rows for name in names if row.get(name)}


def assert_same_fit(one: Path, other: Path) -> None:
    expected, found = (weights(run / "checkpoints" / "end.ckpt") for run in (one, other))
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    assert logged(other) == logged(one)


Whole = Callable[[dict[str, Any]], Path]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Whole:
    """The run of a fit that nothing stopped, by the trainer's settings; each is made once."""
    made: dict[str, Path] = {}

    def run(trainer: dict[str, Any]) -> Path:
        if (key := str(trainer)) not in made:
            folder = tmp_path_factory.mktemp("whole")
            assert rod("fit", "--config", fit_config(folder, **trainer)) == 0
            made[key] = folder / "run"
        return made[key]

    return run


_EVERY_STEP = {
    "class_path": "lightning.pytorch.callbacks.ModelCheckpoint",
    "init_args": {"filename": "every", "every_n_train_steps": 1},
}
PLACES = {
    "within an epoch": (2, "training batch", {}, 2, []),
    "within the second epoch": (9, "training batch", {}, 9, []),
    "between two steps": (5, "training batch", {"accumulate_grad_batches": 3}, 1, []),
    "in the first validation": (1, "validation", {}, 6, []),
    "in the last validation": (2, "validation", {"accumulate_grad_batches": 3}, 4, []),
    "in a validation after another checkpoint of the step": (1, "validation", {}, 6, [_EVERY_STEP]),
    "in a validation within an epoch": (3, "validation", {"val_check_interval": 2}, 6, []),
    "at the end of an epoch without validation": (6, "training batch", {"limit_val_batches": 0}, 6, []),
}


@pytest.mark.parametrize(("count", "place", "trainer", "kept", "others"), PLACES.values(), ids=PLACES)
def test_sigterm_leaves_a_checkpoint_and_loses_nothing(
    count: int,
    place: str,
    trainer: dict[str, Any],
    kept: int,
    others: list[dict[str, Any]],
    whole: Whole,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Also between two optimizer steps and within a validation, where the state of the last step is kept."""
    config = fit_config(tmp_path, stop_at(tmp_path, count, place), *others, **trainer)
    assert rod("fit", "--config", config) == 143
    assert "rod: stopped by SIGTERM or Ctrl-C" in capsys.readouterr().err
    assert (tmp_path / f"run/checkpoints/recovery-step={kept}.ckpt").is_file()
    assert not (tmp_path / "run" / "done").exists()

    assert rod("fit", "--config", config, "--resume", "auto") == 0
    assert_same_fit(whole(trainer), tmp_path / "run")


def test_ctrl_c_ends_a_fit_as_sigterm_does(whole: Whole, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "lightning.pytorch")
    config = fit_config(tmp_path, stop_at(tmp_path, 3, name="SIGINT"))
    before = signal.getsignal(signal.SIGINT)
    assert rod("fit", "--config", config) == 143
    assert "Ctrl-C again ends at once" in caplog.text
    assert signal.getsignal(signal.SIGINT) == before
    assert (tmp_path / "run/checkpoints/recovery-step=3.ckpt").is_file()
    assert rod("fit", "--config", config, "--resume", "auto") == 0
    assert_same_fit(whole({}), tmp_path / "run")


def test_a_fit_whose_checkpoints_choose_nothing_keeps_its_end(tmp_path: Path) -> None:
    best = {"filename": "best", "monitor": "val/loss"}
    callback = {"class_path": "lightning.pytorch.callbacks.ModelCheckpoint", "init_args": best}
    config = fit_config(tmp_path, callbacks=[callback], limit_val_batches=0)
    with pytest.warns(UserWarning, match="no checkpoint was saved during the fit, because val/loss was not measured"):
        assert rod("fit", "--config", config) == 0
    (saved,) = (tmp_path / "run").rglob("*.ckpt")
    assert saved.name == "last.ckpt"
    assert torch.load(saved, weights_only=True)["global_step"] == 12


def test_a_fit_that_ends_before_a_checkpoint_is_due_keeps_its_end(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="because none was due before the fit ended"):
        assert rod("fit", "--config", fit_config(tmp_path), "--trainer.max_steps", 3) == 0
    assert [path.name for path in (tmp_path / "run").rglob("*.ckpt")] == ["last.ckpt"]


def test_an_interrupted_run_is_not_begun_again_unasked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = fit_config(tmp_path, stop_at(tmp_path, 2))
    assert rod("fit", "--config", config) == 143
    assert rod("fit", "--config", config) == 2
    assert "holds an interrupted run; pass --resume auto" in capsys.readouterr().err


def test_checkpoints_come_by_time_two_are_kept_and_a_finished_fit_needs_none(tmp_path: Path) -> None:
    config = fit_config(tmp_path, stop_at(tmp_path, 5, kind="Crash"))
    with pytest.raises(RuntimeError, match="crashed"):
        rod("fit", "--config", config, "--recovery_minutes", 1e-9)
    folder = tmp_path / "run" / "checkpoints"
    assert sorted(path.name for path in folder.iterdir()) == ["recovery-step=3.ckpt", "recovery-step=4.ckpt"]

    assert rod("fit", "--config", config, "--recovery_minutes", 1e-9, "--resume", "auto") == 0
    assert [path.name for path in folder.iterdir()] == ["end.ckpt"]


def test_a_damaged_checkpoint_is_passed_over_with_a_warning(whole: Whole, tmp_path: Path) -> None:
    config = fit_config(tmp_path, stop_at(tmp_path, 5, kind="Crash"))
    with pytest.raises(RuntimeError, match="crashed"):
        rod("fit", "--config", config, "--recovery_minutes", 1e-9)
    newest = tmp_path / "run/checkpoints/recovery-step=4.ckpt"
    newest.write_bytes(newest.read_bytes()[:-1000])
    with pytest.warns(UserWarning, match=r"recovery-step=4.ckpt' is cut, damaged or no checkpoint"):
        assert rod("fit", "--config", config, "--resume", "auto") == 0
    assert_same_fit(whole({}), tmp_path / "run")


def test_a_run_that_replaces_another_leaves_none_of_its_checkpoints(tmp_path: Path) -> None:
    assert rod("fit", "--config", fit_config(tmp_path)) == 0
    config = fit_config(tmp_path, stop_at(tmp_path, 2))
    assert rod("fit", "--config", config, "--overwrite", "true") == 143
    assert [path.name for path in (tmp_path / "run").rglob("*.ckpt")] == ["recovery-step=2.ckpt"]


def test_no_checkpoint_is_kept_where_none_is_wanted(tmp_path: Path) -> None:
    config = fit_config(tmp_path, callbacks=[stop_at(tmp_path, 3)], enable_checkpointing=False)
    assert rod("fit", "--config", config) == 143
    assert not list(tmp_path.rglob("*.ckpt"))


def test_what_another_configuration_is_and_a_time_that_is_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = fit_config(tmp_path)
    assert rod("fit", "--config", config, "--recovery_minutes", 0) == 2
    assert "recovery_minutes: must be more than 0, not 0" in capsys.readouterr().err
    assert rod("fit", "--config", config) == 0
    assert rod("fit", "--config", config, "--model.peft.r", 3, "--resume", "auto") == 2
    error = capsys.readouterr().err
    assert "another configuration (model.init_args.peft.init_args.r: 2 there, 3 now)" in error


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The environment of a job, and a file in which its requests to SLURM are written down."""
    asked = tmp_path / "asked"
    scontrol = tmp_path / "bin" / "scontrol"
    scontrol.parent.mkdir()
    scontrol.write_text(f'#!/bin/sh\necho "$@" >> {asked}\n')
    scontrol.chmod(0o755)
    monkeypatch.setenv("PATH", f"{scontrol.parent}{os.pathsep}{os.environ['PATH']}")
    job = {"JOB_ID": "77", "JOB_NAME": "train", "NTASKS": "1", "PROCID": "0", "LOCALID": "0", "NODEID": "0"}
    for name, value in job.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    return asked


def test_a_job_of_slurm_queues_itself_again_and_goes_on(
    whole: Whole, tmp_path: Path, slurm: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The job's script always says the same: also that an earlier run is to be replaced, and where to start."""
    config = fit_config(tmp_path, stop_at(tmp_path, 8, name="SIGUSR1"))
    words = ["fit", "--config", config, "--overwrite", "true"]
    assert rod(*words) == 143
    assert slurm.read_text() == "requeue 77\n"
    assert not list(tmp_path.rglob("hpc_ckpt*"))

    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    assert rod(*words) == 0
    assert "continuing with batch 2 of epoch 1" in caplog.text
    monkeypatch.delenv("SLURM_RESTART_COUNT")
    assert_same_fit(whole({}), tmp_path / "run")

    caplog.clear()
    assert rod("fit", "--config", config) == 0
    assert "holds the finished run; there is nothing left to do" in caplog.text


def test_a_checkpoint_of_lightning_s_own_handler_is_found(
    whole: Whole, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = fit_config(tmp_path, stop_at(tmp_path, 4))
    assert rod("fit", "--config", config) == 143
    recovery = tmp_path / "run/checkpoints/recovery-step=4.ckpt"
    recovery.rename(tmp_path / "run" / "hpc_ckpt_1.ckpt")
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "7")
    for name in ("RANK", "LOCAL_RANK", "GROUP_RANK"):
        monkeypatch.setenv(name, "0")
    for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE"):
        monkeypatch.setenv(name, "1")
    assert rod("fit", "--config", config) == 0
    assert_same_fit(whole({}), tmp_path / "run")


def test_sampling_in_a_job_of_slurm_goes_on(tmp_path: Path, slurm: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    questions = tmp_path / "questions.jsonl"
    questions.write_text("".join(f'{{"id": "{n}", "question": "{n} + 1?", "gold": "{n + 1}"}}\n' for n in range(6)))
    words = ["predict", "--config", "s3cot/3_sample", "--steer", "null", "--data.questions", questions]
    words += ["--data.alphas", "[0]", "--data.samples", 1, "--model.generation.max_new_tokens", 4]
    words += ["--data.rows_per_batch", 2, "--trainer.default_root_dir", tmp_path / "run"]
    words += ["--trainer.callbacks+=tests.rod.stopping.StopAt", "--trainer.callbacks.count", 2]
    words += ["--trainer.callbacks.stopped", tmp_path / "stopped", "--trainer.callbacks.place", "prediction"]
    words += ["--trainer.callbacks.name", "SIGUSR1"]
    assert rod(*words) == 143
    assert slurm.read_text() == "requeue 77\n"
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    assert rod(*words) == 0
    assert rod(*words, "--trainer.default_root_dir", tmp_path / "whole") == 0
    once, whole = (tmp_path / name / "traces" / "traces.jsonl" for name in ("run", "whole"))
    assert once.read_bytes() == whole.read_bytes()


@pytest.mark.parametrize(("count", "place", "kept"), [(2, "training batch", 2), (1, "start of training", 1)])
def test_both_processes_stop_at_the_same_step_if_one_gets_the_signal(
    count: int, place: str, kept: int, tmp_path: Path
) -> None:
    strategy = yaml.safe_load((ROOT / "configs/trainer/fsdp.yaml").read_text())["trainer"]["strategy"]
    config = fit_config(tmp_path, stop_at(tmp_path, count, place, rank=1), devices=2, strategy=strategy)
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "rod", "fit", "--config", str(config)]
    done = subprocess.run(command, env=environment, cwd=ROOT, timeout=120, capture_output=True, text=True)
    assert done.returncode == 143, done.stderr[-3000:]
    assert (tmp_path / f"run/checkpoints/recovery-step={kept}.ckpt").is_file()
