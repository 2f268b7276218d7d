"""Checkpoints for a run that is stopped: one every few minutes, and one on SIGTERM."""

import copy
import os
import signal
import threading
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loops import _FitLoop
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from lightning.pytorch.utilities.exceptions import SIGTERMException

from datamodules.errors import InputError
from datamodules.writing import PARTIAL

_DUE, _STOP = 1, 2


class RecoveryCheckpoint(ModelCheckpoint):
    """Keeps the newest two checkpoints to go on from; a finished fit needs none and deletes them.

    Each holds the state after an optimizer step, so that a run that goes on from it ends as one that was never
    stopped. Lightning ends a fit on SIGTERM after the batch, which may lie between two optimizer steps or within a
    validation: its progress is then taken back to the last step. Nothing is saved after the very last step of
    ``max_steps``, because Lightning would take a run that goes on from there for finished and leave out its end.

    With several processes, all of them stop at the same step if any gets the signal; a validation ends first.

    The first Ctrl-C of a fit counts as SIGTERM, the next one ends it at once.
    """

    def __init__(self, minutes: float) -> None:
        """Keep a checkpoint every ``minutes``. InputError if the time is not positive."""
        if not minutes > 0:
            raise InputError(f"recovery_minutes: must be more than 0, not {minutes}")
        super().__init__(
            filename="recovery-{step}",
            monitor="step",
            mode="max",
            save_top_k=2,
            train_time_interval=timedelta(minutes=minutes),
            enable_version_counter=False,
        )
        self._seconds = 60 * minutes
        self._saved_at = 0.0
        self._step = 0
        self._progress: dict[str, Any] | None = None
        self._signalled = False
        self._on_interrupt: Any = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Remove what a killed run has left half written; with several processes, note SIGTERM from now on."""
        super().setup(trainer, pl_module, stage)
        if trainer.world_size > 1 and stage == "fit":
            # Until the start of training Lightning's handler would communicate at once, from this process alone.
            vars(trainer._signal_connector)["_sigterm_notifier_fn"] = self._note
        if trainer.is_global_zero and stage == "fit":
            for path in Path(str(self.dirpath)).glob(f".*{self.FILE_EXTENSION}.*{PARTIAL}"):
                path.unlink(missing_ok=True)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock; with several processes, note SIGTERM, where Lightning would communicate at once."""
        super().on_train_start(trainer, pl_module)
        self._saved_at = time.monotonic()
        self._step = trainer.global_step
        if threading.current_thread() is not threading.main_thread():
            return
        self._on_interrupt = signal.signal(signal.SIGINT, self._interrupt)
        if trainer.world_size > 1:
            # Lightning puts the earlier handlers back when the fit ends.
            signal.signal(signal.SIGTERM, self._note)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save after an optimizer step if it is time. SIGTERMException if one of several processes got the signal."""
        options: Any = trainer  # Lightning sets `fast_dev_run` outside of its constructor
        if options.fast_dev_run or trainer.global_step == self._step:  # the optimizer waits for more batches
            return
        self._step = trainer.global_step
        self._progress, ends = _progress_after_step(trainer.fit_loop)
        due = trainer.is_global_zero and not ends and time.monotonic() - self._saved_at >= self._seconds
        what = _STOP if self._signalled else _DUE if due else 0
        if trainer.world_size > 1:
            device = trainer.strategy.root_device
            what = int(trainer.strategy.reduce(torch.tensor(what, device=device), reduce_op="max"))
        if what == _DUE:
            self._save(trainer)
        if what == _STOP:
            self._save_last(trainer)
            raise SIGTERMException

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Save the state after the last optimizer step if one process alone is ended by SIGTERM."""
        self._forget_interrupt()
        if isinstance(exception, SIGTERMException) and trainer.world_size == 1:
            self._save_last(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Do nothing: epochs are the business of other callbacks."""

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Do nothing, see `on_train_epoch_end`."""

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Delete the checkpoints of a fit that has finished; if no other callback has saved it, save its end."""
        self._forget_interrupt()
        options: Any = trainer
        others = [callback for callback in trainer.checkpoint_callbacks if callback is not self]
        saved = [callback for callback in others if isinstance(callback, ModelCheckpoint)]
        has_saved = any(callback._last_checkpoint_saved or callback.best_model_path for callback in saved)
        if trainer.global_step and not options.fast_dev_run and not has_saved:
            path = Path(str(self.dirpath)) / f"last{self.FILE_EXTENSION}"
            trainer.save_checkpoint(path)
            monitored = ", ".join(sorted({callback.monitor for callback in saved if callback.monitor}))
            why = f"{monitored} was not measured (too few steps for a validation, or no validation data)"
            why = why if monitored else "none was due before the fit ended"
            rank_zero_warn(f"no checkpoint was saved during the fit, because {why}; its end is saved as {path}")
        for path in Path(str(self.dirpath)).glob(f"recovery-*{self.FILE_EXTENSION}"):
            trainer.strategy.remove_checkpoint(path)

    def _save_last(self, trainer: Trainer) -> None:
        if self._progress is not None and trainer.global_step != trainer.max_steps:
            trainer.fit_loop.load_state_dict(self._progress)
            self._save(trainer)

    def _save(self, trainer: Trainer) -> None:
        self._saved_at = time.monotonic()
        if self._last_global_step_saved == trainer.global_step:
            return
        self._save_topk_checkpoint(trainer, self._monitor_candidates(trainer))
        rank_zero_info(f"saved {self._last_checkpoint_saved}, from which `rod fit --resume auto` goes on")

    def _note(self, *_: object) -> None:
        self._signalled = True

    def _interrupt(self, *_: object) -> None:
        self._forget_interrupt()
        rank_zero_info("stopping after this step; Ctrl-C again ends at once, and what was not saved is lost")
        os.kill(os.getpid(), signal.SIGTERM)

    def _forget_interrupt(self) -> None:
        if self._on_interrupt is not None:
            signal.signal(signal.SIGINT, self._on_interrupt)
            self._on_interrupt = None


def _progress_after_step(loop: _FitLoop) -> tuple[dict[str, Any], bool]:
    """The progress of a fit in ``on_train_batch_end``, and whether a validation or the epoch's end follows.

    Of what follows, a run that goes on from Lightning's own state leaves out everything. Here the batch is counted as
    completed and the validation, if there is one, as begun: both are then made up for.
    """
    progress = copy.deepcopy(loop.state_dict())
    inner = loop.epoch_loop
    assert loop._data_fetcher is not None
    validates = inner._should_check_val_fx(loop._data_fetcher)
    ends = validates or inner._is_training_done
    if ends:
        for count in ("total", "current"):
            progress["epoch_loop.batch_progress"][count]["completed"] += 1
    if validates:
        validation = progress["epoch_loop.val_loop.batch_progress"]
        validation["current"] = dict.fromkeys(validation["current"], 0)
        for count in ("total", "current"):
            done = validation[count]["completed"]
            validation[count] |= {"ready": done + 1, "started": done + 1, "processed": done}
    elif ends:
        progress["epoch_loop.state_dict"]["_batches_that_stepped"] += 1  # the step of the log, counted after validation
    return progress, ends
