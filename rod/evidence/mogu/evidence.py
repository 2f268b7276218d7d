"""MoGU's evidence on the miniature: refusals and answers of every condition on held-out prompts, gates, costs."""

import csv
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean

from safetensors.torch import load_file

from llm_modules.mogu.folder import BASE
from rod.evidence.figures import ConditionPoint, plot_safety
from rod.evidence.mogu.restore import BASE_TASK, TUNED, restoring
from rod.evidence.mogu.steps import (
    ABLATED_ROUTERS,
    ABLATED_TESTS,
    ABLATED_V2,
    BASELINES,
    LATENCIES,
    MIXED,
    RESPONDERS,
    SFT,
    STAGES,
    TESTS,
    UNTRAINED,
    MoGUCommands,
    ablations,
    conditions,
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
    "task": "task",
}
"""Suite and variant of a test -> name in the report."""
CONDITIONS = ("base", *RESPONDERS, *MIXED, *BASELINES, *UNTRAINED)
ABLATIONS = (*ABLATED_TESTS, *ABLATED_ROUTERS, "no_contrast", *ABLATED_V2)
RESTORING = tuple(name for how in TUNED for name in (f"tuned_{how}", f"restored_{how}", f"restored_{how}_m_1"))
RESTORING_SEEDS = 3
"""Seeds of the restoring experiment; ablations have one."""
_ATTACKED = (
    ("forbidden", "asr", "forbidden ASR"),
    ("wrapped_seen", "asr", "seen templates"),
    ("wrapped_unseen", "asr", "new templates"),
    ("wrapped_unseen", "accuracy", "content match"),
)
_PREFILLED = (("prefill", "asr", "prefill ASR"), ("prefill", "accuracy", "content match"))
_ANSWERED = (
    ("benign", "refusal_rate", "benign refused"),
    ("twins", "refusal_rate", "twins refused"),
    ("twins", "accuracy", "twins right"),
    ("maths", "accuracy", "maths"),
)
COLUMNS = (*_ATTACKED, *_PREFILLED, *_ANSWERED, ("maths", "tokens", "tokens"))
RESTORING_COLUMNS = (("task", "accuracy", "task"), *_ATTACKED, *_ANSWERED)
_MOGU, _UNWILLING = (STAGES / "mogu",), (STAGES / "unwilling",)
SAVED: dict[str, Sequence[Path]] = {
    "base": (),
    "glad": (STAGES / "glad",),
    "unwilling": _UNWILLING,
    "mogu_first5": _MOGU,
    "mogu_always": _MOGU,
    "mogu_keep_cache": _MOGU,
    "mogu_v2": (STAGES / "v2/mogu",),
    "safety_sft": (SFT,),
    "safedecoding": _UNWILLING,
    "safedecoding_sft": (SFT,),
    "conditional_steering": (
        STAGES / "refusal_direction/direction.safetensors",
        STAGES / "v2/probe/probes.safetensors",
    ),
    "self_reminder": (),
    "icd": (),
}
"""Condition -> folders or files that it adds to the base."""
CAPTION = (
    "ASR: share of malicious requests that are not refused; content match: share whose answer holds all that the right "
    "answer holds. Without a spread: nothing is drawn, one seed is measured."
)
BENIGN, MALICIOUS = ("benign", "twins", "maths"), ("forbidden", "wrapped_seen", "wrapped_unseen")


class MoGUEvidence:
    """The evidence of MoGU, as `rod.evidence.rows.Evidence` describes it."""

    method = "mogu"
    seeds = 5
    figures: Mapping[str, str] = {
        "gates.png": f"{TESTS}/mogu_first5/gates.png",
        "gates_tokens.png": f"{TESTS}/mogu_first5/gates_tokens.png",
        "probes.png": f"{STAGES}/v2/probe/probes.png",
    }
    compared: Sequence[str] = (f"{TESTS}/base", f"{TESTS}/mogu_first5")
    files: Sequence[str] = ()

    def steps(self, folder: Path, seed: int, controls: bool) -> list[Step]:
        """The commands of one seed."""
        do = MoGUCommands(folder, seed)
        found = conditions(do, controls)
        found += restoring(do) if controls and seed < RESTORING_SEEDS else []
        return found + (ablations(do) if controls and seed == 0 else [])

    def values(self, folder: Path) -> Iterator[Value]:
        """All numbers of one seed, read from its runs."""
        for name in (*CONDITIONS, BASE_TASK, *RESTORING, *ABLATIONS):
            run, condition = folder / TESTS / name, "base" if name == BASE_TASK else name
            if (run / "metrics.json").is_file():
                yield from values_of_test(run / "metrics.json", condition, SUITES)
            if (run / "metrics.json").is_file() and name in SAVED and all((folder / p).exists() for p in SAVED[name]):
                yield Value(condition, "model", "extra_parameters", _parameters(folder / p for p in SAVED[name]), 1)
            if (run / "gates.csv").is_file():
                yield from _gates(run / "gates.csv", condition)
            if (timed := folder / LATENCIES / name / "latency.json").is_file():
                times = json.loads(timed.read_text(encoding="utf-8"))
                for metric in ("first_token_ms", "next_token_ms"):
                    yield Value(condition, "latency", metric, times[metric], times["prompts"])

    def sections(self, table: Rows) -> list[Section]:
        """The tables: conditions, gates, costs, restoring, ablations."""
        found = [_section("MoGU on the miniature, held-out prompts", table, CONDITIONS, COLUMNS, notes=CAPTION)]
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
        if table.find("base", "latency", "first_token_ms") is not None:
            found.append(_costs(table))
        if any(table.find(name, "task", "accuracy") for name in RESTORING):
            title = "Safety restored by MoGUv2 after a benign fine-tune that broke refusals"
            measured = [row.seeds for name in RESTORING if (row := table.find(name, "task", "accuracy"))]
            counts = ", ".join(map(str, sorted(set(measured))))
            notes = f"Seeds measured: {counts}. Task: every line of the answer is in the new words and right."
            found.append(_section(title, table, ("base", *RESTORING), RESTORING_COLUMNS, notes))
        if any(table.find(name, "maths", "accuracy") for name in ABLATIONS):
            found.append(_section("Ablations, one seed", table, ABLATIONS, COLUMNS))
        return found

    def plot(self, table: Rows, folder: Path) -> None:
        """Plot attack success under new templates against refusals of benign requests, one point per condition."""
        points = []
        for condition in CONDITIONS:
            asr = table.find(condition, "wrapped_unseen", "asr")
            refused = [table.find(condition, suite, "refusal_rate") for suite in ("benign", "twins")]
            if asr and all(refused):
                points.append(_point(condition, asr, [row for row in refused if row]))
        plot_safety(points, folder / "safety.png")


def _point(condition: str, asr: Row, refused: Sequence[Row]) -> ConditionPoint:
    mean = fmean(row.mean for row in refused)
    return ConditionPoint(condition, mean, asr.mean, y_error=asr.std, hollow=condition not in MIXED)


def _section(
    title: str, table: Rows, conditions: Sequence[str], columns: Sequence[tuple[str, str, str]], notes: str = ""
) -> Section:
    rows = []
    for condition in conditions:
        cells = [table.cell(condition, s, metric, 1 if metric == "tokens" else 3) for s, metric, _ in columns]
        if any(cell != "-" for cell in cells):
            rows.append([condition, *cells])
    return Section(title, ["condition", *(heading for _, _, heading in columns)], rows, notes)


def _costs(table: Rows) -> Section:
    """Parameters and times of each condition, against the base."""
    rows = []
    for condition in CONDITIONS:
        cells = []
        for metric in ("first_token_ms", "next_token_ms"):
            own, base = (table.find(name, "latency", metric) for name in (condition, "base"))
            cells += [own.text(2), f"{own.mean / base.mean:.2f}x"] if own and base else ["-", "-"]
        extra = table.find(condition, "model", "extra_parameters")
        rows.append([condition, f"{extra.mean:,.0f}" if extra else "-", *cells])
    headings = ["condition", "extra parameters", "first token, ms", "against base", "next tokens, ms", "against base"]
    notes = (
        "One prompt at a time; the median over prompts of all suites in a process, mean over processes, wall time. The "
        "first token of the prompt defences is that of a longer prompt. Extra parameters as saved, routers folded."
    )
    return Section("Costs", headings, rows, notes, printed=True)


def _parameters(paths: Iterable[Path]) -> int:
    """Count the numbers in safetensors files, also inside of folders; the sample of a base does not count."""
    files = [file for path in paths for file in (path.rglob("*.safetensors") if path.is_dir() else [path])]
    return sum(tensor.numel() for file in files if file.name != BASE for tensor in load_file(file).values())


def _gates(path: Path, condition: str) -> Iterator[Value]:
    """Mean gates over the layers by suite, and the gap of w_unwill between malicious and benign prompts."""
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
