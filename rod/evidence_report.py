"""What ``rod evidence`` says: one row a (condition, suite, metric), over seeds, as JSON, tables and figures."""

import csv
import json
import math
import platform
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import date
from importlib.metadata import version
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from rich.console import Console
from rich.table import Table

from callbacks.evaluation_report import Result, read_results
from callbacks.figures import SystemPoint, plot_accuracy_tokens
from llm_modules.metrics import aes
from rod.s3cot_evidence import DIALS, STAGES, TRAINED

SUITES = {"system1": "maths/system1", "system2": "maths/system2"}
FIGURES = {
    "direction.png": "1_direction/direction.png",
    "dial.png": "dial/steered/dial.png",
    "stages.png": "5_curriculum/tuned/stages.png",
}
"""Name in the published folder -> figure of seed 0."""


@dataclass(frozen=True)
class Value:
    """One measured number of one seed."""

    condition: str
    suite: str
    metric: str
    value: float
    n: int


@dataclass(frozen=True)
class Row:
    """A number over seeds: its mean, the standard deviation over seeds (0 for one seed), and answers in all."""

    method: str
    condition: str
    suite: str
    metric: str
    mean: float
    std: float
    seeds: int
    n: int


def report(output: Path, seeds: int, publish: Path | None) -> list[Row]:
    """Collect what the seeds measured, print the table, write ``summary.json``, ``tables.md`` and figures.

    Args:
        output: The folder that ``rod evidence`` worked in.
        seeds: How many seeds it ran.
        publish: A second folder for the same files.
    """
    rows = over_seeds([list(values_of(output / f"seed{seed}" / STAGES)) for seed in range(seeds)])
    table = _table(rows)
    Console().print(table)
    for folder in [output, *([publish] if publish else [])]:
        folder.mkdir(parents=True, exist_ok=True)
        _write(folder, rows, output / "seed0" / STAGES)
    Console().print(f"figures and summary.json in {output}", style="dim", highlight=False)
    return rows


def values_of(stages: Path) -> Iterator[Value]:
    """All numbers of one seed."""
    base = _systems(stages / "6_test/base/metrics.json")
    start = base["system2"]
    yield from _tested("base", "system2", start, start)
    yield from _tested("prompt_only", "system1", base["system1"], start)
    for condition in TRAINED:
        path = stages / f"6_test/{condition}/metrics.json"
        if path.is_file():
            for system, numbers in _systems(path).items():
                yield from _tested(condition, system, numbers, start)
    for name, file in (("filter_gold", "items.report.json"), ("filter_agreement", "items_agreement.report.json")):
        path = stages / "4_filter" / file
        if path.is_file():
            yield from _filtered(name, json.loads(path.read_text(encoding="utf-8")))
    for condition in DIALS:
        path = stages / f"dial/{condition}/dial.csv"
        if path.is_file():
            yield from _dial(condition, path)


def over_seeds(per_seed: list[list[Value]]) -> list[Row]:
    """Mean and standard deviation (n - 1) of each number over the seeds that measured it."""
    groups: dict[tuple[str, str, str], list[Value]] = {}
    for values in per_seed:
        for value in values:
            groups.setdefault((value.condition, value.suite, value.metric), []).append(value)
    return [
        Row(
            "s3cot",
            *key,
            mean=round(fmean(v.value for v in values), 4),
            std=round(stdev([v.value for v in values]), 4) if len(values) > 1 else 0.0,
            seeds=len(values),
            n=sum(v.n for v in values),
        )
        for key, values in groups.items()
    ]


def _tested(condition: str, system: str, found: Result, start: Result) -> Iterator[Value]:
    accuracy, tokens = found.value("accuracy") or 0.0, found.value("tokens") or 0.0
    score = aes(accuracy, tokens, start.value("accuracy") or 0.0, start.value("tokens") or 0.0)
    for metric, value in (("accuracy", accuracy), ("tokens", tokens), ("aes", score)):
        yield Value(condition, SUITES[system], metric, value, found.n)


def _filtered(name: str, numbers: dict[str, Any]) -> Iterator[Value]:
    for metric in ("kept_share", "precision"):
        if numbers.get(metric) is not None:
            yield Value(name, "traces", metric, numbers[metric], numbers["traces"])


def _dial(condition: str, path: Path) -> Iterator[Value]:
    with path.open(encoding="utf-8", newline="") as file:
        for line in csv.DictReader(file):
            suite = f"dial/alpha{float(line['alpha']):g}"
            for metric in ("length_ratio", "tokens", "accuracy", "repetition", "truncation"):
                if math.isfinite(float(line[metric])):
                    yield Value(condition, suite, metric, float(line[metric]), int(line["n"]))


def _systems(path: Path) -> dict[str, Result]:
    return {result.system: result for result in read_results(path)}


def _find(rows: list[Row], condition: str, suite: str, metric: str) -> Row | None:
    return next((r for r in rows if (r.condition, r.suite, r.metric) == (condition, suite, metric)), None)


def _cell(row: Row | None, digits: int) -> str:
    if row is None:
        return "-"
    spread = f" ± {row.std:.{digits}f}" if row.seeds > 1 else ""
    return f"{row.mean:.{digits}f}{spread}"


def _cells(rows: list[Row]) -> list[list[str]]:
    """Condition, then accuracy, tokens and AES under System 1, then accuracy and tokens under System 2."""
    found = []
    for condition in ("base", "prompt_only", *TRAINED):
        asked = [("system1", metric) for metric in ("accuracy", "tokens", "aes")]
        asked += [("system2", metric) for metric in ("accuracy", "tokens")]
        cells = [_cell(_find(rows, condition, SUITES[system], metric), DIGITS[metric]) for system, metric in asked]
        if any(cell != "-" for cell in cells):
            found.append([condition, *cells])
    return found


DIGITS = {"accuracy": 3, "tokens": 1, "aes": 3}
HEADINGS = ("condition", "System 1 accuracy", "tokens", "AES", "System 2 accuracy", "tokens")


def _table(rows: list[Row]) -> Table:
    table = Table(title="S³-CoT on the miniature, held-out problems (AES against the base model's System 2)")
    for heading in HEADINGS:
        table.add_column(heading, justify="left" if heading == "condition" else "right")
    for cells in _cells(rows):
        table.add_row(*cells)
    return table


def _write(folder: Path, rows: list[Row], first_seed: Path) -> None:
    made = {name: version(name) for name in ("torch", "lightning", "transformers", "peft")}
    summary = {"date": date.today().isoformat(), "python": platform.python_version(), "versions": made}
    lines = ",\n".join(json.dumps(asdict(row)) for row in rows)
    (folder / "summary.json").write_text(f"[\n{lines}\n]\n", encoding="utf-8")
    (folder / "tables.md").write_text(_markdown(rows, summary), encoding="utf-8")
    points = []
    for condition in ("base", "prompt_only", *TRAINED):
        suite = SUITES["system2" if condition == "base" else "system1"]
        accuracy, tokens = (_find(rows, condition, suite, metric) for metric in ("accuracy", "tokens"))
        if accuracy and tokens:
            spread = (tokens.std, accuracy.std)
            points.append(SystemPoint(condition, tokens.mean, accuracy.mean, *spread, control=condition != "tuned"))
    plot_accuracy_tokens(points, folder / "accuracy_tokens.png")
    for name, source in FIGURES.items():
        if (first_seed / source).is_file():
            shutil.copyfile(first_seed / source, folder / name)


def _markdown(rows: list[Row], summary: dict[str, Any]) -> str:
    versions = ", ".join(f"{name} {number}" for name, number in summary["versions"].items())
    lines = [
        "# Evidence",
        "",
        f"Written by `make evidence` on {summary['date']} (Python {summary['python']}, {versions}).",
        "Mean ± standard deviation over seeds; the miniature, held-out problems.",
        "",
        "## After training",
        "",
        "| " + " | ".join(HEADINGS) + " |",
        "|" + "---|" * len(HEADINGS),
        *("| " + " | ".join(cells) + " |" for cells in _cells(rows)),
        "",
    ]
    dial = [row for row in rows if row.suite.startswith("dial/")]
    if dial:
        lines += ["## The dial", "", "| condition | alpha | Len-R | accuracy |", "|---|---|---|---|"]
        for condition, suite in dict.fromkeys((row.condition, row.suite) for row in dial):
            ratio, accuracy = (_find(rows, condition, suite, metric) for metric in ("length_ratio", "accuracy"))
            alpha = suite.removeprefix("dial/alpha")
            lines.append(f"| {condition} | {alpha} | {_cell(ratio, 3)} | {_cell(accuracy, 3)} |")
        lines.append("")
    filters = [row for row in rows if row.suite == "traces"]
    if filters:
        lines += ["## The filters", "", "| filter | measure | value |", "|---|---|---|"]
        lines += [f"| {row.condition} | {row.metric} | {_cell(row, 4)} |" for row in filters]
        lines.append("")
    return "\n".join(lines)
