"""What every ``Trainer`` has and does not declare: Lightning sets these attributes from outside of its class."""

from typing import Any

from lightning.pytorch import Callback, Trainer


def datamodule_of(trainer: Trainer) -> Any:
    """The DataModule of the run, None without one."""
    return getattr(trainer, "datamodule", None)


def callbacks_of(trainer: Trainer) -> list[Callback]:
    """The callbacks of the run, in their order."""
    return getattr(trainer, "callbacks", [])


def logs_now(trainer: Trainer) -> bool:
    """Whether this is a step at which metrics are logged."""
    every: int = getattr(trainer, "log_every_n_steps", 1)
    return trainer.global_step % every == 0
