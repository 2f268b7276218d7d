"""The folder of a run: it holds the configuration, and an earlier run in it is protected."""

from pathlib import Path

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.cli import SaveConfigCallback
from lightning.pytorch.loggers import WandbLogger

from datamodules.errors import InputError

CONFIG = "config.yaml"
DONE = "done"
"""Name of the empty file that marks a finished run."""


class RunFolder(SaveConfigCallback):
    """Write ``config.yaml`` into ``trainer.default_root_dir`` and to Weights & Biases.

    A folder that holds a run of another configuration is refused. A run of the same configuration is resumed: a fit
    by ``--ckpt_path``, sampling and tests automatically.
    """

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Check the folder and write the configuration, before any weights are loaded.

        Raises:
            InputError: The folder holds another run.
        """
        if self.already_saved:
            return
        folder = Path(trainer.default_root_dir)
        text = self.parser.dump(self.config, skip_none=False, skip_link_targets=False)
        path = folder / CONFIG
        if trainer.is_global_zero:
            self._check(path, text)
            folder.mkdir(parents=True, exist_ok=True)
            (folder / DONE).unlink(missing_ok=True)
            path.write_text(text, encoding="utf-8")
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger) and trainer.is_global_zero:
                logger.experiment.config.update(self.config.as_dict(), allow_val_change=True)
        self.already_saved = True

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Mark the run as finished."""
        self._finish(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Mark the run as finished, except inside a fit."""
        if trainer.state.fn == "validate":
            self._finish(trainer)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Mark the run as finished."""
        self._finish(trainer)

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Mark the run as finished."""
        self._finish(trainer)

    def _finish(self, trainer: Trainer) -> None:
        if trainer.is_global_zero:
            (Path(trainer.default_root_dir) / DONE).touch()

    def _check(self, path: Path, text: str) -> None:
        if self.config.get("overwrite") or not path.is_file():
            return
        if _without_progress(path.read_text(encoding="utf-8")) != _without_progress(text):
            raise InputError(
                f"trainer.default_root_dir: '{path.parent}' holds a run with another configuration; "
                "name another folder, or pass --overwrite true to replace it"
            )
        if self.config.get("ckpt_path") is None and any(path.parent.rglob("*.ckpt")):
            raise InputError(
                f"trainer.default_root_dir: '{path.parent}' holds a finished or interrupted run; pass --ckpt_path "
                "to resume from one of its checkpoints, --overwrite true to start again, or name another folder"
            )


def _without_progress(text: str) -> list[str]:
    """The configuration without the keys that may differ when a run is resumed."""
    return [
        line for line in text.splitlines() if not line.startswith(("ckpt_path:", "overwrite:", "recovery_minutes:"))
    ]
