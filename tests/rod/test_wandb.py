"""The W&B fragment without an account: metrics, tables of samples and images, all in the run folder."""

import json
import os
from pathlib import Path

import pytest

from rod import wandb_run
from rod.__main__ import main
from rod.steps import config
from tests.processes import Processes
from tests.rod.fits import fit_config


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with four questions to run a command in."""
    questions = [{"id": f"q{i}", "question": f"What is {i} plus 2?", "gold": str(i + 2)} for i in range(4)]
    (tmp_path / "questions.jsonl").write_text("".join(json.dumps(q) + "\n" for q in questions))
    return tmp_path


def without_settings(words: list[str]) -> int:
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        del os.environ[name]
    return main(words)


def command(folder: Path, *words: object) -> Path:
    """Run a command with the fragment in a process of its own, which alone ends a W&B run; gives that run's folder."""
    everything = [*words, *config("logger/wandb")]
    Processes(without_settings, [str(word) for word in everything], log=folder / "log.txt", cwd=folder).succeed()
    assert "anonymous" not in (folder / "log.txt").read_text()  # wandb warns of this setting, which Lightning gives
    (run,) = folder.glob("runs/wandb/offline-run-*")
    return run


def test_a_test_logs_metrics_configuration_and_a_table_of_samples(folder: Path) -> None:
    words = ["test", *config("s3cot/6_test"), *config("s3cot/controls/base")]
    suite = {"name": "sums", "kind": "answers", "source": {"local": {"file": "questions.jsonl"}}, "gold": "gold"}
    suites = json.dumps([suite | {"id": "id", "systems": ["system1", "system2"]}])
    made = command(folder, *words, "--data.suites", suites, "--data.samples", "1")
    record = next(made.glob("run-*.wandb")).read_bytes().decode("utf-8", errors="ignore")
    assert "test/sums/system1/accuracy" in record
    assert "max_new_tokens" in record
    assert "lightning-rod" in record
    (written,) = folder.glob("runs/s3cot/6_test/*/wandb_id")
    assert made.name.endswith(written.read_text())
    assert f"6_test/{written.parent.name}" in record
    (table,) = (made / "files/media/table").rglob("*.json")
    shown = json.loads(table.read_text())
    assert shown["columns"][0] == "id"
    assert len(shown["data"]) == 8


def test_a_figure_is_logged_as_an_image(folder: Path) -> None:
    questions = ["--data.questions", "questions.jsonl", "--data.limit", "4"]
    made = command(folder, "predict", *config("s3cot/1_direction"), *questions)
    (image,) = (made / "files/media/images").rglob("*.png")
    assert image.read_bytes().startswith(b"\x89PNG")


def test_a_run_that_goes_on_keeps_its_id_and_a_new_one_has_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setattr(wandb_run, "_ours", set())
    monkeypatch.setenv("WANDB_RUN_GROUP", "mine")
    folder, ids = tmp_path / "runs/mllr/2_tune/plain", []
    for anew, path in ((False, folder), (False, folder), (True, folder), (False, folder.with_name("mllr"))):
        before = (path / "wandb_id").read_text() if (path / "wandb_id").exists() else None
        wandb_run.describe(path, "fit", anew)
        # Until the run has the folder for its own, its id stays that of the run there.
        assert ((path / "wandb_id").read_text() if (path / "wandb_id").exists() else None) == before
        wandb_run.keep(path)
        assert os.environ["WANDB_RUN_GROUP"] == "mine"
        assert os.environ["WANDB_NAME"] == f"2_tune/{path.name}"
        ids.append(os.environ["WANDB_RUN_ID"])
    assert ids[0] == ids[1]
    assert len(set(ids)) == 3


def test_the_curves_of_a_fit_are_in_its_run_folder_too(folder: Path) -> None:
    command(folder, "fit", "--config", fit_config(folder, max_epochs=1))
    (written,) = folder.glob("run/logs/version_*/metrics.csv")
    assert "train/loss" in written.read_text().splitlines()[0]
