"""Typed access to attributes that Lightning sets at run time, and to loggers that take images and tables."""

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import MLFlowLogger, TensorBoardLogger
from matplotlib.image import imread

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
    """Send a PNG file to every logger that takes images; only process 0 does it.

    W&B, Trackio, TensorBoard and MLflow do; CSV does not, and the file stays in the run folder.
    """
    if not trainer.is_global_zero:
        return
    for logger in trainer.loggers:
        if hasattr(logger, "log_image"):
            logger.log_image(key=key, images=[str(path)])
        elif isinstance(logger, TensorBoardLogger):
            logger.experiment.add_image(key, imread(path)[..., :3], trainer.global_step, dataformats="HWC")
        elif isinstance(logger, MLFlowLogger):
            logger.experiment.log_artifact(logger.run_id, str(path), "figures")


def log_table(trainer: Trainer, key: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Send a table to every logger that takes tables; only process 0 does it.

    W&B, Trackio and MLflow do, TensorBoard shows it as text; CSV does not.
    """
    if not trainer.is_global_zero:
        return
    for logger in trainer.loggers:
        if hasattr(logger, "log_table"):
            logger.log_table(key, columns=list(columns), data=[list(row) for row in rows])
        elif isinstance(logger, TensorBoardLogger):
            logger.experiment.add_text(key, _markdown([columns, ["---"] * len(columns), *rows]), trainer.global_step)
        elif isinstance(logger, MLFlowLogger):
            table = {column: [str(row[i]) for row in rows] for i, column in enumerate(columns)}
            # Its tables need pandas, which mlflow-skinny does not bring.
            log = logger.experiment.log_table if find_spec("pandas") else logger.experiment.log_dict
            log(logger.run_id, table, f"{key}.json")


def _markdown(rows: Sequence[Sequence[Any]]) -> str:
    cells = [[" ".join(str(cell).split()).replace("|", "\\|") for cell in row] for row in rows]
    return "\n".join(f"| {' | '.join(row)} |" for row in cells)
