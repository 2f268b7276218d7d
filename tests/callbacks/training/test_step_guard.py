"""A fit whose numbers go wrong stops or skips the step, in all processes alike, and one that diverges is told."""

import os
import subprocess
import sys
import warnings
from math import inf, nan
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from lightning import Trainer
from lightning.pytorch import Callback
from peft import LoraConfig

from callbacks.training.step_guard import StepGuard
from datamodules.errors import InputError
from rod.__main__ import main
from tests.callbacks.training.poisoned import Poisoned
from tests.conftest import ROOT
from tests.rod.test_recovery import fit_config
from tests.supervised import RandomExamples
from tests.tiny import save_tiny


class Weights(Callback):
    """Keeps the trained weights after each batch."""

    def __init__(self) -> None:
        self.after: list[dict[str, torch.Tensor]] = []

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, *_: Any) -> None:
        """Keep them."""
        trained = ((name, p.detach().clone()) for name, p in pl_module.named_parameters() if p.requires_grad)
        self.after.append(dict(trained))


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("base") / "base", layers=2)


def fit(base: Path, folder: Path, guard: StepGuard, *, at: list[int], **options: Any) -> tuple[Weights, Trainer]:
    trainer_options = options.pop("trainer", {})
    model = Poisoned(
        at=at,
        factor=options.pop("factor", nan),
        backbone=str(base),
        peft=LoraConfig(r=2, target_modules="all-linear"),
        **options,
    )
    weights = Weights()
    torch.manual_seed(0)
    trainer = Trainer(
        default_root_dir=folder,
        accelerator="cpu",
        max_epochs=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        reload_dataloaders_every_n_epochs=1,
        callbacks=[guard, weights],
        limit_val_batches=0,
        **trainer_options,
    )
    trainer.fit(model, RandomExamples(n=24, batch_size=2))
    return weights, trainer


def records(n: int, batch: int) -> list[str]:
    data = RandomExamples(n=n, batch_size=2)
    return data.train_dataloader().ids(batch)


@pytest.mark.parametrize(
    ("factor", "what", "said"),
    [(nan, "loss", "the loss is nan"), (inf, "loss", "the loss is inf"), (nan, "gradient", "a gradient is not")],
)
def test_a_fit_stops_before_the_weights_and_names_the_records(
    factor: float, what: str, said: str, base: Path, tmp_path: Path
) -> None:
    guard = StepGuard()
    with pytest.raises(InputError) as raised:
        fit(base, tmp_path, guard, at=[3], factor=factor, what=what)
    told = str(raised.value)
    assert told.startswith("step 3: ")
    assert said in told
    assert f"in the batch of {', '.join(records(24, 3))}; the weights are those of the step before" in told
    assert "\n" not in told


def test_with_accumulation_only_the_batch_at_fault_is_named(base: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"step 1: the loss is nan, in the batch of {', '.join(records(24, 4))};"):
        fit(base, tmp_path, StepGuard(), at=[4], trainer={"accumulate_grad_batches": 3})


def test_a_skipped_step_changes_no_weight_and_the_fit_goes_on(base: Path, tmp_path: Path) -> None:
    guard = StepGuard("skip")
    with pytest.warns(UserWarning, match=r"step 5: the loss is nan, in the batch of .*; skipped \(the 2. of this fit"):
        weights, trainer = fit(base, tmp_path, guard, at=[3, 5], trainer={"gradient_clip_val": 1.0})
    changed = [
        any(not torch.equal(before[name], after[name]) for name in before)
        for before, after in zip(weights.after, weights.after[1:], strict=False)
    ]
    assert [index + 1 for index, yes in enumerate(changed) if not yes] == [3, 5]
    assert all(value.isfinite().all() for value in weights.after[-1].values())
    assert (guard.n_skipped, float(trainer.callback_metrics["train/skipped_steps"])) == (2, 2)


def test_too_many_skips_in_a_row_stop_the_fit(base: Path, tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="skipped"), pytest.raises(InputError, match=r"step 6: .* \(2 steps before it"):
        fit(base, tmp_path, StepGuard("skip", most_skips=2), at=[1, 2, 4, 5, 6])
    with pytest.raises(InputError, match=r"step_guard\.most_skips: must be 1 or more"):
        StepGuard("skip", most_skips=0)


def test_a_loss_that_diverges_is_told_once_with_its_numbers(base: Path, tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="diverges") as told:
        fit(base, tmp_path, StepGuard(), at=list(range(2, 24)), factor=5.0)
    lines = [str(one.message) for one in told if "diverges" in str(one.message)]
    assert len(lines) == 1
    assert "on average over steps 2 to 11, 7.048 before; the rate is now 2.0" in lines[0]
    assert "model.optimizer.lr" in lines[0]
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*diverges")
        fit(base, tmp_path, StepGuard(), at=[])
        # Batches of another kind, such as short refusals among long answers, are no divergence.
        fit(base, tmp_path, StepGuard(), at=[n for n in range(2, 24) if n % 4], factor=5.0)


def test_every_fit_of_the_command_has_the_guard(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = fit_config(tmp_path)
    words = ["fit", "--config", str(config), "--model.optimizer", "torch.optim.SGD", "--model.optimizer.lr", "1e30"]
    assert main(words) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("rod: error: step 1: the loss is nan, in the batch of example ")
    # Another choice for the same run is no other configuration.
    assert main([*words, "--step_guard.non_finite", "skip", "--step_guard.most_skips", "3"]) == 2
    assert "(3 steps before it were skipped)" in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.slow
def test_all_processes_stop_if_the_loss_of_one_is_no_number(tmp_path: Path) -> None:
    strategy = yaml.safe_load((ROOT / "configs/trainer/fsdp.yaml").read_text())["trainer"]["strategy"]
    config = fit_config(tmp_path, devices=2, strategy=strategy)
    settings = yaml.safe_load(config.read_text())
    settings["model"]["class_path"] = "tests.callbacks.training.poisoned.Poisoned"
    settings["model"]["init_args"] |= {"at": [1], "factor": nan, "rank": 1}
    config.write_text(yaml.safe_dump(settings))
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "rod", "fit", "--config", str(config)]
    done = subprocess.run(command, env=environment, cwd=ROOT, timeout=120, capture_output=True, text=True)
    assert done.returncode == 2, done.stderr[-3000:]
    assert "Traceback" not in done.stderr
    assert "rod: error: step 1: the loss is nan, in the batch of example " in done.stderr
