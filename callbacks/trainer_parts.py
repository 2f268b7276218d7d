"""What every ``Trainer`` has and does not declare: Lightning sets these attributes from outside of its class."""

from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from datamodules.errors import InputError
from llm_modules.causal_lm import CausalLM


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


def language_model(module: LightningModule) -> CausalLM:
    """The module, which has to be one that generates."""
    if not isinstance(module, CausalLM):
        raise InputError(f"model: {type(module).__name__} does not generate; give a CausalLM such as S3CoT")
    return module


def log_figure(trainer: Trainer, key: str, path: Path) -> None:
    """Show an image file in every logger that takes images (W&B does, CSV does not); on one process only.

    Args:
        trainer: Whose loggers.
        key: Name of the image there.
        path: PNG file.
    """
    if not trainer.is_global_zero:
        return
    for logger in trainer.loggers:
        if hasattr(logger, "log_image"):
            logger.log_image(key=key, images=[str(path)])
