"""``rod test`` through the command: the miniature, and every shipped suite on a real checkpoint."""

import json
import shutil
from collections import Counter
from pathlib import Path

import pytest
import yaml

from rod.__main__ import main
from tests.callbacks.evaluation.evaluation_run import metrics, predictions, results, write
from tests.conftest import ROOT

CONFIGS = ROOT / "configs"
SUITES = CONFIGS / "suites"


def rod(*words: object) -> int:
    return main([str(word) for word in words])


def asking(root: Path, *fragments: str) -> list[object]:
    files = [word for name in ("test.yaml", *fragments) for word in ("--config", CONFIGS / name)]
    quiet = ["--trainer.accelerator", "cpu", "--trainer.enable_progress_bar", "false"]
    return ["test", *files, "--trainer.default_root_dir", root, *quiet]


@pytest.mark.slow
def test_the_miniature_is_measured_scored_and_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [*asking(tmp_path / "run", "suites/miniature.yaml"), "--data.limit", 3]
    assert rod(*words) == 0
    cells = results(tmp_path / "run")
    assert {cell.split()[0] for cell in cells} == {
        *("maths", "benign", "benign_wrapped", "forbidden", "wrapped_seen", "wrapped_unseen", "perplexity")
    }
    assert all(cell["records"] == 3 for cell in cells.values())
    # The embedded model does sums, answers and refuses.
    assert cells["maths system2"]["metrics"]["accuracy"]["value"] >= 2 / 3
    assert cells["benign"]["metrics"]["compliance/refusal"]["value"] >= 2 / 3
    assert cells["forbidden"]["metrics"]["asr/refusal"]["value"] <= 1 / 3
    assert cells["perplexity"]["metrics"]["perplexity"]["value"] < 2
    before = (tmp_path / "run" / "predictions.jsonl").read_bytes()
    assert rod(*words) == 0  # the same command goes on where it was: nothing is left
    assert (tmp_path / "run" / "predictions.jsonl").read_bytes() == before

    short = [*asking(tmp_path / "short", "suites/miniature.yaml"), "--data.limit", 3]
    assert rod(*short, "--data.max_new_tokens", 5) == 0
    assert all(p["n_tokens"] <= 5 for p in predictions(tmp_path / "short").values())
    assert rod("compare", tmp_path / "run", tmp_path / "short", "--output", tmp_path / "numbers.json") == 0
    rows = json.loads((tmp_path / "numbers.json").read_text())
    compared = {(row["suite"], row["system"], row["metric"]): row for row in rows}
    cut = compared["maths", "system2", "tokens"]
    assert cut["second_value"] == 5 < cut["first_value"]
    assert compared["perplexity", "plain", "nll"]["difference"] == 0

    judge = json.dumps([{"class_path": "RefusalPhrases", "init_args": {"phrases": "gcg"}}])
    assert (
        rod("score", tmp_path / "run" / "predictions.jsonl", "--output", tmp_path / "gcg", "--evaluate.judges", judge)
        == 0
    )
    assert "asr/phrases" in results(tmp_path / "gcg")["forbidden"]["metrics"]
    capsys.readouterr()


@pytest.mark.slow
def test_another_configuration_does_not_go_on_in_the_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [*asking(tmp_path, "suites/miniature.yaml"), "--data.max_new_tokens", 2]
    assert rod(*words, "--data.limit", 1) == 0
    for other, reason in (("limit", "another configuration"), ("seed", r"other settings (seed: 0 there, 2 now)")):
        assert rod(*words, "--data.limit", 1, f"--data.{other}", 2) == 2
        assert reason in capsys.readouterr().err
    assert rod(*words, "--data.limit", 2, "--overwrite", "true") == 0
    assert all(result["records"] == 2 for result in metrics(tmp_path)["results"])


def test_a_suite_of_one_s_own(tmp_path: Path) -> None:
    """The worked example of the documentation."""
    text = (ROOT / "docs" / "evaluation.md").read_text()
    fragment = next(block for block in text.split("```yaml\n")[1:] if "pets" in block).split("```")[0]
    records = [json.loads(line) for line in next(b for b in text.split("```json\n")[1:]).split("```")[0].splitlines()]
    (tmp_path / "pets.yaml").write_text(fragment)
    given = yaml.safe_load(fragment)["data"]["init_args"]["suites+"][0]
    write(tmp_path / Path(given["source"]["local"]["file"]).name, *records)
    words = [*asking(tmp_path / "run"), "--config", tmp_path / "pets.yaml"]
    assert rod(*words, "--data.folder", tmp_path, "--data.max_new_tokens", 4) == 0
    found = list(predictions(tmp_path / "run").values())
    assert len(found) == len(records)
    assert [(p["gold"], list(p["options"])) for p in found] == [("B", ["hay", "fish"]), ("A", ["seeds", "grass"])]
    assert "\nA. hay\nB. fish" in found[0]["prompt"]


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ([], "data.suites: no suite is given; add a fragment"),
        (
            ["--config", SUITES / "advbench.yaml", "--config", SUITES / "advbench.yaml"],
            "two suites are called 'advbench'",
        ),
        (["--config", SUITES / "sap30.yaml"], "sap30/sap30.jsonl: there is no such file"),
        (["--config", SUITES / "miniature.yaml", "--data.attack_templates", "[none,rot13]"], "rot13"),
        (
            ["--config", SUITES / "miniature.yaml", "--evaluate.baseline", "absent.json"],
            "there is no file 'absent.json'",
        ),
        (["--config", SUITES / "miniature.yaml", "--data.limt", "3"], "did you mean"),
    ],
)
def test_input_that_cannot_be(
    words: list[object],
    reason: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert rod(*asking(tmp_path / "run"), *words) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("rod: error: ")
    assert reason in error
    assert not list((tmp_path / "run").glob("completions*"))


@pytest.mark.slow
def test_every_suite_on_a_real_checkpoint(shared_data: Path, tmp_path: Path) -> None:
    model = tmp_path / "model"
    shutil.copytree(shared_data / "models" / "stories260K", model)
    model.chmod(0o755)
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").chmod(0o644)
    # Abstracts of PubMed are longer than its stories; rotary positions have no end.
    (model / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 8192}))
    names = {path.name for path in SUITES.glob("*.yaml")} - {"miniature.yaml", "attack_templates.yaml"}
    fragments = sorted(f"suites/{name}" for name in names)
    settings = {"folder": shared_data, "limit": 2, "samples": 1, "chat_template": "plain", "max_new_tokens": 3}
    words = [word for key, value in settings.items() for word in (f"--data.{key}", value)]
    words += ["--model.backbone", model]
    assert rod(*asking(tmp_path / "run", *fragments), *words) == 0
    cells = results(tmp_path / "run")
    kinds = Counter(cell["kind"] for cell in cells.values() if not cell["group"])
    assert kinds == {"answers": 7 + 4 * 2 + 4, "safety": 9, "benign": 3, "perplexity": 1}
    assert all(cell["records"] <= 2 and not cell["failures"] for cell in cells.values())
    assert all("asr/phrases" in cell["metrics"] for cell in cells.values() if cell["kind"] == "safety")
    assert all("compliance/phrases" in cell["metrics"] for cell in cells.values() if cell["kind"] == "benign")
    assert all(cell["metrics"]["accuracy"]["n"] for cell in cells.values() if cell["kind"] == "answers")
    # A record that takes no notice of its prompt would give the same text everywhere.
    found = predictions(tmp_path / "run")
    assert len({p["completion"] for p in found.values()}) > 20
    assert rod(*asking(tmp_path / "attacks", "suites/advbench.yaml", "suites/attack_templates.yaml"), *words) == 0
    assert [cell["n"] for cell in results(tmp_path / "attacks").values()] == [2] * 7
