import json
import shutil
from pathlib import Path

import pytest

from rod.report.doubts import doubts_of
from rod.report.page import render
from rod.report.runs import find_runs
from tests.rod.report.runs import answers, requests, save_fit, save_test, texts


def test_a_fit_without_curves_is_warned_of(tmp_path: Path) -> None:
    folder = save_fit(tmp_path / "fit")
    said = "The fit has no logs in its folder"
    assert said not in [doubt.text[: len(said)] for doubt in doubts_of(find_runs([folder])[0])]
    shutil.rmtree(folder / "logs")
    assert said in [doubt.text[: len(said)] for doubt in doubts_of(find_runs([folder])[0])]


@pytest.mark.parametrize("verb", ["test", "score"])
def test_a_folder_that_has_lost_files_is_warned_of(tmp_path: Path, verb: str) -> None:
    folder = save_test(tmp_path / "a", [*answers("10" * 60), *requests("01" * 60)])
    if verb == "score":
        for name in ("config.yaml", "run.json", "done"):
            (folder / name).unlink()
    lost = ("is missing", "middle of a line", "it was cut")
    assert not [text for text in texts([folder]) if any(word in text for word in lost)]
    predictions, whole = folder / "predictions.jsonl", (folder / "predictions.jsonl").read_bytes()
    predictions.write_bytes(whole[:-10])
    assert any("predictions.jsonl ends in the middle of a line" in text for text in texts([folder]))
    predictions.write_bytes(b"".join(whole.splitlines(keepends=True)[:-3]))
    assert any("predictions.jsonl has 237 completions, and 240 were measured" in text for text in texts([folder]))
    predictions.unlink()
    assert any("predictions.jsonl is missing" in text for text in texts([folder]))
    predictions.write_bytes(whole)
    (folder / "metrics.json").unlink()
    assert any("metrics.json is missing, so there are no numbers" in text for text in texts([folder]))
    assert "Nothing to warn of" not in render(*find_runs([folder]))


def test_seeds_that_are_missing(tmp_path: Path) -> None:
    rows = [{"method": "m", "condition": name, "seeds": seeds} for name, seeds in (("base", 3), ("tuned", 2))]
    rows.append({"method": "n", "condition": "base", "seeds": 1})
    (tmp_path / "summary.json").write_text(json.dumps(rows))
    assert texts([tmp_path]) == [
        f"{tmp_path.name} One seed of n, so the spread over seeds is not known.",
        f"{tmp_path.name} m: 3 seeds, but fewer of tuned (2).",
    ]
