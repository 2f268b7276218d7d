"""Lines about a fit, or a stage that reads, whose output goes into a file."""

import math
import sys
import time
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import RichProgressBar
from lightning.pytorch.utilities import rank_zero_info

from callbacks.columns import print_columns, terminal

LINE_SECONDS = 30.0
"""Time between two lines."""


class StepsBar(RichProgressBar):
    """Lightning's bar for a fit whose end is a number of steps: without a last epoch, which would be -2."""

    def _get_train_description(self, current_epoch: int) -> str:
        return super()._get_train_description(current_epoch).replace("/-2", "")


class FitProgress(Callback):
    """Prints a line each half minute of a fit, and one at its end: optimiser steps, loss, time left.

    It is silent in a terminal, where Lightning's bar says the same.
    """

    def __init__(self) -> None:
        self._total = math.inf
        self._first = 0
        self._started = self._shown = 0.0

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Put a bar without a last epoch in the place of Lightning's own, if there is none."""
        bar = trainer.progress_bar_callback
        if trainer.max_epochs != -1 or type(bar) is not RichProgressBar:
            return
        untyped: Any = trainer
        callbacks: list[Callback] = untyped.callbacks
        place = callbacks.index(bar)
        if place > callbacks.index(self):  # not set up yet, so it is Lightning's default
            callbacks[place] = StepsBar()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        self._total = float(trainer.estimated_stepping_batches)
        self._first = trainer.global_step
        self._started = self._shown = time.monotonic()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Print a line if half a minute is over."""
        now = time.monotonic()
        if sys.stderr.isatty() or now - self._shown < LINE_SECONDS:
            return
        self._shown = now
        done, elapsed = trainer.global_step - self._first, now - self._started
        known = math.isfinite(self._total)
        text = f"step {trainer.global_step:,}" + (f" of {self._total:,.0f}" if known else "")
        text += f" (epoch {trainer.current_epoch}) in {elapsed:.0f} s"
        loss = trainer.callback_metrics.get("train/loss")
        if loss is None and trainer.accumulate_grad_batches == 1:  # Lightning divides what comes here
            loss = outputs.get("loss") if isinstance(outputs, dict) else outputs
        if loss is not None:
            text += f", loss {float(loss):.4g}"
        if known and done:
            text += f", about {elapsed / done * (self._total - trainer.global_step):.0f} s left"
        rank_zero_info(text)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the last line."""
        if not sys.stderr.isatty():
            text = f"trained {trainer.global_step - self._first:,} steps in {time.monotonic() - self._started:.0f} s"
            rank_zero_info(text + (f", {trainer.global_step:,} with those before" if self._first else ""))

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the last loss and the last values of the validation."""
        values = {name: float(value) for name, value in trainer.callback_metrics.items()}
        rows = [[name, f"{value:.4g}"] for name, value in values.items() if name == "train/loss" or name[:4] == "val/"]
        if rows and trainer.is_global_zero:
            print_columns(terminal(), ["metric", "last"], rows, names=1, title=str(trainer.default_root_dir))


class ReadingProgress(Callback):
    """Prints a line each half minute of a ``predict`` that generates nothing, and one at its end.

    It is silent in a terminal, where Lightning's bar says the same.
    """

    def __init__(self) -> None:
        self._total = math.inf
        self._done = 0
        self._started = self._shown = 0.0

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        self._total, self._done = float(sum(trainer.num_predict_batches)), 0
        self._started = self._shown = time.monotonic()

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Print a line if half a minute is over."""
        self._done += 1
        now = time.monotonic()
        if sys.stderr.isatty() or now - self._shown < LINE_SECONDS:
            return
        self._shown, elapsed = now, now - self._started
        left = elapsed / self._done * (self._total - self._done)
        known = math.isfinite(self._total)
        text = f"read {self._done:,}" + (f" of {self._total:,.0f}" if known else "") + f" batches in {elapsed:.0f} s"
        rank_zero_info(text + (f", about {left:.0f} s left" if known else ""))

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the last line."""
        if not sys.stderr.isatty():
            rank_zero_info(f"read {self._done:,} batches in {time.monotonic() - self._started:.0f} s")
