"""ML-LR's evidence on SmolLM2-135M-Instruct: it is aligned first, then tuned on benign tasks."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from rod.evidence.commands import Words
from rod.evidence.figures import TradeoffPoint, plot_tradeoff
from rod.evidence.real.commands import (
    ADVBENCH,
    BENIGN,
    JUDGE,
    LIMIT,
    N_OTHER_ALIGNED,
    OTHER,
    REQUESTS,
    SOURCES,
    SUITES,
    TOKENS,
    RealCommands,
)
from rod.evidence.real.commands import STAGES as MOGU
from rod.evidence.rows import Rows, Section, Value, values_of_test
from rod.report.tables import history
from rod.run_folder import DONE
from rod.steps import Step, config

STAGES = Path("runs/mllr")
PAIRS = STAGES / "pairs"
ALIGN = STAGES / "aligned"
ALIGNED = STAGES / "aligned/model"
TWINS = STAGES / "twins.jsonl"
TASKS = {
    "news": "benign_finetune_asft/agnews_1k_p_0.jsonl",
    "alpaca": "benign_finetune_asft/alpaca_1k_p_0.jsonl",
    "maths": "benign_finetune_asft/gsm8k_1k_p_0.jsonl",
    "sql": "benign_finetune_safetunebed/sqlgen_train.jsonl",
    "summaries": "benign_finetune_safetunebed/samsum_train.jsonl",
}
"""Tuning task -> its file in the folder of data sets."""
PILOT = ("--trainer.max_steps", "20")
UNIFORM = ("--model.learning_rates.policy", "uniform")
CONTROLS: Mapping[str, Words] = {
    "plain": UNIFORM,
    "mllr": (),
    "random_set": (),
    "freeze": ("--model.learning_rates.policy", "freeze"),
    "adapters_only": config("mllr/controls/adapters_only"),
    "swat": config("mllr/controls/swat"),
    "sppft": config("mllr/controls/sppft", "mllr/real/small/sppft"),
}
"""Condition -> what it adds to ``2_tune.yaml``."""
RATES: Mapping[str, Sequence[float]] = {
    "plain": (1e-5, 3e-5, 1e-4),
    "mllr": (3e-5, 1e-4, 3e-4),
    "random_set": (3e-5, 1e-4, 3e-4),
    "freeze": (1e-4,),
    "adapters_only": (1e-3,),
    "swat": (3e-5, 1e-4),
    "sppft": (3e-5, 1e-4),
}
"""Condition -> learning rates. Plain fine-tuning at a low one is the control that counts."""
PROJECTED = ("plain", 1e-4)
"""Fit that SafeLoRA's projection is applied to."""
ATTACKED = tuple(suite for suite in SUITES if suite not in BENIGN)


class RealMLLREvidence:
    """The evidence of ML-LR on a real model, as `rod.evidence.rows.Evidence` describes it."""

    method = "mllr"
    seeds = 3
    figures: Mapping[str, str] = {"mllr_robustness.png": f"{STAGES}/news/1_search/robustness.png"}
    compared: Sequence[str] = tuple(str(STAGES / "news" / name / "test") for name in ("plain-0.0001", "mllr-0.0001"))
    files: Sequence[str] = (*REQUESTS, *TASKS.values())

    def __init__(self, data: Path) -> None:
        """Take the folder of the published data sets."""
        self.data = data.resolve()

    def steps(self, folder: Path, seed: int, controls: bool) -> list[Step]:
        """The commands of one seed; without controls, news alone, plain and ML-LR."""
        do = RealMLLRCommands(folder, seed, self.data)
        found = [do.model(), *do.paired(), *do.align(do.place), do.test(ALIGNED, ALIGN / "test")]
        for task in TASKS if controls else ("news",):
            found += do.searched(task)
            for condition in CONTROLS if controls else ("plain", "mllr"):
                for rate in RATES[condition]:
                    found += do.tuned(task, condition, rate)
            if controls:
                found += do.projected(task)
        return found

    def values(self, folder: Path) -> Iterator[Value]:
        """Refusals of every fit, and the loss on the task's held-out part."""
        yield from _tested(folder / ALIGN / "test", "aligned", "")
        for task in TASKS:
            yield from _loss(folder / STAGES / task / "start", "aligned", task)
            for condition, rate in _fits():
                place = folder / STAGES / task / f"{condition}-{rate:g}"
                yield from _tested(place / "test", f"{condition} {rate:g}", f"{task}/")
                yield from _loss(place, f"{condition} {rate:g}", task)
            yield from _tested(folder / STAGES / task / "safelora/test", "safelora", f"{task}/")

    def sections(self, table: Rows) -> list[Section]:
        """A table for each task: its loss, refusals of each suite."""
        headings = ["condition", "loss on the task", *SUITES.values()]
        notes = (
            f"Loss on a tenth of the task's file that is not trained on. Then the share refused, {LIMIT} requests of a "
            f"suite, {TOKENS} tokens, greedy, the phrase rule; the last two suites are benign."
        )
        found = []
        for task in TASKS:
            start = [table.cell("aligned", suite, "refusal_rate") for suite in SUITES]
            rows = [["aligned", table.cell("aligned", f"{task}/loss", "loss"), *start]]
            for condition in (*(f"{condition} {rate:g}" for condition, rate in _fits()), "safelora"):
                cells = [table.cell(condition, f"{task}/{suite}", "refusal_rate") for suite in SUITES]
                if any(cell != "-" for cell in cells):
                    rows.append([condition, table.cell(condition, f"{task}/loss", "loss"), *cells])
            if len(rows) > 1:
                title = f"ML-LR on SmolLM2-135M-Instruct, aligned, then tuned on {task} (learning rate)"
                found.append(Section(title, headings, rows, notes))
        return found

    def plot(self, table: Rows, folder: Path) -> None:
        """For each task: refusals of malicious requests, mean over the suites, against what was learnt."""
        for task in TASKS:
            start = table.find("aligned", f"{task}/loss", "loss")
            points = []
            for condition, rate in _fits():
                name = f"{condition} {rate:g}"
                loss = table.find(name, f"{task}/loss", "loss")
                refused = [table.find(name, f"{task}/{suite}", "refusal_rate") for suite in ATTACKED]
                if start and loss and all(refused):
                    mean = sum(row.mean for row in refused if row) / len(refused)
                    points.append(TradeoffPoint(condition, rate, start.mean - loss.mean, mean, condition == "mllr"))
            if points:
                plot_tradeoff(points, folder / f"mllr_tradeoff_{task}.png", list(RATES), loss=True)


class RealMLLRCommands(RealCommands):
    """Steps of one seed; those of another aligned model are in a folder ``stages`` of its own."""

    def __init__(self, folder: Path, seed: int, data: Path, stages: Path = STAGES) -> None:
        super().__init__(folder, seed, data)
        self.stages, self.aligned = stages, stages / "aligned/model"

    def paired(self) -> list[Step]:
        """Pairs of 600 malicious and as many benign requests, twins of AdvBench."""
        others: Words = ["--other_malicious", self.data / OTHER, "--other_field", "harmful"]
        sizes = ["--n_other", N_OTHER_ALIGNED, "--n_train", "600"]
        twins: Words = ["make-twins", "--requests", self.data / ADVBENCH, "--field", "goal", "--output", TWINS]
        return [
            *map(self.answers, SOURCES),
            self.pairs(MOGU / "pairs", ["alpaca"]),
            self.pairs(PAIRS, SOURCES, *others, *sizes),
            self.step([*twins, "--overwrite", "true"], TWINS),
        ]

    def align(self, base: Path) -> list[Step]:
        """The aligned model."""
        root = self.aligned.parent
        fit = self.run("fit", config("mllr/real/align"), root, "--model.backbone", base)
        return [fit, self.export(root, self.aligned)]

    def tuning(self, task: str, files: Words, root: Path, *words: str | Path, verb: str = "fit") -> Step:
        """A benign fine-tune of the aligned model, or with ``validate`` its loss before one."""
        data: Words = ["--data.path", self.data / TASKS[task], "--model.backbone", self.aligned]
        return self.run(verb, files, root, *data, *words)

    def searched(self, task: str) -> list[Step]:
        """The loss before the fine-tune, a pilot of it, and the modules that are robust against its change."""
        place = self.stages / task
        pilot, tune = place / "0_pilot", config("mllr/real/small/tune")
        return [
            self.tuning(task, [*config("mllr/2_tune"), *tune], place / "start", *UNIFORM, verb="validate"),
            self.tuning(task, [*config("mllr/0_pilot"), *tune], pilot, *PILOT),
            self.export(pilot, pilot / "model"),
            self.search(pilot / "model", place / "1_search"),
        ]

    def search(self, pilot: Path, root: Path) -> Step:
        """The modules of the aligned model that are robust against the change of a pilot."""
        words: Words = ["--model.backbone", self.aligned, "--trainer.callbacks.pilot", pilot]
        return self.run("predict", config("mllr/1_probe_and_search", "mllr/real/small/search"), root, *words)

    def tuned(self, task: str, condition: str, rate: float) -> list[Step]:
        """A fine-tune, its export and its test."""
        root = self.stages / task / f"{condition}-{rate:g}"
        words: list[str | Path] = ["--model.optimizer.lr", f"{rate:g}"]
        if condition != "sppft":
            words += ["--model.learning_rates.result", self.stages / task / "1_search/robust_modules.yaml"]
        if condition == "random_set":
            words += ["--model.learning_rates.random_set", str(self.seed)]
        files: Words = [*config("mllr/2_tune", "mllr/real/small/tune"), *CONTROLS[condition]]
        fit = self.tuning(task, files, root, *words)
        return [fit, self.export(root, root / "model"), self.test(root / "model", root / "test")]

    def projected(self, task: str) -> list[Step]:
        """SafeLoRA's projection of a plain fine-tune; what it needs, the model before alignment, is at hand."""
        condition, rate = PROJECTED
        root = self.stages / task / "safelora"
        tuned = self.stages / task / f"{condition}-{rate:g}" / "model"
        words: Words = [
            "project",
            "--tuned",
            tuned,
            "--aligned",
            self.aligned,
            "--base",
            self.place,
            "--output",
            root / "model",
        ]
        done = root / "model/tokenizer_config.json"
        return [self.step([*words, "--overwrite", "true"], done), self.test(root / "model", root / "test")]

    def test(self, model: Path, root: Path) -> Step:
        """Refusals of a model."""
        return self.requests(config("test"), root, "--model.backbone", model)


def _fits() -> Iterator[tuple[str, float]]:
    return ((condition, rate) for condition, rates in RATES.items() for rate in rates)


def _tested(folder: Path, condition: str, prefix: str) -> Iterator[Value]:
    path = folder / "metrics.json"
    if path.is_file():
        yield from values_of_test(path, condition, {suite: f"{prefix}{suite}" for suite in SUITES}, JUDGE)


def _loss(folder: Path, condition: str, task: str) -> Iterator[Value]:
    """The last validation loss of a run that has ended."""
    losses = history(folder).get("val/loss") if (folder / DONE).exists() else None
    if losses:
        yield Value(condition, f"{task}/loss", "loss", losses[-1][1], 1)
