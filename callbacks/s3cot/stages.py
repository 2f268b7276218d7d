"""A callback that draws the stages of a curriculum."""

from pathlib import Path

from lightning.pytorch import Callback, LightningModule, Trainer

from callbacks.s3cot.figures import plot_stages
from callbacks.trainer_parts import datamodule_of, log_figure
from datamodules.errors import InputError


class StageFigure(Callback):
    """Draws ``stages.png`` when training begins: the pairs that each stage of the curriculum trains on, by length."""

    def __init__(self, output: Path | None = None) -> None:
        """Set the place of the figure.

        Args:
            output: PNG file; ``stages.png`` in the run folder by default.
        """
        self.output = output

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw the figure and log it; raise InputError if the data have no stages."""
        stages = getattr(datamodule_of(trainer), "stage_table", None)
        if not stages:
            raise InputError("trainer.callbacks: StageFigure needs data with stages; use CurriculumData")
        if trainer.is_global_zero:
            path = self.output or Path(trainer.default_root_dir) / "stages.png"
            plot_stages(stages, path)
            log_figure(trainer, "stages", path)
