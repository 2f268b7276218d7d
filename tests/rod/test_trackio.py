"""The Trackio fragment: scalars, a table of samples, a figure; a run that goes on is the same run there."""

import json
from pathlib import Path
from typing import Any

import pytest

from rod.__main__ import main
from rod.steps import config
from tests.processes import Processes


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with four questions to run a command in; Trackio writes into its ``trackio``."""
    questions = [{"id": f"q{i}", "question": f"What is {i} plus 2?", "gold": str(i + 2)} for i in range(4)]
    (tmp_path / "questions.jsonl").write_text("".join(json.dumps(q) + "\n" for q in questions))
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    return tmp_path


def command(folder: Path, *words: object) -> None:
    everything = [str(word) for word in [*words, *config("logger/trackio")]]
    Processes(main, everything, log=folder / "log.txt", cwd=folder).succeed()


def logged(found: Path, project: str) -> None:
    """Write what Trackio holds: in a process of its own, because it reads ``TRACKIO_DIR`` when it is imported."""
    from trackio import Api
    from trackio.sqlite_storage import SQLiteStorage

    runs = [
        {"name": run.name, "config": run.config, "logs": SQLiteStorage.get_logs(project, run.name, run_id=run.id)}
        for run in Api().runs(project)
    ]
    found.write_text(json.dumps(runs, default=str))


def runs_of(folder: Path) -> list[dict[str, Any]]:
    found = folder / "found.json"
    Processes(logged, found, "lightning-rod", log=folder / "log.txt", cwd=folder).succeed()
    runs: list[dict[str, Any]] = json.loads(found.read_text())
    return runs


def test_a_test_logs_metrics_configuration_and_samples_and_goes_on_as_the_same_run(folder: Path) -> None:
    suite = {"name": "sums", "kind": "answers", "source": {"local": {"file": "questions.jsonl"}}, "gold": "gold"}
    suites = json.dumps([suite | {"id": "id", "systems": ["system1", "system2"]}])
    words = ["test", *config("s3cot/6_test", "s3cot/controls/base"), "--data.suites", suites, "--data.samples", "1"]
    command(folder, *words)
    command(folder, *words)
    (run,) = runs_of(folder)
    assert run["name"].startswith("s3cot/6_test/")
    assert run["config"]["_Group"] == "s3cot"
    assert run["config"]["versions"]["torch"]
    values = {key: value for entry in run["logs"] for key, value in entry.items()}
    assert 0 <= values["test/sums/system1/accuracy"] <= 1
    assert len(values["test/samples"]["_value"]) == 8
    command(folder, *words, "--overwrite", "true")
    assert len(runs_of(folder)) == 2


def test_a_figure_is_logged_as_an_image(folder: Path) -> None:
    command(folder, "predict", *config("s3cot/1_direction"), "--data.questions", "questions.jsonl", "--data.limit", "4")
    (image,) = (folder / "trackio/media").rglob("*.png")
    assert image.read_bytes().startswith(b"\x89PNG")
