"""TensorBoard and MLflow: where they write, how a run is named there, its configuration, and one that goes on."""

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from lightning.pytorch.loggers import MLFlowLogger

from rod.__main__ import main
from rod.dashboards import MLFLOW_RUN, arguments, describe
from rod.run_folder import holds_results
from rod.steps import config
from tests.processes import Processes
from tests.rod.fits import fit_config


def test_tensorboard_has_curves_and_configuration_in_the_run_folder(tmp_path: Path) -> None:
    event_accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    words = ["fit", "--config", fit_config(tmp_path, max_epochs=1), *config("logger/tensorboard")]
    assert main([str(word) for word in words]) == 0
    (version,) = (tmp_path / "run/tensorboard").iterdir()
    events = event_accumulator.EventAccumulator(str(version))
    events.Reload()
    assert "train/loss" in events.Tags()["scalars"]
    assert "hp_metric" not in events.Tags()["scalars"]
    (told,) = events.Tensors("config/text_summary")
    assert b"lora_dropout: 0.2" in told.tensor_proto.string_val[0]
    assert list((tmp_path / "run/logs").rglob("metrics.csv"))


def test_tensorboards_file_alone_is_no_result(tmp_path: Path) -> None:
    (tmp_path / "tensorboard/version_0").mkdir(parents=True)
    (tmp_path / "tensorboard/version_0/events.out.tfevents.1.host.2.0").touch()
    assert not holds_results(tmp_path)
    (tmp_path / "tensorboard/version_0/other.csv").touch()
    assert holds_results(tmp_path)


def test_what_the_user_says_of_a_logger_holds(tmp_path: Path) -> None:
    assert arguments("TensorBoardLogger", {"save_dir": "a"}, tmp_path, "fit", False) == {"save_dir": "a"}
    given = {"tracking_uri": "http://host", "run_name": "mine", "run_id": "1", "tags": {"group": "g", "a": "b"}}
    told = arguments("MLFlowLogger", given, tmp_path, "fit", False)
    assert told == given | {"tags": {"group": "g", "a": "b", "verb": "fit"}}


def test_mlflow_has_a_place_and_the_name_of_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    told = arguments("MLFlowLogger", {"tracking_uri": None}, Path("runs/s3cot/6_test/tuned"), "test", False)
    assert told["tracking_uri"] == "sqlite:///runs/mlflow.db"
    assert Path("runs").is_dir()
    assert told["run_name"] == "s3cot/6_test/tuned"
    assert told["tags"] == {"group": "s3cot", "verb": "test"}


class Recorded(MLFlowLogger):
    """MLflow's logger with a client that keeps what it is told."""

    def __init__(self, params: dict[str, str]) -> None:
        self.params, self.updates = params, list[dict[str, str]]()
        self._tracking_uri = "http://host"

    @property
    def experiment(self) -> Any:
        run = SimpleNamespace(data=SimpleNamespace(params=self.params))
        return SimpleNamespace(get_run=lambda own: run, update_run=lambda own, **told: self.updates.append(told))

    @property
    def run_id(self) -> str:
        return "abc"

    def log_hyperparams(self, params: Any) -> None:
        self.params = dict(params)


def test_mlflow_has_the_configuration_of_a_new_run_only(tmp_path: Path) -> None:
    logger = Recorded({})
    settings = {"model": {"rank_pattern": {"layers.*.q": 4}}}
    describe([logger], tmp_path, settings, "", goes_on=False)
    assert logger.params == {"model": {"rank_pattern": {"layers._.q": 4}}}  # MLflow refuses the star
    assert (tmp_path / MLFLOW_RUN).read_text() == "http://host abc"
    describe([logger], tmp_path, {"model": None}, "", goes_on=True)
    assert logger.params == {"model": {"rank_pattern": {"layers._.q": 4}}}
    assert logger.updates == [{"status": "RUNNING"}]


def without_server(words: list[str]) -> int:
    os.environ.pop("MLFLOW_TRACKING_URI", None)
    return main(words)


def test_a_run_of_mlflow_goes_on_as_the_same_one(tmp_path: Path) -> None:
    mlflow = pytest.importorskip("mlflow", reason="needs pip install mlflow")
    first = [str(word) for word in ["fit", "--config", fit_config(tmp_path), *config("logger/mlflow")]]
    for more in (["--trainer.max_steps", "6"], ["--trainer.max_steps", "6", "--overwrite", "true"]):
        Processes(without_server, [*first, *more], log=tmp_path / "log.txt", cwd=tmp_path).succeed()
    going_on = [*first, "--trainer.max_steps", "6", "--ckpt_path", "last"]
    Processes(without_server, going_on, log=tmp_path / "log.txt", cwd=tmp_path).succeed()
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path}/runs/mlflow.db")
    (experiment,) = (one for one in client.search_experiments() if one.name == "lightning-rod")
    runs = client.search_runs([experiment.experiment_id])
    assert len(runs) == 2
    assert len({run.info.run_name for run in runs}) == 1
    assert all(run.data.params["seed_everything"] == "0" for run in runs)
    assert {run.info.status for run in runs} == {"FINISHED"}
