"""The tables of a run, from the files in its folder."""

import csv
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from callbacks.evaluation.table import judge_notes, result_columns
from rod.report.runs import Run

_TITLES = {
    "strength_sweep.csv": "Strength sweep: length and accuracy at each steering strength",
    "direction.csv": "The direction, layer by layer",
    "gates.csv": "Mean gates by class of prompts and layer",
    "probes.csv": "Probes by layer",
    "robustness.csv": "Drop when a module is perturbed by itself",
    "frontier.csv": "Accuracy against tokens",
    "budgets.csv": "Accuracy within token budgets",
    "groups.csv": "Groups of questions",
    "swap.csv": "Refusals after modules are restored",
}
_LONG = 24
"""Rows from which a table is folded."""
_MOST = 400
"""Rows of a table that are shown."""


@dataclass(frozen=True)
class Table:
    """A table of texts; ``names`` columns at its left are names, the others numbers.

    One that is ``minor`` opens at a click, as do long ones.
    """

    title: str
    headings: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""
    names: int = 1
    minor: bool = False

    @property
    def folded(self) -> bool:
        """Whether the table opens at a click."""
        return self.minor or len(self.rows) > _LONG


def tables_of(run: Run) -> list[Table]:
    """All tables of a run, the most telling first."""
    folder = run.folder
    found = []
    if run.results:
        headings, rows = result_columns(run.results)
        found.append(Table("Results", headings, rows, " ".join(judge_notes(run.results))))
        found += _perplexities(run)
    for path in sorted(folder.glob("*.md")) if run.kind == "evidence" else ():
        found += _markdown(path.read_text(encoding="utf-8", errors="replace"))
    found += [_keys(path) for path in sorted([*folder.glob("*.report.json"), *folder.glob("report.json")])]
    found += [_latency(path) for path in folder.glob("latency.json")]
    if run.kind == "fit":
        found += _history(folder)
    found += [_csv(folder / name, title) for name, title in _TITLES.items() if (folder / name).is_file()]
    return [table for table in found if table.rows]


def history(folder: Path) -> dict[str, list[tuple[float, float]]]:
    """What a fit logged to its CSV files: (step, value) of each metric."""
    found: dict[str, list[tuple[float, float]]] = {}
    for file in sorted(folder.glob("logs/version_*/metrics.csv"), key=lambda path: path.stat().st_mtime):
        with file.open(encoding="utf-8", errors="replace", newline="") as lines:
            for row in csv.DictReader(lines):
                step = _number(row.pop("step", None))
                for key, text in row.items():
                    value = _number(text)
                    if step is not None and value is not None and key != "epoch":
                        found.setdefault(str(key), []).append((step, value))
    return found


def reason_of(run: Run) -> str:
    """Why a calibration chose its strength; empty for other runs."""
    path = run.folder / "calibration.yaml"
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8")) if path.is_file() else None
    except (OSError, ValueError, yaml.YAMLError):
        return ""
    return str(values.get("reason") or "") if isinstance(values, dict) else ""


def _perplexities(run: Run) -> list[Table]:
    values = [(str(r.cell), r.value("perplexity"), r.n) for r in run.results if r.kind == "perplexity"]
    rows = [[name, f"{value:.3f}", f"{n:,}"] for name, value, n in values if value is not None]
    return [Table("Perplexity", ["suite", "perplexity", "responses"], rows)] if rows else []


def _history(folder: Path) -> list[Table]:
    rows = [
        [key, f"{points[0][1]:.4g}", f"{points[-1][1]:.4g}", f"{points[-1][0]:.0f}"]
        for key, points in sorted(history(folder).items())
    ]
    return [Table("Logged by the run", ["metric", "first", "last", "step of the last"], rows, minor=True)]


def _csv(path: Path, title: str) -> Table:
    with path.open(encoding="utf-8", errors="replace", newline="") as file:
        lines = [row for row in csv.reader(file) if row]
    if not lines:
        return Table(title, [], [])
    rows = [[_short(cell) for cell in row] for row in lines[1 : _MOST + 1]]
    left_out = f"{len(lines) - 1 - _MOST:,} further rows are in {path.name}." if len(lines) > _MOST + 1 else ""
    return Table(title, lines[0], rows, left_out, minor=len(rows) > 8)


def _keys(path: Path) -> Table:
    """A report of a filter or of pairs."""
    rows: list[list[str]] = []

    def take(value: Any, key: str) -> None:
        if isinstance(value, dict):
            for name, own in value.items():
                take(own, f"{key}: {name}".removeprefix(": "))
        else:
            rows.append([key.replace("_", " "), _short(value)])

    take(read_json(path), "")
    name = path.name.removesuffix(".json").removesuffix(".report")
    return Table("Counts" if name == "report" else f"Counts: {name}", ["what", "value"], rows)


def _latency(path: Path) -> Table:
    values = read_json(path)
    rows = values if isinstance(values, list) else [values]
    rows = [row for row in rows if isinstance(row, dict)]
    flat = [{key: value for key, value in row.items() if not isinstance(value, dict | list)} for row in rows]
    headings = list(dict.fromkeys(key for row in flat for key in row))
    return Table("Time of an answer", headings, [[_short(row.get(key, "")) for key in headings] for row in flat])


def _markdown(text: str) -> list[Table]:
    """The tables of a page of evidence, under their headings."""
    found: list[Table] = []
    title, block = "", list[list[str]]()
    for line in [*text.splitlines(), ""]:
        if line.startswith("|"):
            block.append([cell.strip() for cell in line.strip().strip("|").split("|")])
            continue
        if len(block) > 2:
            found.append(Table(title, block[0], block[2:]))
        block = []
        if line.startswith("#"):
            title = line.lstrip("# ")
    return found


def read_json(path: Path) -> Any:
    """The values of a JSON file; empty if it cannot be read."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def _number(text: Any) -> float | None:
    try:
        value = float(text)
    except (TypeError, ValueError):
        return None
    return value if math.isfinite(value) else None


def _short(value: Any) -> str:
    """A number with at most four digits after the point, anything else as it is."""
    text = str(value)
    number = _number(text)
    if number is None or number == int(number) or isinstance(value, bool):
        return text
    return f"{number:.4f}".rstrip("0") if abs(number) >= 0.001 else f"{number:.3g}"
