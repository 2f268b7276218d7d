"""A progress bar for generation: rows, tokens per second and per row, right answers, time left."""

import sys
import time
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from callbacks.generation.completion_writer import CompletionWriter
from callbacks.trainer_parts import callbacks_of, language_model
from llm_modules.causal_lm import CausalLM
from llm_modules.generation import Completion, GenerationListener

LINE_SECONDS = 30.0
"""Interval of log lines if the output is not a terminal."""
BAR_SECONDS = 0.2


class GenerationProgress(Callback, GenerationListener):
    """Shows the progress of ``predict``, ``test`` and ``validate`` as a bar, or as log lines without a terminal.

    It counts the rows and tokens of process 0, which has about as many questions as each other process, and how many
    of the answers that are checked on the way are right: in a test only those that their text decides. It replaces
    Lightning's own bar, which counts batches; during ``fit`` Lightning's bar stays and this one is silent.
    """

    def __init__(self) -> None:
        self._module: CausalLM | None = None
        self._progress: Progress | None = None
        self._task = TaskID(0)
        self._writers: list[CompletionWriter] = []
        self._rows = self._done = self._tokens = self._row_tokens = self._cut = 0
        self._started = self._shown = 0.0

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Switch Lightning's bar off."""
        if stage != "fit" and trainer.progress_bar_callback is not None:
            trainer.progress_bar_callback.disable()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Switch Lightning's bar on again."""
        if stage != "fit" and trainer.progress_bar_callback is not None and trainer.is_global_zero:
            trainer.progress_bar_callback.enable()

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Show the bar."""
        self._begin(trainer, pl_module, trainer.predict_dataloaders)

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Show the bar."""
        self._begin(trainer, pl_module, trainer.test_dataloaders)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Show the bar, unless this is the validation of a fit."""
        if trainer.state.fn == "validate":
            self._begin(trainer, pl_module, trainer.val_dataloaders)

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Remove the bar after the last batch, before the results are printed."""
        numbers = trainer.num_predict_batches if trainer.state.fn == "predict" else trainer.num_test_batches
        if batch_idx + 1 == numbers[-1] and dataloader_idx + 1 == len(numbers):
            self._end()

    on_test_batch_end = on_predict_batch_end

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Remove the bar."""
        self._end()

    on_test_end = on_validation_end = on_predict_end

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Remove the bar, also on error."""
        self._end()

    def tokens_generated(self, number: int) -> None:
        """Count tokens."""
        self._tokens += number
        self._show()

    def row_finished(self, row: int, completion: Completion) -> None:
        """Count a row."""
        self._done += 1
        self._row_tokens += completion.n_tokens
        self._cut += completion.finish_reason == "length"

    def _begin(self, trainer: Trainer, pl_module: LightningModule, loader: Any) -> None:
        if not trainer.is_global_zero:
            return
        self._rows = sum(len(getattr(batch, "rows", ())) for batch in getattr(loader, "batches", ()))
        self._done = self._tokens = self._row_tokens = self._cut = 0
        self._writers = [callback for callback in callbacks_of(trainer) if isinstance(callback, CompletionWriter)]
        self._started = self._shown = time.monotonic()
        if sys.stderr.isatty():
            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                TextColumn("{task.completed:,.0f}/{task.total:,.0f} rows"),
                TextColumn("{task.fields[speed]:,.0f} tokens/s{task.fields[told]}"),
                TimeElapsedColumn(),
                TextColumn("left:"),
                TimeRemainingColumn(),
            )
            self._progress = Progress(*columns, console=Console(stderr=True), refresh_per_second=4)
            self._progress.start()
            self._task = self._progress.add_task("generating" + _share(trainer), total=self._rows, speed=0.0, told="")
        self._module = language_model(pl_module)
        self._module.generator.listeners.append(self)

    def _show(self, last: bool = False) -> None:
        now = time.monotonic()
        if now - self._shown < (BAR_SECONDS if self._progress else LINE_SECONDS) and not last:
            return
        self._shown = now
        elapsed = max(now - self._started, 1e-9)
        speed = self._tokens / elapsed
        if self._progress is not None:
            self._progress.update(self._task, completed=self._done, speed=speed, told=self._told())
            return
        left = elapsed / self._done * (self._rows - self._done) if self._done else float("nan")
        rank_zero_info(
            f"generated {self._done:,} of {self._rows:,} rows in {elapsed:.0f} s, {speed:,.0f} tokens/s{self._told()}"
            + ("" if last or not self._done else f", about {left:.0f} s left")
        )

    def _told(self) -> str:
        """What is known of the rows that have finished: their mean length, and how many were cut off or are right."""
        if not self._done:
            return ""
        told = f", {self._row_tokens / self._done:,.0f} tokens a row"
        told += f", {self._cut / self._done:.0%} cut off" if self._cut else ""
        checked = sum(writer.checked for writer in self._writers)
        return told + (f", {sum(writer.right for writer in self._writers) / checked:.1%} right" if checked else "")

    def _end(self) -> None:
        if self._module is None:
            return
        self._show(last=True)
        self._module.generator.listeners.remove(self)
        self._module = None
        if self._progress is not None:
            self._progress.stop()
            self._progress = None


def _share(trainer: Trainer) -> str:
    return f" (process 1 of {trainer.world_size})" if trainer.world_size > 1 else ""
