"""Files of test runs that were not run."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path


def result(
    suite: str, attack_template: str = "none", *, system: str = "plain", metrics: Mapping[str, float]
) -> dict[str, object]:
    """A cell of a ``metrics.json``."""
    return {
        "suite": suite,
        "system": system,
        "attack_template": attack_template,
        "group": "",
        "kind": "",
        "n": 10,
        "records": 10,
        "fingerprint": "",
        "metrics": {name: {"value": value} for name, value in metrics.items()},
        "failures": {},
        "by_sample": [],
    }


def write_results(path: Path, results: Sequence[dict[str, object]]) -> None:
    """Write a ``metrics.json``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"results": results}))
