import re
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from torch.utils.data import DataLoader

from callbacks.progress_lines import FitProgress, ReadingProgress


class Line(LightningModule):
    def __init__(self, logs: bool = False) -> None:
        super().__init__()
        self.logs = logs
        self.weight = torch.nn.Parameter(torch.ones(1))

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        loss = (self.weight * batch).sum()
        if self.logs:
            self.log("train/loss", loss.detach())
        return loss

    def predict_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        return self.weight * batch

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.1)


@pytest.fixture
def lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Run a fit of three steps, and return what was printed."""
    told: list[str] = []
    monkeypatch.setattr("callbacks.progress_lines.rank_zero_info", told.append)

    def fit(seconds: float, terminal: bool, logs: bool = False, **more: Any) -> list[str]:
        monkeypatch.setattr("callbacks.progress_lines.LINE_SECONDS", seconds)
        monkeypatch.setattr("sys.stderr.isatty", lambda: terminal)
        options: dict[str, Any] = {"logger": False, "enable_progress_bar": False, "enable_checkpointing": False} | more
        trainer = Trainer(
            max_epochs=1, accelerator="cpu", default_root_dir=tmp_path, callbacks=[FitProgress()], **options
        )
        rows: Any = list(torch.ones(3, 1))
        trainer.fit(Line(logs), DataLoader(rows))
        return told

    return fit


def test_steps_loss_and_time_left(lines: Any) -> None:
    told = lines(0.0, terminal=False)
    assert len(told) == 4
    assert re.fullmatch(r"step 1 of 3 \(epoch 0\) in \d+ s, loss 1, about \d+ s left", told[0])
    assert told[-1].startswith("trained 3 steps in ")


@pytest.mark.parametrize(("logs", "said"), [(True, ", loss 1, "), (False, " s, about")])
def test_accumulated_gradients_do_not_divide_the_loss(lines: Any, logs: bool, said: str) -> None:
    assert said in lines(0.0, terminal=False, logs=logs, accumulate_grad_batches=3)[-2]


def test_no_line_before_half_a_minute(lines: Any) -> None:
    (last,) = lines(1e9, terminal=False)
    assert last.startswith("trained 3 steps")


def test_silent_in_a_terminal(lines: Any) -> None:
    assert lines(0.0, terminal=True) == []


def test_the_steps_of_a_fit_that_goes_on_are_those_since_it_went_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    monkeypatch.setattr("callbacks.progress_lines.rank_zero_info", told.append)
    monkeypatch.setattr("sys.stderr.isatty", lambda: False)
    rows: Any = list(torch.ones(3, 1))
    for epochs, start in ((1, None), (3, tmp_path / "end.ckpt")):
        trainer = Trainer(
            max_epochs=epochs,
            accelerator="cpu",
            default_root_dir=tmp_path,
            callbacks=[FitProgress()],
            logger=False,
            enable_progress_bar=False,
            enable_checkpointing=False,
        )
        trainer.fit(Line(), DataLoader(rows), ckpt_path=start)
        trainer.save_checkpoint(tmp_path / "end.ckpt")
    assert re.fullmatch(r"trained 3 steps in \d+ s", told[0])
    assert re.fullmatch(r"trained 6 steps in \d+ s, 9 with those before", told[1])


def test_a_fit_of_steps_has_no_last_epoch(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options: dict[str, Any] = {"logger": False, "enable_checkpointing": False, "enable_model_summary": False}
    trainer = Trainer(
        max_epochs=-1,
        max_steps=5,
        accelerator="cpu",
        default_root_dir=tmp_path,
        callbacks=[FitProgress()],
        **options,
    )
    rows: Any = list(torch.ones(3, 1))
    trainer.fit(Line(), DataLoader(rows))
    said = capsys.readouterr().out
    assert "Epoch 1 " in said
    assert "/-2" not in said


@pytest.mark.parametrize("terminal", [True, False])
def test_a_stage_that_reads_says_how_far_it_is(terminal: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    monkeypatch.setattr("callbacks.progress_lines.rank_zero_info", told.append)
    monkeypatch.setattr("callbacks.progress_lines.LINE_SECONDS", 0.0)
    monkeypatch.setattr("sys.stderr.isatty", lambda: terminal)
    options: dict[str, Any] = {"logger": False, "enable_progress_bar": False, "default_root_dir": tmp_path}
    rows: Any = list(torch.ones(3, 1))
    Trainer(accelerator="cpu", callbacks=[ReadingProgress()], **options).predict(Line(), DataLoader(rows))
    if terminal:
        assert not told
        return
    assert re.fullmatch(r"read 1 of 3 batches in \d+ s, about \d+ s left", told[0])
    assert told[-1].startswith("read 3 batches in ")
