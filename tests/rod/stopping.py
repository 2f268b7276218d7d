"""A callback that ends a run at a chosen place, once, as a batch system does."""

import os
import signal
from pathlib import Path
from typing import Any, Literal

from lightning.pytorch import Callback, Trainer

Place = Literal["start", "start of training", "training batch", "validation", "prediction"]


class StopAt(Callback):
    """Sends a signal to its process at a place, counted from 1; never again once the file ``stopped`` is there."""

    def __init__(
        self, count: int, stopped: str, place: Place = "training batch", rank: int = 0, name: str = "SIGTERM"
    ) -> None:
        self.count, self.stopped, self.place, self.rank, self.name = count, Path(stopped), place, rank, name
        self.seen = 0

    def _pass(self, place: Place, trainer: Trainer) -> None:
        self.seen += place == self.place
        here = place == self.place and self.seen == self.count and trainer.global_rank == self.rank
        if here and not self.stopped.exists():
            self.stopped.touch()
            self.stop()

    def stop(self) -> None:
        """End the run."""
        os.kill(os.getpid(), signal.Signals[self.name])

    def on_fit_start(self, trainer: Trainer, *_: Any) -> None:
        """Count the start of a fit, before its training starts."""
        self._pass("start", trainer)

    def on_train_start(self, trainer: Trainer, *_: Any) -> None:
        """Count the start of the training, when Lightning listens to signals."""
        self._pass("start of training", trainer)

    def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
        """Count a training batch."""
        self._pass("training batch", trainer)

    def on_validation_start(self, trainer: Trainer, *_: Any) -> None:
        """Count a validation."""
        self._pass("validation", trainer)

    def on_predict_batch_start(self, trainer: Trainer, *_: Any) -> None:
        """Count a batch of predictions."""
        self._pass("prediction", trainer)


class Crash(StopAt):
    """Raises an error instead."""

    def stop(self) -> None:
        """End the run."""
        raise RuntimeError("crashed")
