"""Find the runs in folders, and read what each of them says about itself."""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from callbacks.evaluation.report import Result, read_results
from datamodules.errors import InputError
from rod.run_record import CONFIG, DONE, starts_of

MOST = 60
"""Runs on a page; further ones are left out, which the page says."""
KINDS = {
    "fit": "training",
    "validate": "validation",
    "test": "test",
    "predict": "sampling or probing",
    "score": "scored files",
    "filter": "filter of traces",
    "pairs": "training pairs",
    "frontier": "frontier",
    "evidence": "evidence",
}
"""Kind of a run -> what a reader calls it."""
_PASSED_OVER = {"checkpoints", "logs", "model", "wandb", "world"}
_SIGNS = "config.yaml, metrics.json, predictions.jsonl, summary.json, frontier.csv or a filter's *.report.json"


@dataclass(frozen=True)
class Run:
    """A run folder.

    Attributes:
        name: Path without what all runs of the page share.
        folder: The folder.
        kind: A key of `KINDS`.
        finished: False for a run that was stopped.
        config: ``config.yaml``; empty for verbs that write none.
        starts: See `rod.run_record`.
        metrics: ``metrics.json`` without its results.
        results: Results of a test or of scored files.
        problems: What could not be read.
    """

    name: str
    folder: Path
    kind: str
    finished: bool = True
    config: dict[str, Any] = field(default_factory=dict)
    starts: list[dict[str, Any]] = field(default_factory=list)
    metrics: dict[str, Any] = field(default_factory=dict)
    results: list[Result] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    @property
    def seed(self) -> Any:
        """The run's seed; None if it is not known."""
        return self.config.get("seed_everything")

    @property
    def model(self) -> str:
        """The model that was run: its folder or hub id."""
        model = self.config.get("model")
        options = model.get("init_args") if isinstance(model, dict) else None
        named = options.get("backbone") if isinstance(options, dict) else None
        return str(self.metrics.get("model") or named or "")


def find_runs(paths: Sequence[Path]) -> tuple[list[Run], int]:
    """The runs in folders and below them, and how many of them are left out.

    Raises:
        InputError: A folder does not exist or holds no run.
    """
    found: dict[Path, str] = {}
    for path in paths:
        if not path.exists():
            raise InputError(f"{path}: there is no such folder; give folders of runs")
        places = _folders(path.resolve()) if path.is_dir() else []
        own = {place: kind for place in places if (kind := _kind(place))}
        if not own:
            raise InputError(f"{path}: holds no run; a run's folder has {_SIGNS}")
        found |= {place: kind for place, kind in own.items() if place not in found}
    shown = list(found.items())[:MOST]
    shared = os.path.commonpath([place for place, kind in shown if kind != "evidence"] or [shown[0][0]])
    return [_read(place, kind, _name(place, shared)) for place, kind in shown], len(found) - len(shown)


def _folders(top: Path) -> list[Path]:
    """The folder and those below it, in alphabetical order; evidence is told by its first seed."""
    places = []
    for place, folders, _ in os.walk(top):
        seeds = sorted(name for name in folders if name.startswith("seed") and name[4:].isdigit())
        later = set(seeds[1:]) if (Path(place) / "summary.json").is_file() else set()
        folders[:] = sorted(name for name in folders if name[0] != "." and name not in _PASSED_OVER | later)
        places.append(Path(place))
    return places


def _kind(folder: Path) -> str:
    """A key of `KINDS`; empty for a folder that is no run's."""
    if (folder / CONFIG).is_file():
        return _verb(folder)
    if (folder / "metrics.json").is_file() or (folder / "predictions.jsonl").is_file():
        return "score"
    if (folder / "summary.json").is_file():
        return "evidence"
    if (folder / "frontier.csv").is_file():
        return "frontier"
    if any(folder.glob("*.report.json")):
        return "filter"
    return "pairs" if (folder / "report.json").is_file() and (folder / "pairs.train.jsonl").is_file() else ""


def _verb(folder: Path) -> str:
    """The verb of a run with a configuration: as recorded, else told by its keys."""
    starts = starts_of(folder)
    if starts and starts[-1].get("verb") in KINDS:
        return str(starts[-1]["verb"])
    if (folder / "checkpoints").is_dir():
        return "fit"
    keys = _config(folder, [])
    marks = {"evaluate": "test", "recovery_minutes": "fit", "return_predictions": "predict", "trainer": "validate"}
    return next((verb for key, verb in marks.items() if key in keys), "")


def _config(folder: Path, problems: list[str]) -> dict[str, Any]:
    if not (folder / CONFIG).is_file():
        return {}
    try:
        values = yaml.safe_load((folder / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        problems.append(f"config.yaml cannot be read: {' '.join(str(error).split())[:200]}")
        return {"trainer": {}}
    return values if isinstance(values, dict) else {}


def _read(folder: Path, kind: str, name: str) -> Run:
    problems: list[str] = []
    config = _config(folder, problems)
    metrics, results = {}, []
    if (folder / "metrics.json").is_file():
        try:
            results = read_results(folder / "metrics.json")
            metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
            metrics.pop("results")
        except InputError as error:
            problems.append(str(error))
    finished = (folder / DONE).is_file() or not (folder / CONFIG).is_file()
    return Run(name, folder, kind, finished, config, starts_of(folder), metrics, results, problems)


def _name(folder: Path, shared: str) -> str:
    inside = str(folder) != shared and folder.is_relative_to(shared)
    return str(folder.relative_to(shared)) if inside else folder.name
