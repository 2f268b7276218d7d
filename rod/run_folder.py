"""The folder of a run: it holds the configuration, and an earlier run in it is protected."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.cli import SaveConfigCallback
from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.utilities import rank_zero_warn

from datamodules.errors import InputError
from datamodules.writing import replacing
from llm_modules.backbone.checkpoint import check_checkpoint

CONFIG = "config.yaml"
DONE = "done"
"""Name of the empty file that marks a finished run."""
_OF_ONE_START = {"ckpt_path", "overwrite", "recovery_minutes", "resume"}
"""Keys that may differ when a run goes on."""


class RunFolder(SaveConfigCallback):
    """Write ``config.yaml`` into ``trainer.default_root_dir`` and to Weights & Biases.

    A folder that holds a run of another configuration is refused. A run of the same configuration goes on: a fit by
    ``--resume auto`` or ``--ckpt_path``, sampling and tests always.
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
        if trainer.is_global_zero:
            self._check(folder, text, stage)
            (folder / DONE).unlink(missing_ok=True)
            if self.config.get("overwrite") and stage == "fit":
                self._remove_checkpoints(folder)
            with replacing(folder / CONFIG) as file:
                file.write(text.encode("utf-8"))
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

    def _remove_checkpoints(self, folder: Path) -> None:
        """Remove the replaced run's checkpoints, from which nothing must go on, except the one to start from."""
        start = self.config.get("ckpt_path")
        for path in folder.rglob("*.ckpt"):
            if start is None or path.resolve() != Path(start).resolve():
                path.unlink()

    def _check(self, folder: Path, text: str, verb: str) -> None:
        if self.config.get("overwrite") or not (folder / CONFIG).is_file():
            return
        other = difference(folder / CONFIG, text)
        if other is not None:
            raise InputError(
                f"trainer.default_root_dir: '{folder}' holds a run with another configuration ({other}); name another "
                "folder, restore the key, or pass --overwrite true to replace the run"
            )
        if verb == "fit" and self.config.get("ckpt_path") is None and any(folder.rglob("*.ckpt")):
            kind = "a finished" if (folder / DONE).is_file() else "an interrupted"
            raise InputError(
                f"trainer.default_root_dir: '{folder}' holds {kind} run; pass --resume auto to go on from its newest "
                "checkpoint, --ckpt_path for another one, --overwrite true to start again, or name another folder"
            )


def difference(path: Path, text: str) -> str | None:
    """The first key in which a run's ``config.yaml`` and a configuration differ, with both values; None if none does.

    Keys that may differ when a run goes on are not compared.
    """
    with path.open(encoding="utf-8") as file:
        before, now = (dict(_flat(yaml.safe_load(source) or {})) for source in (file, text))
    for key in [*now, *(key for key in before if key not in now)]:
        if key.split(".")[0] not in _OF_ONE_START and before.get(key) != now.get(key):
            return f"{key}: {before.get(key)} there, {now.get(key)} now"
    return None


def _flat(values: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """All values under their dotted keys; entries of lists are counted from 0."""
    entries = values.items() if isinstance(values, dict) else enumerate(values) if isinstance(values, list) else ()
    if not entries:
        yield path, values
    for key, value in entries:
        yield from _flat(value, f"{path}.{key}".removeprefix("."))


def newest_checkpoint(folder: Path) -> Path | None:
    """The newest whole checkpoint of a fit, by time; a warning names each damaged one that is newer."""
    for path in sorted(folder.rglob("*.ckpt"), key=lambda path: path.stat().st_mtime_ns, reverse=True):
        try:
            if "optimizer_states" in check_checkpoint(path, "--resume auto"):
                return path
        except InputError as error:
            rank_zero_warn(str(error))
    return None


def resumes_by_default() -> bool:
    """Whether a job of SLURM (an interactive one excepted) or of torchrun runs this process: both start it again."""
    batch_job = "SLURM_JOB_ID" in os.environ and os.environ.get("SLURM_JOB_NAME") not in ("bash", "interactive")
    return batch_job or "TORCHELASTIC_RUN_ID" in os.environ


def is_restart() -> bool:
    """Whether SLURM or torchrun has started this job before."""
    return any(int(os.environ.get(name) or 0) > 0 for name in ("SLURM_RESTART_COUNT", "TORCHELASTIC_RESTART_COUNT"))
