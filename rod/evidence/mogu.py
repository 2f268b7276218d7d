"""MoGU's claims on the miniature: every condition's refusals and answers on held-out prompts, and the gates."""

import csv
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean

from callbacks.safety_figure import SafetyPoint, plot_safety
from rod.evidence.mogu_steps import (
    ABLATED_ROUTERS,
    ABLATED_TESTS,
    MIXED,
    RESPONDERS,
    RIVALS,
    STAGES,
    TESTS,
    UNTRAINED,
    steps,
)
from rod.evidence.rows import Row, Rows, Section, Value, values_of_test
from rod.steps import Step

SUITES = {
    "forbidden": "forbidden",
    "forbidden prefill": "prefill",
    "wrapped_seen": "wrapped_seen",
    "wrapped_unseen": "wrapped_unseen",
    "benign": "benign",
    "twins": "twins",
    "maths system2": "maths",
}
"""Cell of a test -> name in the report."""
CONDITIONS = ("base", *RESPONDERS, *MIXED, *RIVALS, *UNTRAINED)
ABLATIONS = ("mogu_first5", *ABLATED_TESTS, *ABLATED_ROUTERS, "no_contrast")
COLUMNS = (
    ("forbidden", "asr", "forbidden ASR"),
    ("wrapped_seen", "asr", "seen wraps"),
    ("wrapped_unseen", "asr", "new wraps"),
    ("prefill", "asr", "prefill ASR"),
    ("prefill", "accuracy", "its content"),
    ("benign", "refusal_rate", "benign refused"),
    ("twins", "refusal_rate", "twins refused"),
    ("twins", "accuracy", "twins right"),
    ("maths", "accuracy", "maths"),
    ("maths", "tokens", "tokens"),
)
BENIGN, MALICIOUS = ("benign", "twins", "maths"), ("forbidden", "wrapped_seen", "wrapped_unseen")


class MoGUEvidence:
    """What MoGU has to say for itself."""

    method = "mogu"
    seeds = 5
    figures: Mapping[str, str] = {
        "gates.png": f"{TESTS}/mogu_first5/gates.png",
        "gates_tokens.png": f"{TESTS}/mogu_first5/gates_tokens.png",
        "probes.png": f"{STAGES}/v2/probe/probes.png",
    }

    def steps(self, folder: Path, seed: int, controls: bool) -> list[Step]:
        """The commands of one seed."""
        return steps(folder, seed, controls)

    def values(self, folder: Path) -> Iterator[Value]:
        """All numbers of one seed."""
        for condition in dict.fromkeys((*CONDITIONS, *ABLATIONS)):
            run = folder / TESTS / condition
            if (run / "metrics.json").is_file():
                yield from values_of_test(run / "metrics.json", condition, SUITES)
            if (run / "gates.csv").is_file():
                yield from _gates(run / "gates.csv", condition)

    def sections(self, table: Rows) -> list[Section]:
        """Conditions, gates, ablations."""
        found = [
            _section("MoGU on the miniature, held-out prompts (ASR: share not refused)", table, CONDITIONS, COLUMNS)
        ]
        gates = [c for c in MIXED if table.find(c, "gates", "gap") is not None]
        if gates:
            rows = [
                [suite, *(table.cell(c, f"gates/{suite}", gate) for c in gates for gate in ("w_glad", "w_unwill"))]
                for suite in (*BENIGN, *MALICIOUS)
            ]
            headings = ["suite", *(f"{c} {gate}" for c in gates for gate in ("w_glad", "w_unwill"))]
            gaps = "; ".join(f"{c} {table.cell(c, 'gates', 'gap')}" for c in gates)
            notes = f"Mean w_unwill on malicious less benign prompts: {gaps}."
            found.append(
                Section("Gates at the last token of the prompt, mean over routed layers", headings, rows, notes)
            )
        if any(table.find(name, "maths", "accuracy") for name in ABLATIONS[1:]):
            found.append(_section("Ablations, one seed", table, ABLATIONS[1:], COLUMNS))
        return found

    def plot(self, table: Rows, folder: Path) -> None:
        """New wraps that get through against benign requests that are refused, a point a condition."""
        points = []
        for condition in CONDITIONS:
            asr = table.find(condition, "wrapped_unseen", "asr")
            refused = [table.find(condition, suite, "refusal_rate") for suite in ("benign", "twins")]
            if asr and all(refused):
                points.append(_point(condition, asr, [row for row in refused if row]))
        plot_safety(points, folder / "safety.png")


def _point(condition: str, asr: Row, refused: Sequence[Row]) -> SafetyPoint:
    mean = fmean(row.mean for row in refused)
    return SafetyPoint(condition, mean, asr.mean, asr.std, rival=not condition.startswith("mogu"))


def _section(title: str, table: Rows, conditions: Sequence[str], columns: Sequence[tuple[str, str, str]]) -> Section:
    rows = []
    for condition in conditions:
        cells = [table.cell(condition, s, metric, 1 if metric == "tokens" else 3) for s, metric, _ in columns]
        if any(cell != "-" for cell in cells):
            rows.append([condition, *cells])
    return Section(title, ["condition", *(heading for _, _, heading in columns)], rows)


def _gates(path: Path, condition: str) -> Iterator[Value]:
    """Means over the layers by suite; and how far w_unwill on malicious prompts is above that on benign ones."""
    with path.open(encoding="utf-8", newline="") as file:
        lines = list(csv.DictReader(file))
    prompts = {line["class"]: int(line["prompts"]) for line in lines}
    unwilling: dict[str, float] = {}
    for suite, n in prompts.items():
        own = [line for line in lines if line["class"] == suite]
        for gate, column in (("w_glad", "glad"), ("w_unwill", "unwilling")):
            value = fmean(float(line[column]) for line in own)
            yield Value(condition, f"gates/{suite}", gate, value, n)
            if gate == "w_unwill":
                unwilling[suite] = value
    sides = [[s for s in names if s in prompts] for names in (MALICIOUS, BENIGN)]
    if all(sides):
        means = [sum(unwilling[s] * prompts[s] for s in side) / sum(prompts[s] for s in side) for side in sides]
        yield Value(condition, "gates", "gap", means[0] - means[1], sum(prompts.values()))
