"""S³-CoT on the miniature: its commands and controls, and the tables of what they measured."""

import csv
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

from callbacks.evaluation.metrics import aes
from callbacks.evaluation.report import Result, read_results
from rod.evidence.figures import ConditionPoint, plot_accuracy_tokens
from rod.evidence.rows import Rows, Section, Value
from rod.evidence.s3cot import steps as commands
from rod.evidence.s3cot.steps import CONDITIONS, DISTILLED, STAGES, SWEEPS, swept
from rod.steps import Step

DIGITS = {"accuracy": 3, "tokens": 1, "aes": 3}
COLUMNS = [("system1", metric) for metric in ("accuracy", "tokens", "aes")]
COLUMNS += [("system2", metric) for metric in ("accuracy", "tokens")]


class S3CoTEvidence:
    """The evidence of S³-CoT.

    Attributes:
        model: Name of the model in titles.
        suites: Suites of the tests; numbers are means over them.
    """

    method = "s3cot"
    seeds = 3
    model = "the miniature"
    suites: Sequence[str] = ("maths",)
    figures: Mapping[str, str] = {
        "direction.png": f"{STAGES}/1_direction/direction.png",
        "strength_sweep.png": f"{swept('steered')}/strength_sweep.png",
        "stages.png": f"{STAGES}/5_curriculum/tuned/stages.png",
    }
    compared: Sequence[str] = (f"{STAGES}/6_test/base", f"{STAGES}/6_test/tuned")
    files: Sequence[str] = ()

    def steps(self, folder: Path, seed: int, controls: bool) -> list[Step]:
        """The commands of one seed; without controls, the checkpoint is chosen on fewer problems."""
        return commands.steps(folder, seed, controls, [] if controls else ["--data.val_limit", "100"])

    def values(self, folder: Path) -> Iterator[Value]:
        """All numbers of one seed."""
        stages = folder / STAGES
        base = read_systems(stages / "6_test/base/metrics.json", self.suites)
        start = base["system2"]
        yield from _tested("base", "system2", start, start)
        yield from _tested("prompt_only", "system1", base["system1"], start)
        for condition in CONDITIONS:
            path = stages / f"6_test/{condition}/metrics.json"
            if path.is_file():
                for system, numbers in read_systems(path, self.suites).items():
                    yield from _tested(condition, system, numbers, start)
        for name, file in (("filter_gold", "items.report.json"), ("filter_agreement", "items_agreement.report.json")):
            path = stages / "4_filter" / file
            if path.is_file():
                yield from _filtered(name, json.loads(path.read_text(encoding="utf-8")))
        for condition in SWEEPS:
            path = folder / swept(condition) / "strength_sweep.csv"
            if path.is_file():
                yield from _swept(condition, path)

    def sections(self, table: Rows) -> list[Section]:
        """After training, the strength sweep, the filters."""
        headings = ("condition", "System 1 accuracy", "tokens", "AES", "System 2 accuracy", "tokens")
        trained = []
        for condition in ("base", "prompt_only", *CONDITIONS):
            cells = [table.cell(condition, f"maths/{system}", metric, DIGITS[metric]) for system, metric in COLUMNS]
            if any(cell != "-" for cell in cells):
                trained.append([condition, *cells])
        title = f"S³-CoT on {self.model}, held-out problems (AES against the base model's System 2)"
        found = [Section(title, headings, trained)]
        sweep = dict.fromkeys((row.condition, row.suite) for row in table.rows if row.suite.startswith("sweep/"))
        if sweep:
            metrics = ("length_ratio", "accuracy")
            rows = [
                [name, suite.removeprefix("sweep/alpha"), *(table.cell(name, suite, metric) for metric in metrics)]
                for name, suite in sweep
            ]
            found.append(Section("The strength sweep", ("condition", "alpha", "Len-R", "accuracy"), rows))
        filters = [row for row in table.rows if row.suite == "traces"]
        if filters:
            rows = [[row.condition, row.metric, row.text(4)] for row in filters]
            found.append(Section("The filters", ("filter", "measure", "value"), rows))
        return found

    def plot(self, table: Rows, folder: Path) -> None:
        """Accuracy against tokens, with the controls as points."""
        points = []
        for condition in ("base", "prompt_only", *CONDITIONS):
            suite = f"maths/{'system2' if condition in ('base', DISTILLED) else 'system1'}"
            accuracy, tokens = (table.find(condition, suite, metric) for metric in ("accuracy", "tokens"))
            if accuracy and tokens:
                spread = (tokens.std, accuracy.std)
                points.append(ConditionPoint(condition, tokens.mean, accuracy.mean, *spread, condition != "tuned"))
        plot_accuracy_tokens(points, folder / "accuracy_tokens.png")


class Tested(NamedTuple):
    """Accuracy and tokens of one system instruction, means over the suites, and the number of answers behind them."""

    accuracy: float
    tokens: float
    n: int

    @classmethod
    def over(cls, results: Sequence[Result]) -> "Tested":
        """The means over the results of several suites."""
        accuracy, tokens = (fmean(r.value(metric) or 0.0 for r in results) for metric in ("accuracy", "tokens"))
        return cls(accuracy, tokens, sum(r.n for r in results))


def read_systems(path: Path, suites: Sequence[str]) -> dict[str, Tested]:
    """System instruction -> what a test measured on these suites."""
    found: dict[str, list[Result]] = {}
    for result in read_results(path):
        if result.suite in suites:
            found.setdefault(result.system, []).append(result)
    return {system: Tested.over(results) for system, results in found.items()}


def _tested(condition: str, system: str, found: Tested, start: Tested) -> Iterator[Value]:
    score = aes(found.accuracy, found.tokens, start.accuracy, start.tokens)
    for metric, value in (("accuracy", found.accuracy), ("tokens", found.tokens), ("aes", score)):
        yield Value(condition, f"maths/{system}", metric, value, found.n)


def _filtered(name: str, numbers: dict[str, Any]) -> Iterator[Value]:
    for metric in ("kept_share", "precision"):
        if numbers.get(metric) is not None:
            yield Value(name, "traces", metric, numbers[metric], numbers["traces"])


def _swept(condition: str, path: Path) -> Iterator[Value]:
    with path.open(encoding="utf-8", newline="") as file:
        for line in csv.DictReader(file):
            suite = f"sweep/alpha{float(line['alpha']):g}"
            for metric in ("length_ratio", "tokens", "accuracy", "repetition", "truncation"):
                if math.isfinite(float(line[metric])):
                    yield Value(condition, suite, metric, float(line[metric]), int(line["n"]))
