"""Figures go where the run's metrics go."""

from pathlib import Path

from lightning.pytorch import Trainer


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
