"""Typed access to attributes that Lightning sets at run time, and to loggers that take images."""

from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from datamodules.errors import InputError
from llm_modules.causal_lm import CausalLM


def datamodule_of(trainer: Trainer) -> Any:
    """Return the DataModule of the run; None if there is none."""
    return getattr(trainer, "datamodule", None)


def callbacks_of(trainer: Trainer) -> list[Callback]:
    """Return the callbacks of the run in the order in which they are called."""
    return getattr(trainer, "callbacks", [])


def logs_now(trainer: Trainer) -> bool:
    """Return whether metrics are logged at this step (``trainer.log_every_n_steps``)."""
    every: int = getattr(trainer, "log_every_n_steps", 1)
    return trainer.global_step % every == 0


def language_model(module: LightningModule) -> CausalLM:
    """Return the module as a `CausalLM`; raise InputError if it is none."""
    if not isinstance(module, CausalLM):
        raise InputError(f"model: {type(module).__name__} does not generate; use a CausalLM such as S3CoT")
    return module


def log_figure(trainer: Trainer, key: str, path: Path) -> None:
    """Send a PNG file to every logger that takes images (W&B does, CSV does not); only process 0 does it."""
    if not trainer.is_global_zero:
        return
    for logger in trainer.loggers:
        if hasattr(logger, "log_image"):
            logger.log_image(key=key, images=[str(path)])
