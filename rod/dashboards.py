"""What loggers are told of a run: where it is, its name, its configuration, and whether it goes on."""

import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from lightning.fabric.utilities.rank_zero import rank_zero_only
from lightning.pytorch.loggers import Logger, MLFlowLogger, TensorBoardLogger, WandbLogger

from callbacks.trackio_logger import TrackioLogger
from datamodules.writing import replacing
from rod import wandb_run

MLFLOW_RUN = "mlflow_run"
"""File in a run folder with the server and the id of its run in MLflow."""
IDS = {wandb_run.ID, MLFLOW_RUN}
LOCAL_MLFLOW = Path("runs/mlflow.db")
"""Where MLflow keeps runs if no server is named; its newest versions take no folder for that."""
LOCAL_ARTIFACTS = Path("runs/mlflow")


def arguments(kind: str, given: Mapping[str, Any], folder: Path, verb: str, anew: bool) -> dict[str, Any]:
    """The arguments of a logger of this class: those that are given, and what the run says of the others.

    TensorBoard writes into the run folder if ``save_dir`` is empty. MLflow's run has the name of the folder, its
    pipeline as ``group`` and the verb; a run that goes on is the same one there.
    """
    found = dict(given)
    if kind == "TensorBoardLogger":
        found["save_dir"] = found.get("save_dir") or str(folder)
    if kind == "MLFlowLogger":
        if not found.get("tracking_uri"):
            LOCAL_MLFLOW.parent.mkdir(parents=True, exist_ok=True)
            found["tracking_uri"] = f"sqlite:///{LOCAL_MLFLOW}"
            found["artifact_location"] = found.get("artifact_location") or str(LOCAL_ARTIFACTS.resolve())
        group, name = wandb_run.group_and_name(folder)
        found["run_name"] = found.get("run_name") or f"{group}/{name}"
        found["tags"] = {"group": group, "verb": verb} | (found.get("tags") or {})
        if not anew:
            found["run_id"] = found.get("run_id") or _known_run(folder, found["tracking_uri"])
    return found


def describe(loggers: Iterable[Logger], folder: Path, settings: Mapping[str, Any], text: str, goes_on: bool) -> None:
    """Give loggers the name of the run and its configuration, when it has its folder for its own.

    Args:
        loggers: Those of the run.
        folder: Its folder.
        settings: Its configuration, with versions.
        text: The configuration as YAML.
        goes_on: Whether it is the run that the folder holds already.
    """
    for logger in loggers:
        if isinstance(logger, WandbLogger):
            wandb_run.keep(folder)
            logger.experiment.config.update(settings, allow_val_change=True)
        elif isinstance(logger, TrackioLogger):
            group, name = wandb_run.group_and_name(folder)
            logger.describe(f"{group}/{name}", group, settings, goes_on)
        elif isinstance(logger, TensorBoardLogger):
            logger.experiment.add_text("config", "".join(f"    {line}\n" for line in text.splitlines()))
        elif isinstance(logger, MLFlowLogger):
            _describe_to_mlflow(logger, folder, settings)


@rank_zero_only
def _known_run(folder: Path, server: str) -> str | None:
    """The id of a folder's run in MLflow; None if it has none there, or none any more."""
    if not (folder / MLFLOW_RUN).is_file():
        return None
    place, _, known = (folder / MLFLOW_RUN).read_text(encoding="utf-8").strip().rpartition(" ")
    if place != server:
        return None
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    with suppress(MlflowException):
        if MlflowClient(server).get_run(known).info.lifecycle_stage == "active":
            return known
    return None


@rank_zero_only
def _describe_to_mlflow(logger: MLFlowLogger, folder: Path, settings: Mapping[str, Any]) -> None:
    """Log the configuration and keep the id of the run; one that goes on has its parameters, which cannot change."""
    client, own = logger.experiment, logger.run_id
    if client.get_run(own).data.params:
        client.update_run(own, status="RUNNING")
    else:
        logger.log_hyperparams(_with_names_for_mlflow(settings))
    with replacing(folder / MLFLOW_RUN) as file:
        file.write(f"{logger._tracking_uri} {own}".encode())


def _with_names_for_mlflow(values: Any) -> Any:
    """Settings whose keys have no characters that MLflow refuses."""
    if not isinstance(values, Mapping):
        return values
    return {re.sub(r"[^\w./ -]", "_", str(key)): _with_names_for_mlflow(value) for key, value in values.items()}
