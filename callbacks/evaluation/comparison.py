"""Compare test runs record by record."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console

from callbacks.columns import print_columns, printable
from callbacks.evaluation.paired import difference
from callbacks.evaluation.report import Cell
from datamodules.errors import InputError
from datamodules.records.reader import read_records
from datamodules.suites.predictions import Prediction, ScoredResponse

Columns = Mapping[str, Mapping[str, float]]
"""Values by metric and question id; each is the mean over samples."""
_FORMATS = {"tokens": (1, "", 1), "nll": (1, "", 3)}
"""Factor, unit and digits of a metric in the table; all others are rates."""


_SAME_SUITES = (
    "compare runs of the same suites; if they are files that rod score read, give both the same --name and --id"
)
_SAME_RECORDS = (
    "compare runs over the same ones; if they are files that rod score read, give both the same --name, and by --id an "
    "expression with the same value for the same question, such as --id question"
)


@dataclass(frozen=True)
class Part:
    """A run's questions in one cell (text and gold answer by id), their values, and what is independent (`unit`)."""

    questions: Mapping[str, str]
    columns: Columns
    units: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Comparison:
    """One metric of one cell in two runs; ``difference`` is second minus first, see `Difference`.

    ``left_out`` counts records without a value in one of the runs, such as a judge's error; ``records`` counts those
    that are compared. ``detectable`` is the smallest difference that they would show, see `Difference`.
    """

    first: str
    second: str
    suite: str
    system: str
    attack_template: str
    metric: str
    records: int
    left_out: int
    first_value: float
    second_value: float
    difference: float
    low: float
    high: float
    p: float
    detectable: float | None = None

    @property
    def doubtful(self) -> bool:
        """Whether there is a difference, but too few records to show one of its size."""
        is_small = self.detectable is None or abs(self.difference) < self.detectable
        return self.difference != 0 and is_small and self.p >= 0.05


def read_run(run: Path) -> dict[Cell, Part]:
    """Read the values of a run by cell, given its folder or its ``predictions.jsonl``.

    InputError if the predictions are missing or broken.
    """
    path = run / "predictions.jsonl" if run.is_dir() else run
    if not path.is_file():
        raise InputError(f"{run}: has no predictions.jsonl; give the folder of a finished test run")
    cells: dict[Cell, list[Prediction]] = {}
    for p in read_records(path, Prediction, strict=True) if path.stat().st_size else ():
        cells.setdefault(Cell(p.suite, p.system, p.attack_template), []).append(p)
    parts = {
        cell: Part(
            {p.question_id or p.id: f"{p.question}\0{p.gold}" for p in predictions},
            _columns(predictions),
            {p.question_id or p.id: p.unit for p in predictions},
        )
        for cell, predictions in cells.items()
    }
    return parts | _responses(path.with_name("responses.jsonl"))


def compare_runs(first: str, mine: Mapping[Cell, Part], second: str, theirs: Mapping[Cell, Part]) -> list[Comparison]:
    """Compare every metric that both runs have, in every cell.

    InputError if the runs differ in suites or records, or have no metric in common.
    """
    if mine.keys() != theirs.keys():
        only = ", ".join(f"'{cell}'" for cell in sorted(mine.keys() ^ theirs.keys()))
        raise InputError(f"{first} and {second}: only one of them has {only}; {_SAME_SUITES}")
    for cell, part in mine.items():
        _check_questions(f"{first} and {second}: '{cell}'", part.questions, theirs[cell].questions)
    found = [
        _compared(first, second, cell, metric, column, theirs[cell].columns[metric], part.units)
        for cell, part in mine.items()
        for metric, column in part.columns.items()
        if column.keys() & theirs[cell].columns.get(metric, {}).keys()
    ]
    if not found:
        raise InputError(f"{first} and {second}: they have no metric in common; score both in the same way")
    return found


def print_comparisons(comparisons: Sequence[Comparison], console: Console) -> None:
    """Print the comparisons; ``(-2)`` after the records means that 2 have no value in one of the runs."""
    headings, rows = comparison_columns(comparisons)
    print_columns(console, headings, rows, names=3, title=f"against {comparisons[0].first}")
    for line in doubts_of(comparisons):
        console.print(printable(line), style="yellow", highlight=False, markup=False, soft_wrap=True)


def comparison_columns(comparisons: Sequence[Comparison]) -> tuple[list[str], list[list[str]]]:
    """Headings and rows of comparisons; the first three columns are names."""
    headings = ["run", "suite", "metric", "records", "first", "second", "difference", "95 %", "p", "detectable"]
    rows = []
    for c in comparisons:
        factor, unit, digits = _FORMATS.get(c.metric, (100, " %", 1))
        numbers = (
            f"{c.records}" + (f" (-{c.left_out})" if c.left_out else ""),
            f"{factor * c.first_value:.{digits}f}",
            f"{factor * c.second_value:.{digits}f}",
            f"{factor * c.difference:+.{digits}f}",
            f"{factor * c.low:+.{digits}f} to {factor * c.high:+.{digits}f}",
            f"{c.p:.3g}",
            "none" if c.detectable is None else f"{factor * c.detectable:.{digits}f}",
        )
        rows.append([c.second, str(Cell(c.suite, c.system, c.attack_template)), c.metric + unit, *numbers])
    return headings, rows


def doubts_of(comparisons: Sequence[Comparison]) -> list[str]:
    """A line for each difference that is smaller than what so many records can show."""
    lines = []
    for c in comparisons:
        factor, unit, digits = _FORMATS.get(c.metric, (100, " points", 1))
        if c.doubtful:
            reason = (
                "is of so few independent records that none would show"
                if c.detectable is None
                else f"is less than the {factor * c.detectable:.{digits}f} that {c.records:,} records show with a "
                "probability of 80 %"
            )
            lines.append(
                f"{c.second}: {Cell(c.suite, c.system, c.attack_template)} {c.metric}: a difference of "
                f"{factor * c.difference:+.{digits}f}{unit} {reason}; more records are needed to claim it"
            )
    return lines


def _columns(predictions: Sequence[Prediction]) -> Columns:
    values: dict[str, dict[str, list[float]]] = {}

    def take(metric: str, column: Iterable[float | bool | None]) -> None:
        for p, value in zip(predictions, column, strict=True):
            if value is not None:
                values.setdefault(metric, {}).setdefault(p.question_id or p.id, []).append(float(value))

    take("accuracy", (p.right for p in predictions))
    take("tokens", (p.n_tokens for p in predictions))
    name = "asr" if predictions[0].kind == "safety" else "compliance"
    for judge in dict.fromkeys(v.judge for p in predictions for v in p.verdicts):
        said = {p.id: v.complied for p in predictions for v in p.verdicts if v.judge == judge}
        take(f"{name}/{judge}", (said.get(p.id) for p in predictions))
    return {metric: {key: math.fsum(v) / len(v) for key, v in found.items()} for metric, found in values.items()}


def _responses(path: Path) -> dict[Cell, Part]:
    """The values of perplexity suites: nats per token of each response."""
    suites: dict[str, dict[str, float]] = {}
    for r in read_records(path, ScoredResponse, strict=True) if path.is_file() else ():
        suites.setdefault(r.suite, {})[r.id] = r.nll / r.n_tokens
    return {Cell(suite): Part(dict.fromkeys(nlls, ""), {"nll": nlls}) for suite, nlls in suites.items()}


def _check_questions(where: str, mine: Mapping[str, str], theirs: Mapping[str, str]) -> None:
    if mine.keys() != theirs.keys():
        raise InputError(
            f"{where} has different records ({len(mine.keys() - theirs.keys())} only in the first, "
            f"{len(theirs.keys() - mine.keys())} only in the second, such as '{min(mine.keys() ^ theirs.keys())}'); "
            f"{_SAME_RECORDS}"
        )
    if other := [key for key, text in mine.items() if text != theirs[key]]:
        raise InputError(
            f"{where}: {len(other)} records have another question or gold answer, such as '{min(other)}'; "
            "compare runs over the same ones"
        )


def _compared(
    first: str,
    second: str,
    cell: Cell,
    metric: str,
    a: Mapping[str, float],
    b: Mapping[str, float],
    units: Mapping[str, str],
) -> Comparison:
    order = sorted(a.keys() & b.keys())
    clusters = [units.get(key, key) for key in order]
    found = difference([a[key] for key in order], [b[key] for key in order], clusters)
    mine, theirs = (math.fsum(values[key] for key in order) / len(order) for values in (a, b))
    return Comparison(
        first,
        second,
        cell.suite,
        cell.system,
        cell.attack_template,
        metric,
        len(order),
        len(a.keys() ^ b.keys()),
        mine,
        theirs,
        found.value,
        found.low,
        found.high,
        found.p,
        found.detectable,
    )
