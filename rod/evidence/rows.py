"""Numbers over seeds: a row for each method, condition, suite and metric."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean, stdev
from typing import Protocol

from callbacks.evaluation.report import read_results
from rod.steps import Step

HEADLINES = ("accuracy", "tokens", "aes", "asr", "refusal_rate", "compliance", "perplexity")
"""Metrics of a test that go into the evidence, without the judge's name."""


@dataclass(frozen=True)
class Value:
    """One number of one seed; ``n`` counts the answers behind it."""

    condition: str
    suite: str
    metric: str
    value: float
    n: int


@dataclass(frozen=True)
class Row:
    """A number over seeds: mean, standard deviation (0 for one seed), and ``n`` answers in all."""

    method: str
    condition: str
    suite: str
    metric: str
    mean: float
    std: float
    seeds: int
    n: int

    def text(self, digits: int = 3) -> str:
        """The mean, with the deviation if there are several seeds."""
        spread = f" ± {self.std:.{digits}f}" if self.seeds > 1 else ""
        return f"{self.mean:.{digits}f}{spread}"


@dataclass(frozen=True)
class Section:
    """A table of the report; its first column names conditions or measures.

    A method's first table is printed in the terminal too, as are those that are ``printed``.
    """

    title: str
    headings: Sequence[str]
    cells: Sequence[Sequence[str]]
    notes: str = field(default="")
    printed: bool = False


class Evidence(Protocol):
    """The evidence of one method.

    Attributes:
        method: Name of the method.
        seeds: Number of seeds.
        figures: Name in the published folder -> path in the first seed's folder.
        compared: Test runs in a seed's folder; `rod compare` holds the others against the first.
        files: Published data that it needs, in the folder of ``--real``.
    """

    method: str
    seeds: int
    figures: Mapping[str, str]
    compared: Sequence[str]
    files: Sequence[str]

    def steps(self, folder: Path, seed: int, controls: bool) -> list[Step]:
        """The commands of one seed, run in a folder of the seed's own."""

    def values(self, folder: Path) -> Iterable[Value]:
        """The numbers that the commands of a seed measured."""

    def sections(self, table: "Rows") -> list[Section]:
        """The tables."""

    def plot(self, table: "Rows", folder: Path) -> None:
        """Write the figures over all seeds into a folder."""


class Rows:
    """The rows of one method."""

    def __init__(self, method: str, per_seed: Iterable[Iterable[Value]]) -> None:
        """Take mean and standard deviation (n - 1) of each number over the seeds that measured it."""
        groups: dict[tuple[str, str, str], list[Value]] = {}
        for values in per_seed:
            for value in values:
                groups.setdefault((value.condition, value.suite, value.metric), []).append(value)
        self.rows = [
            Row(
                method,
                *key,
                mean=round(fmean(v.value for v in values), 4),
                std=round(stdev([v.value for v in values]), 4) if len(values) > 1 else 0.0,
                seeds=len(values),
                n=sum(v.n for v in values),
            )
            for key, values in groups.items()
        ]

    def find(self, condition: str, suite: str, metric: str) -> Row | None:
        """The row of a number, None if it was not measured."""
        wanted = (condition, suite, metric)
        return next((r for r in self.rows if (r.condition, r.suite, r.metric) == wanted), None)

    def cell(self, condition: str, suite: str, metric: str, digits: int = 3) -> str:
        """A number for a table, a dash if it was not measured."""
        row = self.find(condition, suite, metric)
        return "-" if row is None else row.text(digits)


def values_of_test(
    metrics_file: Path, condition: str, suites: dict[str, str] | None = None, judge: str | None = None
) -> Iterator[Value]:
    """The numbers of a ``metrics.json``; if there are several judges, of ``judge``, or by default of the first.

    ``suites`` maps names in the run (``maths system1``) to names in the report; others are left out. By default all
    are taken under their own names.
    """
    for result in read_results(metrics_file):
        name = str(result.cell) if suites is None else suites.get(str(result.cell))
        if name is None:
            continue
        seen: set[str] = set()
        for full, numbers in result.metrics.items():
            metric, _, by = full.partition("/")
            value = numbers.get("value")
            if by and judge not in (None, by):
                continue
            if metric in HEADLINES and metric not in seen and value is not None:
                seen.add(metric)
                yield Value(condition, name, metric, value, result.n)
