"""Results are read back from ``metrics.json``, also from files of earlier versions."""

import json
from pathlib import Path

from callbacks.evaluation.report import Cell, metrics_json, read_results, results_of
from datamodules.suites.predictions import Prediction


def test_results_of_earlier_versions_are_read(tmp_path: Path) -> None:
    made = [Prediction("requests/1|plain|base64|s0", "No.", suite="requests", kind="safety", attack_template="base64")]
    content = json.loads(metrics_json(results_of(made), {"model": "m"}))
    path = tmp_path / "metrics.json"
    path.write_text(json.dumps(content))
    (found,) = read_results(path)
    for entry in content["results"]:
        entry["wrap"] = entry.pop("attack_template")
    path.write_text(json.dumps(content))
    assert read_results(path) == [found]
    assert found.cell == Cell("requests", attack_template="base64")
