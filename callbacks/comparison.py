"""Test runs held against each other, record by record."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich import box
from rich.table import Table

from callbacks.evaluation_report import Cell
from datamodules.errors import InputError
from datamodules.records import Prediction, read_records
from llm_modules.paired import difference

Columns = Mapping[str, Mapping[str, float]]
"""Metric -> question id -> its value, the mean over samples."""


@dataclass(frozen=True)
class Comparison:
    """One metric of one cell in two runs; ``difference`` is that of the second from the first, see `Difference`."""

    first: str
    second: str
    suite: str
    system: str
    wrap: str
    metric: str
    records: int
    first_value: float
    second_value: float
    difference: float
    low: float
    high: float
    p: float


def read_run(run: Path) -> dict[Cell, Columns]:
    """The values of a run by cell.

    Args:
        run: Its folder, or its ``predictions.jsonl``.

    Raises:
        InputError: There are no predictions, or broken ones.
    """
    path = run / "predictions.jsonl" if run.is_dir() else run
    if not path.is_file():
        raise InputError(f"{run}: no predictions.jsonl; give the folder of a test run that came to its end")
    cells: dict[Cell, list[Prediction]] = {}
    for p in read_records(path, Prediction, strict=True):
        cells.setdefault(Cell(p.suite, p.system, p.wrap), []).append(p)
    return {cell: _columns(predictions) for cell, predictions in cells.items()}


def compare_runs(
    first: str, mine: Mapping[Cell, Columns], second: str, theirs: Mapping[Cell, Columns]
) -> list[Comparison]:
    """Every metric that both runs have, in every cell.

    Raises:
        InputError: The runs are over different suites or records.
    """
    if mine.keys() != theirs.keys():
        only = ", ".join(f"'{cell}'" for cell in sorted(mine.keys() ^ theirs.keys()))
        raise InputError(f"{first} and {second}: {only} is in one of them only; compare runs of the same suites")
    return [
        _compared(first, second, cell, metric, columns[metric], theirs[cell][metric])
        for cell, columns in mine.items()
        for metric in columns
        if metric in theirs[cell]
    ]


def table_of(comparisons: Sequence[Comparison]) -> Table:
    """The comparisons for people."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for heading in ("run", "suite", "metric", "records", "first", "second", "difference", "95 %", "p"):
        table.add_column(heading, justify="left" if heading in ("run", "suite", "metric") else "right", no_wrap=True)
    for c in comparisons:
        factor, unit = (1, "") if c.metric == "tokens" else (100, " %")
        table.add_row(
            c.second,
            str(Cell(c.suite, c.system, c.wrap)),
            c.metric + unit,
            f"{c.records}",
            f"{factor * c.first_value:.1f}",
            f"{factor * c.second_value:.1f}",
            f"{factor * c.difference:+.1f}",
            f"{factor * c.low:+.1f} to {factor * c.high:+.1f}",
            f"{c.p:.3g}",
        )
    return table


def _columns(predictions: Sequence[Prediction]) -> Columns:
    values: dict[str, dict[str, list[float]]] = {}

    def take(metric: str, value: Callable[[Prediction], float | bool | None]) -> None:
        for p in predictions:
            if (known := value(p)) is not None:
                values.setdefault(metric, {}).setdefault(p.question_id or p.id, []).append(float(known))

    take("accuracy", lambda p: p.correct)
    take("tokens", lambda p: p.n_tokens)
    name = "asr" if predictions[0].kind == "safety" else "compliance"
    for judge in dict.fromkeys(v.judge for p in predictions for v in p.verdicts):
        said = {p.id: v.complied for p in predictions for v in p.verdicts if v.judge == judge}
        take(f"{name}/{judge}", lambda p, said=said: said.get(p.id))  # type: ignore[misc]
    return {metric: {key: math.fsum(v) / len(v) for key, v in found.items()} for metric, found in values.items()}


def _compared(
    first: str, second: str, cell: Cell, metric: str, a: Mapping[str, float], b: Mapping[str, float]
) -> Comparison:
    if a.keys() != b.keys():
        raise InputError(
            f"{first} and {second}: '{cell}' has different records ({len(a.keys() - b.keys())} only in the first, "
            f"{len(b.keys() - a.keys())} only in the second, such as '{min(a.keys() ^ b.keys())}'); compare runs over "
            "the same ones"
        )
    order = sorted(a)
    found = difference([a[key] for key in order], [b[key] for key in order])
    mine, theirs = (math.fsum(values.values()) / len(values) for values in (a, b))
    return Comparison(
        first,
        second,
        cell.suite,
        cell.system,
        cell.wrap,
        metric,
        len(order),
        mine,
        theirs,
        found.value,
        found.low,
        found.high,
        found.p,
    )
