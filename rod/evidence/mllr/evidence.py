"""Evidence for ML-LR on the miniature: refusals after a benign fine-tune, by method and control."""

import csv
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean

from llm_modules.mllr.search import overlap
from llm_modules.optim.robust_modules import RobustModules
from rod.evidence.figures import TradeoffPoint, plot_swap, plot_tradeoff
from rod.evidence.mllr import steps as commands
from rod.evidence.rows import Rows, Section, Value, values_of_test
from rod.steps import Step

SUITES = ("forbidden", "wrapped", "task", "benign", "maths")
COLUMNS = {
    "task": "accuracy",
    "forbidden": "asr",
    "wrapped": "asr",
    "benign": "accuracy",
    "maths": "accuracy",
}
HEADINGS = (
    "condition",
    "task accuracy",
    "attacks on forbidden",
    "in known attack templates",
    "benign accuracy",
    "maths accuracy",
)
REASONED = {"maths system1": "maths/system1", "maths system2": "maths/system2"}
NOTES = {
    "maths": "The tuning task is maths in a fixed new wording, word for word. ASR: not refused.",
    "howto": "The tuning task is a new domain of how-to requests, answered word for word. ASR: not refused.",
}


class MLLREvidence:
    """The evidence of ML-LR."""

    method = "mllr"
    seeds = 5
    figures: Mapping[str, str] = {
        "mllr_robustness.png": f"{commands.STAGES}/1_search/robustness.png",
        "mllr_search.png": f"{commands.STAGES}/1_search/search.png",
    }
    compared: Sequence[str] = tuple(
        str(commands.tested("maths", condition)) for condition in ("aligned", "plain", "mllr")
    )
    files: Sequence[str] = ()

    def steps(self, folder: Path, seed: int, controls: bool) -> list[Step]:
        """The commands of one seed."""
        return commands.steps(folder, seed, controls)

    def values(self, folder: Path) -> Iterator[Value]:
        """All numbers of one seed."""
        for task, chosen in commands.CHOSEN.items():
            names = {suite: suite if task == "maths" else f"{task}/{suite}" for suite in SUITES}
            for condition in ("aligned", *chosen):
                yield from _test(folder / commands.tested(task, condition), condition, names)
            for condition in commands.SWEPT[task]:
                for rate in commands.SWEEP[condition]:
                    found = {suite: f"sweep/{task}/{rate:g}/{suite}" for suite in ("task", "forbidden")}
                    yield from _test(folder / commands.swept(task, condition, rate) / "dev", condition, found)
        for condition in ("aligned", "plain", "mllr", "safelora"):
            names = {suite: suite if condition == "safelora" else f"remade/{suite}" for suite in SUITES}
            yield from _test(folder / commands.REMADE / "3_test" / condition, condition, names)
        yield from _search(folder)
        yield from _swap(folder / commands.STAGES / "swap/swap.csv")
        for condition in ("s3cot", "s3cot_mllr"):
            names = REASONED | {suite: f"s3cot/{suite}" for suite in ("forbidden", "wrapped")}
            yield from _test(folder / commands.STAGES / "s3cot" / condition, condition, names)

    def sections(self, table: Rows) -> list[Section]:
        """Tables: both tuning tasks, the sweep of rates, SafeLoRA, the search, the swap, S³-CoT."""
        found = [_tuned(table, task) for task in commands.CHOSEN]
        found += [_swept(table, task) for task in commands.CHOSEN]
        found += [
            _remade(table),
            _map(table),
            _listed(table, "search", "The robust set"),
            _swapped(table),
            _reasoned(table),
        ]
        return [section for section in found if section.cells]

    def plot(self, table: Rows, folder: Path) -> None:
        """Figures: the trade-off on each task, and refusals after a swap."""
        for task in commands.CHOSEN:
            points = [
                TradeoffPoint(condition, rate, accuracy, refused, commands.CHOSEN[task].get(condition) == rate)
                for condition, rate, accuracy, refused in _sweep(table, task)
            ]
            if points:
                plot_tradeoff(points, folder / f"mllr_tradeoff_{task}.png", list(commands.SWEEP))
        restored = {
            row.suite.removeprefix("swap/"): (row.mean, row.std)
            for row in table.rows
            if row.condition == "plain" and row.suite.startswith("swap/") and row.metric == "refused_restored"
        }
        start = restored.pop("nothing", None)
        if restored and start is not None:
            plot_swap(restored, start[0], folder / "mllr_swap.png")


def _test(folder: Path, condition: str, suites: dict[str, str]) -> Iterator[Value]:
    path = folder / "metrics.json"
    if path.is_file():
        yield from values_of_test(path, condition, suites)


def _search(folder: Path) -> Iterator[Value]:
    """Drops by type and layer, scores of the probe, the robust set and its stability."""
    path = folder / commands.STAGES / commands.RESULT
    if not path.is_file():
        return
    result = RobustModules.load(path)
    with path.with_name("robustness.csv").open(encoding="utf-8", newline="") as file:
        lines = [(line["type"], int(line["layer"]), float(line["margin_drop"])) for line in csv.DictReader(file)]
    for kind in result.types:
        drops = [drop for one, _, drop in lines if one == kind]
        yield Value("search", f"type/{kind}", "single_drop", fmean(drops), len(drops))
        yield Value("search", f"type/{kind}", "joint_drop", result.stability["order"][kind], len(result.seeds))
    for layer in range(result.layers):
        drops = [drop for _, one, drop in lines if one == layer]
        yield Value("search", f"layer/{layer}", "single_drop", fmean(drops), len(drops))
    for metric in ("accuracy", "auroc", "margin"):
        yield Value("search", "probe", metric, result.probe[metric], 1)
    robust = result.modules()
    yield Value("search", "robust_set", "modules", len(robust), 1)
    yield Value("search", "robust_set", "drop", result.stability["final_drop"], 1)
    for name, share in result.stability.items():
        if name.startswith("other"):
            yield Value("search", "robust_set", f"iou, {name}", share, 1)
    for kind in result.types:
        own = sum(module.type == kind for module in robust)
        yield Value("search", f"type/{kind}", "robust_layers", own, 1)
    first = folder.parent / "seed0" / commands.STAGES / commands.RESULT
    if first.is_file() and first != path:
        share = overlap(robust, RobustModules.load(first).modules())
        yield Value("search", "robust_set", "iou, the set of seed 0", share, 1)


def _swap(path: Path) -> Iterator[Value]:
    if not path.is_file():
        return
    with path.open(encoding="utf-8", newline="") as file:
        for line in csv.DictReader(file):
            suite, n = f"swap/{line['swapped']}", int(line["n"])
            yield Value("plain", suite, "refused_restored", float(line["refused_tuned_restored"]), n)
            yield Value("aligned", suite, "refused_tuned", float(line["refused_aligned_tuned"]), n)


def _tuned(table: Rows, task: str) -> Section:
    prefix = "" if task == "maths" else f"{task}/"
    cells = []
    for condition in ("aligned", *commands.CHOSEN[task]):
        values = [table.cell(condition, prefix + suite, metric) for suite, metric in COLUMNS.items()]
        if any(value != "-" for value in values):
            rate = commands.CHOSEN[task].get(condition)
            cells.append([condition + (f" ({rate:g})" if rate else ""), *values])
    title = f"ML-LR on the miniature, tuned on {task}, held-out prompts (learning rate)"
    return Section(title, HEADINGS, cells, NOTES[task])


def _remade(table: Rows) -> Section:
    """SafeLoRA and the conditions that it is compared with."""
    cells = []
    for condition in ("aligned", "plain", "mllr", "safelora"):
        prefix = "" if condition == "safelora" else "remade/"
        values = [table.cell(condition, prefix + suite, metric) for suite, metric in COLUMNS.items()]
        if any(value != "-" for value in values):
            cells.append([condition, *values])
    note = "On a miniature made anew by the same recipe, because the model before alignment is not shipped. One seed."
    return Section("SafeLoRA's projection, tuned on maths", HEADINGS, cells, note)


def _sweep(table: Rows, task: str) -> Iterator[tuple[str, float, float, float]]:
    """Condition, rate, task accuracy and share of forbidden requests refused, on dev prompts."""
    for condition in commands.SWEPT[task]:
        for rate in commands.SWEEP[condition]:
            accuracy = table.find(condition, f"sweep/{task}/{rate:g}/task", "accuracy")
            refused = table.find(condition, f"sweep/{task}/{rate:g}/forbidden", "refusal_rate")
            if accuracy and refused:
                yield condition, rate, accuracy.mean, refused.mean


def _swept(table: Rows, task: str) -> Section:
    cells = [
        [
            f"{condition}{' (chosen)' if commands.CHOSEN[task].get(condition) == rate else ''}",
            f"{rate:g}",
            f"{a:.3f}",
            f"{r:.3f}",
        ]
        for condition, rate, a, r in _sweep(table, task)
    ]
    note = f"One seed, dev prompts. Chosen: the lowest rate that reaches {commands.LEAST_TASK[task]:g} of the task."
    return Section(
        f"The sweep of rates, {task}", ("condition", "rate", "task accuracy", "forbidden refused"), cells, note
    )


def _map(table: Rows) -> Section:
    suites = dict.fromkeys(row.suite for row in table.rows if row.suite.startswith(("type/", "layer/")))
    metrics = ("single_drop", "joint_drop", "robust_layers")
    cells = [
        [suite.replace("/", " "), *(table.cell("search", suite, metric) for metric in metrics)] for suite in suites
    ]
    headings = ("modules", "one at a time", "all its layers together", "layers in the robust set")
    return Section("Drop in the probe's margin when modules are perturbed", headings, cells)


def _listed(table: Rows, condition: str, title: str) -> Section:
    rows = [row for row in table.rows if row.condition == condition and row.suite in ("probe", "robust_set")]
    cells = [[f"{row.suite.replace('_', ' ')}: {row.metric}", row.text()] for row in rows]
    return Section(title, ("measure", "value"), cells)


def _swapped(table: Rows) -> Section:
    suites = dict.fromkeys(row.suite for row in table.rows if row.suite.startswith("swap/"))
    cells = [
        [
            suite.removeprefix("swap/"),
            table.cell("plain", suite, "refused_restored"),
            table.cell("aligned", suite, "refused_tuned"),
        ]
        for suite in suites
    ]
    headings = ("swapped", "plainly tuned, aligned modules restored", "aligned, tuned modules put in")
    return Section("Forbidden requests refused after a swap of modules", headings, cells)


def _reasoned(table: Rows) -> Section:
    wanted = [("maths/system1", "accuracy", 3), ("maths/system1", "tokens", 1), ("maths/system2", "accuracy", 3)]
    wanted += [("maths/system2", "tokens", 1), ("s3cot/forbidden", "asr", 3), ("s3cot/wrapped", "asr", 3)]
    cells = []
    for condition in ("s3cot", "s3cot_mllr"):
        values = [table.cell(condition, suite, metric, digits) for suite, metric, digits in wanted]
        if any(value != "-" for value in values):
            cells.append([condition, *values])
    headings = (
        "condition",
        "System 1 accuracy",
        "tokens",
        "System 2 accuracy",
        "tokens",
        "attacks on forbidden",
        "in known attack templates",
    )
    return Section("Shorter reasoning and refusals", headings, cells)
