"""A predict run over twins leaves a result, a table and a map; a fit takes them up."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from llm_modules.optim.robust_modules import RobustModules
from rod.__main__ import main
from tests.conftest import ROOT
from tests.tiny import save_tiny

STAGES = ROOT / "configs" / "mllr"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model of two layers, and pairs that it tells apart by their last letters."""
    folder = tmp_path_factory.mktemp("mllr")
    save_tiny(folder / "model", layers=2)
    template = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
    (folder / "bare.jinja").write_text(template)
    lines = [
        {"malicious": f"{'ab' * (i % 3 + 1)} {i} xyz", "benign": f"{'ab' * (i % 3 + 1)} {i} QRS"} for i in range(24)
    ]
    (folder / "twins.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    tasks = [{"prompt": f"say {i}", "response": f"it is {i}"} for i in range(8)]
    (folder / "task.jsonl").write_text("".join(json.dumps(line) + "\n" for line in tasks))
    return folder


def search(world: Path, out: Path, *words: object) -> int:
    options = [
        "predict", "--config", STAGES / "1_probe_and_search.yaml", "--config", STAGES / "controls/noise.yaml",
        "--model.init_args.backbone", world / "model",
        "--data.init_args.pairs", world / "twins.jsonl",
        "--data.init_args.evaluation", "[]",
        "--data.init_args.chat_template", world / "bare.jinja",
        "--trainer.callbacks.proxy.eps", "[0.3]",
        "--trainer.default_root_dir", out,
        "--trainer.enable_progress_bar", "false",
    ]  # fmt: skip
    return main([str(word) for word in (*options, *words)])


@pytest.fixture(scope="module")
def found(world: Path) -> Path:
    assert search(world, world / "run") == 0
    return world / "run"


def test_the_result_says_what_was_found_and_how(found: Path, world: Path) -> None:
    result = RobustModules.load(found / "robust_modules.yaml")
    assert result.model == str((world / "model").resolve())
    assert (result.layers, result.types) == (2, ("q", "k", "v", "o", "gate", "up", "down"))
    assert result.tau == 0.2
    assert result.probe["accuracy"] >= 0.9
    assert {entry["step"] for entry in result.search} >= {"order", "suffix", "check"}
    assert result.settings["n_pairs"] == {"fit": 12, "search": 6, "check": 6}
    assert result.settings["eps"] == 0.3
    assert {"other seeds", "other data (search and check swapped)"} <= result.stability.keys()
    assert {path.name for path in found.glob("*.png")} == {"robustness.png", "search.png"}
    for entry in result.search:
        assert set(entry) >= {"drop", "within", "seeds", "malicious_drop", "auroc_drop", "margin_drop"}


def test_every_raw_measurement_is_in_the_table_and_the_map_is_drawn(found: Path) -> None:
    with (found / "robustness.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 7 * 2 * 3
    robust = RobustModules.load(found / "robust_modules.yaml").robust
    assert {f"layers.{r['layer']}.{r['type']}" for r in rows if r["robust"] == "1"} == set(robust)
    assert len({row["margin_drop"] for row in rows}) > 7
    with Image.open(found / "robustness.png") as image:
        assert min(image.size) > 300


def test_the_same_run_gives_the_same_bytes(found: Path, world: Path) -> None:
    assert search(world, world / "again") == 0
    for name in ("robust_modules.yaml", "robustness.csv", "robustness.png"):
        assert (found / name).read_bytes() == (world / "again" / name).read_bytes(), name


def test_the_next_stage_takes_the_result_up(found: Path, world: Path) -> None:
    robust = RobustModules.load(found / "robust_modules.yaml").robust
    assert robust, "the random model has robust modules at this tau"
    out = world / "tuned"
    words: list[Any] = [
        "fit", "--config", STAGES / "2_tune.yaml",
        "--model.init_args.backbone", world / "model",
        "--model.init_args.learning_rates.result", found / "robust_modules.yaml",
        "--data.init_args.path", world / "task.jsonl",
        "--data.init_args.chat_template", world / "bare.jinja",
        "--data.init_args.batch_size", 2,
        "--trainer.default_root_dir", out,
        "--trainer.max_steps", 4,
        "--trainer.log_every_n_steps", 1,
        "--trainer.enable_progress_bar", "false",
    ]  # fmt: skip
    (world / "bare.jinja").write_text(
        "{% for message in messages %}{{ message['content'] }}{% if message['role'] == 'assistant' %}{{ eos_token }}"
        "{% endif %}{% endfor %}"
    )
    assert main([str(word) for word in words]) == 0
    with next((out / "logs").rglob("metrics.csv")).open() as file:
        rows = list(csv.DictReader(file))
    last = {key: float(value) for row in rows for key, value in row.items() if value}
    assert last["lr-AdamW/rest/matrices"] == pytest.approx(1e-4 * last["lr-AdamW/robust/matrices"])
    assert last["grad_norm/robust/matrices"] > 0
    assert last["grad_norm/rest/matrices"] > 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--model.class_path", "S3CoT"], "needs the model MLLR, not S3CoT"),
        (["--data.init_args.pairs", "absent.jsonl"], "absent.jsonl: there is no such file"),
        (["--trainer.callbacks.search.tau", "1.5"], "tau: must be above 0 and below 1"),
        (["--trainer.callbacks.proxy.perturbation", "delta"], "needs a pilot"),
        (["--trainer.callbacks.proxy.floor", "1.4"], "floor"),
        (
            ["--trainer.callbacks.pilot", "runs/mllr/0_pilot/model"],
            "RobustModulesWriter.pilot: there is no folder 'runs/mllr/0_pilot/model'; rod fit --config mllr/0_pilot",
        ),
    ],
)
def test_bad_input_is_one_line(
    words: list[str], message: str, world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert search(world, tmp_path / "run", *words) == 2
    assert message in capsys.readouterr().err


def test_proxy_data_that_are_also_tested_on_are_refused(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "test.jsonl").write_text(json.dumps({"prompt": "AB 0  xyz."}) + "\n")
    assert search(world, tmp_path / "run", "--data.init_args.evaluation", f"[{tmp_path / 'test.jsonl'}]") == 2
    assert "also stand in the evaluation file" in capsys.readouterr().err


def test_the_shipped_stage_names_the_files_of_the_world() -> None:
    stage = yaml.safe_load((STAGES / "1_probe_and_search.yaml").read_text())["data"]["init_args"]
    assert stage["pairs"].endswith("twins.train.jsonl")
    assert all("requests.forbidden" in path for path in stage["evaluation"])
