"""Paired comparisons of the tests on a page."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from callbacks.evaluation.comparison import Comparison, compare_runs, comparison_columns, doubts_of, read_run
from callbacks.evaluation.conditions import Conditions, answers_by_suite, read_conditions
from callbacks.evaluation.frontier import points_of
from callbacks.evaluation.frontier_figures import plot_frontier
from datamodules.errors import InputError
from rod.report.difference_figure import plot_differences
from rod.report.doubts import groups_of
from rod.report.figures import Picture, picture
from rod.report.runs import Run
from rod.report.settings import differing
from rod.report.tables import Table

_WHOLE = 64 * 2**20
"""Bytes of a ``predictions.jsonl`` up to which the page reads it whole."""


@dataclass(frozen=True)
class Group:
    """Runs on the same suites, each held against the first.

    Attributes:
        runs: Their names.
        tables: The differences, and the settings that differ.
        pictures: Differences with their intervals, and accuracy against tokens.
        notes: What was not compared, and why.
        doubts: Differences that are too small to claim.
    """

    runs: Sequence[str]
    tables: Sequence[Table] = ()
    pictures: Sequence[Picture] = ()
    notes: Sequence[str] = ()
    doubts: Sequence[str] = ()


def comparisons_of(runs: Sequence[Run]) -> list[Group]:
    """Hold the tests of each set of suites against the first of them."""
    groups = groups_of(runs)
    found = [_compared(group) for group in groups if len(group) > 1]
    if len(groups) > 1 and not found:
        names = "; ".join(f"{group[0].name}: {', '.join(_suites(group[0]))}" for group in groups)
        found.append(Group([], notes=[f"No two runs have the same suites, so nothing is compared. {names}."]))
    return found


def _compared(runs: Sequence[Run]) -> Group:
    notes: list[str] = []
    read = {}
    for run in runs:
        path = run.folder / "predictions.jsonl"
        if path.is_file() and path.stat().st_size > _WHOLE:
            size = f"{path.stat().st_size / 2**20:,.0f} MiB"
            notes.append(f"{run.name}: its predictions are {size} and not compared here; use rod compare.")
            continue
        try:
            read[run.name] = run, read_run(run.folder)
        except InputError as error:
            notes.append(str(error))
    comparisons: list[Comparison] = []
    for number, (name, (_, parts)) in enumerate(read.items()):
        if number:
            first, (_, mine) = next(iter(read.items()))
            try:
                comparisons += compare_runs(first, mine, name, parts)
            except InputError as error:
                notes.append(str(error))
    names = [run.name for run in runs]
    other = differing(runs) if all(run.config for run in runs) else []
    settings = [[key, *(value[:_VALUE] for value in values)] for key, values in other[:_SETTINGS]]
    told = f"{len(other) - _SETTINGS} further settings differ." if len(other) > _SETTINGS else ""
    tables = [Table("Settings that differ", ["setting", *names], settings, told, 99, minor=True)] if settings else []
    if not comparisons:
        return Group(names, tables, notes=notes)
    headings, rows = comparison_columns(comparisons)
    table = Table(f"Differences from {comparisons[0].first}, paired by question", headings, rows, _ABOUT, names=3)
    with tempfile.TemporaryDirectory() as folder:
        pictures = _pictures(comparisons, [run for run, _ in read.values()], Path(folder))
    return Group(names, [table, *tables], pictures, notes, doubts_of(comparisons))


_SETTINGS, _VALUE = 40, 200
"""Settings that a table shows, and characters of a value."""
_TOLD = 12
"""Numbers of a figure that are told to those who do not see it."""
_ABOUT = (
    "The interval is 95 %, over questions. p is McNemar's exact test for single right or wrong answers, else a paired "
    "bootstrap. detectable: the smallest difference that so many questions show with a probability of 80 %; fewer than "
    "six show none."
)


def _pictures(comparisons: Sequence[Comparison], runs: Sequence[Run], folder: Path) -> list[Picture]:
    names = [run.name for run in runs]
    plot_differences(comparisons, names, folder / "differences.svg")
    told = (
        f"Difference of each run from {comparisons[0].first} with its 95 % interval, by suite and metric. Filled: the "
        "interval does not hold 0."
    )
    found = [picture(folder / "differences.svg", f"{told} {_in_words(comparisons)}", told)]
    conditions: Conditions = {}
    owners: dict[str, str] = {}
    strengths: dict[str, tuple[str, float]] = {}
    for run in runs:
        try:
            own = read_conditions(run.folder, run.name)
        except InputError:  # nothing with a gold answer, or no token counts
            return found
        conditions |= own.conditions
        owners |= dict.fromkeys(own.conditions, run.name)
        strengths |= own.strengths
    base = next(iter(conditions))
    points = points_of(answers_by_suite(conditions), base)
    places = {condition: names.index(owner) for condition, owner in owners.items()}
    plot_frontier(points, base, folder / "frontier.svg", strengths, places)
    told = "Accuracy against mean tokens, with 95 % intervals. Up and to the left is better; dashed: the Pareto front."
    numbers = [f"{p.condition}, {p.suite}: {p.accuracy:.1%} with {p.tokens:.1f} tokens" for p in points]
    return [*found, picture(folder / "frontier.svg", f"{told} {_listed(numbers)}", told)]


def _in_words(comparisons: Sequence[Comparison]) -> str:
    """The differences whose interval does not hold 0, or that there are none."""
    headings, rows = comparison_columns([c for c in comparisons if c.low > 0 or c.high < 0])
    at = [headings.index(name) for name in ("run", "suite", "metric", "difference", "95 %")]
    lines = ["{}, {} {}: {} ({})".format(*(row[i] for i in at)) for row in rows]
    return _listed(lines) if lines else "No interval is clear of 0."


def _listed(lines: Sequence[str]) -> str:
    more = f"; and {len(lines) - _TOLD} more in the tables" if len(lines) > _TOLD else ""
    return "; ".join(lines[:_TOLD]) + more + "."


def _suites(run: Run) -> list[str]:
    return list(dict.fromkeys(result.suite for result in run.results))
