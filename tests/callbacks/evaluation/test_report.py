"""Results are read back from ``metrics.json``, also from files of earlier versions."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from callbacks.evaluation.report import Cell, metrics_json, read_results, results_of
from datamodules.errors import InputError
from datamodules.suites.predictions import Prediction


def test_results_of_earlier_versions_are_read(tmp_path: Path) -> None:
    made = [Prediction("requests/1|plain|base64|s0", "No.", suite="requests", kind="safety", attack_template="base64")]
    content = json.loads(metrics_json(results_of(made), {"model": "m"}))
    path = tmp_path / "metrics.json"
    path.write_text(json.dumps(content))
    (found,) = read_results(path)
    for entry in content["results"]:
        entry["wrap"] = entry.pop("attack_template")
        entry["metrics"] = {"accuracy/box": {}, "tokens/thinking": {}, "agreement/a~b": {}, "asr/classifier": {}}
    found = replace(
        found, metrics={name: {} for name in ("accuracy_box", "tokens_thinking", "agreement/a_vs_b", "asr/classifier")}
    )
    path.write_text(json.dumps(content))
    assert read_results(path) == [found]
    assert found.cell == Cell("requests", attack_template="base64")


def test_numbers_in_place_of_metrics_are_no_metrics_json(tmp_path: Path) -> None:
    path = tmp_path / "metrics.json"
    path.write_text(json.dumps({"results": [{"suite": "a", "metrics": {"accuracy": 5}}]}))
    with pytest.raises(InputError, match=r"metrics\.json: not a metrics\.json of a test run"):
        read_results(path)
