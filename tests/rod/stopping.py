"""A callback that ends a run at a chosen place, as a batch system does."""

import os
import signal
from typing import Any, Literal

from lightning.pytorch import Callback, Trainer


class StopAt(Callback):
    """Sends a signal to its process, at a training batch counted from 1 over all epochs, or at a validation."""

    def __init__(self, count: int, place: Literal["batch", "validation"] = "batch", rank: int = 0) -> None:
        self.count, self.place, self.rank = count, place, rank
        self.seen = 0

    def _pass(self, place: str, trainer: Trainer) -> None:
        self.seen += place == self.place
        if place == self.place and self.seen == self.count and trainer.global_rank == self.rank:
            os.kill(os.getpid(), signal.SIGTERM)

    def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
        """Count a training batch."""
        self._pass("batch", trainer)

    def on_validation_start(self, trainer: Trainer, *_: Any) -> None:
        """Count a validation."""
        self._pass("validation", trainer)


class Crash(StopAt):
    """Raises an error instead."""

    def _pass(self, place: str, trainer: Trainer) -> None:
        self.seen += place == self.place
        if place == self.place and self.seen == self.count:
            raise RuntimeError("crashed")
