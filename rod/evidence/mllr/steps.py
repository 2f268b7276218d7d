"""The commands behind the evidence of ML-LR, as on its page; each seed has its folder."""

from collections.abc import Iterator
from pathlib import Path

from rod.evidence.commands import Commands, Words
from rod.evidence.s3cot.steps import tuned_steps
from rod.steps import Step, config

STAGES = Path("runs/mllr")
"""Folder of the stages in the shipped configurations, relative to the folder of a seed."""
RESULT = "1_search/robust_modules.yaml"
NOISE = STAGES / "1_search_noise/robust_modules.yaml"
MADE = Path("runs/miniature")
"""A miniature made anew (`make miniature`), before and after alignment; SafeLoRA needs it and is left out without."""
REMADE = STAGES / "remade"
TASKS = {"maths": STAGES, "howto": STAGES / "howto"}
"""Tuning task -> its folder."""
SEEDS = {"maths": 5, "howto": 3}
S3COT_SEEDS = 2
CHOSEN: dict[str, dict[str, float]] = {
    "maths": {
        "mllr": 8e-4,
        "plain": 6e-4,
        "uniform_low": 3e-4,
        "random_set": 8e-4,
        "inverse": 6e-4,
        "adapters_only": 4e-3,
        "sppft": 4e-4,
        "swat": 6e-4,
        "mllr_noise": 6e-4,
    },
    "howto": {"mllr": 6e-4, "plain": 6e-4, "uniform_low": 2.5e-4, "random_set": 8e-4},
}
"""Tuning task -> condition -> learning rate, chosen by `LEAST_TASK` from the sweep of seed 0 on dev prompts; ``plain``
has the rate of the pilot."""
LEAST_TASK = {"maths": 0.98, "howto": 0.85}
"""Accuracy on the task's dev prompts; a condition is tested at the lowest rate of its sweep that reaches it."""
SWEEP: dict[str, tuple[float, ...]] = {
    "mllr": (4e-4, 6e-4, 8e-4, 1e-3, 1.5e-3),
    "uniform_low": (1e-4, 1.5e-4, 2e-4, 2.5e-4, 3e-4, 4e-4),
    "random_set": (3e-4, 4e-4, 6e-4, 8e-4),
    "inverse": (3e-4, 4e-4, 6e-4, 8e-4),
    "adapters_only": (2e-3, 4e-3, 8e-3),
    "sppft": (1.5e-4, 2e-4, 3e-4, 4e-4),
    "swat": (2e-4, 3e-4, 4e-4, 6e-4),
    "mllr_noise": (2e-4, 3e-4, 4e-4, 6e-4),
}
SWEPT = {"maths": tuple(SWEEP), "howto": ("mllr", "uniform_low", "random_set", "mllr_noise")}


UNIFORM = ["--model.learning_rates.policy", "uniform"]
CONTROLS: dict[str, Words] = {
    "plain": UNIFORM,
    "uniform_low": UNIFORM,
    "inverse": ["--model.learning_rates.invert", "true"],
    "adapters_only": config("mllr/controls/adapters_only"),
    "sppft": config("mllr/controls/sppft"),
    "swat": config("mllr/controls/swat"),
}
"""Control -> options that it adds to ``2_tune.yaml``, besides its rate."""


def suites(task: str) -> list[str | Path]:
    """Suites of refusals, abilities and a task."""
    return [f for name in ("safety", "abilities", f"task_{task}") for f in config(f"mllr/suites/{name}")]


def fragments(task: str, condition: str) -> list[str | Path]:
    """Options that a condition adds to ``2_tune.yaml``, and to the test of its checkpoint."""
    result = NOISE if condition == "mllr_noise" else TASKS[task] / RESULT
    own = list(CONTROLS.get(condition, ()))
    return own if condition == "sppft" else [*own, "--model.learning_rates.result", result]


def tuned(task: str, condition: str) -> Path:
    """The folder of a fit."""
    return TASKS[task] / "2_tune" / condition


def tested(task: str, condition: str) -> Path:
    """The folder of a test."""
    return TASKS[task] / "3_test" / condition


def swept(task: str, condition: str, rate: float) -> Path:
    """The folder of a fit of the sweep; the test on dev prompts is in its folder ``dev``."""
    return TASKS[task] / "sweep" / f"{condition}-{rate:g}"


class MLLRCommands(Commands):
    """The commands of one seed."""

    def world(self) -> Step:
        """Requests and tuning data."""
        return self.step(["world"], Path("runs/world/twins.train.jsonl"))

    def search(self, task: str, stability: bool = True) -> list[Step]:
        """A pilot of the fine-tune, and the modules that are robust against its change."""
        pilot, model = TASKS[task] / "0_pilot", TASKS[task] / "0_pilot/model"
        data = ["--data.path", f"runs/world/tuning.{task}.train.jsonl"]
        fit = self.run("fit", config("mllr/0_pilot"), pilot, *data)
        return [fit, self.export(pilot, model), self._search(model, TASKS[task] / "1_search", stability)]

    def noise_search(self) -> Step:
        """The robust modules under this seed's Gaussian noise."""
        seeds = [10 * self.seed + n for n in range(3)]
        checks = [100 + seed for seed in seeds]
        words = ["--trainer.callbacks.search.seeds", str(seeds), "--trainer.callbacks.search.check_seeds", str(checks)]
        files = [*config("mllr/1_probe_and_search"), *config("mllr/controls/noise")]
        return self.run("predict", files, STAGES / "1_search_noise", *words)

    def _search(self, pilot: Path, root: Path, stability: bool = True, *words: str | Path) -> Step:
        more: list[str | Path] = [
            "--trainer.callbacks.pilot",
            pilot,
            "--trainer.callbacks.proxy.stability",
            str(stability).lower(),
        ]
        return self.run("predict", config("mllr/1_probe_and_search"), root, *more, *words)

    def tune(self, task: str, condition: str, rate: float, root: Path, *more: str | Path) -> Step:
        """A benign fine-tune."""
        words: list[str | Path] = ["--data.path", f"runs/world/tuning.{task}.train.jsonl"]
        words += ["--model.optimizer.lr", f"{rate:g}"]
        if condition == "random_set":
            words += ["--model.learning_rates.random_set", str(self.seed)]
        return self.run("fit", [*config("mllr/2_tune"), *fragments(task, condition)], root, *words, *more)

    def test(self, task: str, condition: str, fit: Path | None, root: Path, *words: str | Path) -> Step:
        """Refusals, abilities and the task on held-out prompts, of a fit or (None) of the aligned model."""
        files = [*config("mllr/3_test"), *(fragments(task, condition) if fit else [])]
        start: list[str | Path] = ["--ckpt_path", fit / "checkpoints/last.ckpt"] if fit else []
        return self.run("test", [*files, *suites(task)], root, *words, *start)

    def arm(self, task: str, condition: str) -> list[Step]:
        """A fine-tune at its chosen rate, and its test."""
        fit = tuned(task, condition)
        return [
            self.tune(task, condition, CHOSEN[task][condition], fit),
            self.test(task, condition, fit, tested(task, condition)),
        ]

    def sweep(self, task: str) -> Iterator[Step]:
        """Fits at several rates, tested on dev prompts; the rates were chosen from them."""
        for condition in SWEPT[task]:
            for rate in SWEEP[condition]:
                root = swept(task, condition, rate)
                yield self.tune(task, condition, rate, root)
                yield self.test(task, condition, root, root / "dev", "--data.split", "dev")

    def swap(self) -> Step:
        """Swaps between the aligned and the plainly tuned model: which modules carry the refusals?"""
        table = STAGES / "swap/swap.csv"
        words: list[str | Path] = ["swap", "--tuned", STAGES / "plain", "--aligned", "miniature", "--output", table]
        words += ["--requests", "runs/world/requests.forbidden.test.jsonl", "--overwrite", "true"]
        return self.step(words, table)

    def safelora(self, made: Path) -> list[Step]:
        """SafeLoRA and its comparisons on a miniature made anew, since it needs the model before alignment."""
        aligned: list[str | Path] = ["--model.backbone", made / "model"]
        result = REMADE / RESULT
        grouped: list[str | Path] = [*aligned, "--model.learning_rates.result", result]
        pilot, plain, projected = REMADE / "0_pilot", REMADE / "plain", REMADE / "safelora"
        test = [*config("test"), *suites("maths"), "--model.backbone"]
        words: list[str | Path] = ["project", "--tuned", plain, "--aligned", made / "model"]
        words += ["--base", made / "1_pretrain/model", "--output", projected, "--overwrite", "true"]
        found = [
            self.run("fit", config("mllr/0_pilot"), pilot, *aligned),
            self.export(pilot, pilot / "model"),
            self._search(pilot / "model", REMADE / "1_search", True, *aligned),
            self.run("test", [*test, made / "model"], REMADE / "3_test/aligned"),
        ]
        for condition in ("plain", "mllr"):
            fit = REMADE / "2_tune" / condition
            found.append(self.tune("maths", condition, CHOSEN["maths"][condition], fit, *grouped))
            found.append(self.test("maths", condition, fit, REMADE / "3_test" / condition, *grouped))
        return [
            *found,
            self.export(REMADE / "2_tune/plain", plain),
            self.step(words, projected / "tokenizer_config.json"),
            self.run("test", [*test, projected], REMADE / "3_test/safelora"),
        ]

    def s3cot(self) -> list[Step]:
        """The fine-tune of S³-CoT, which is its own pilot, without and with learning rates by module."""
        first, again, pilot = Path("runs/s3cot/5_curriculum/tuned"), STAGES / "s3cot/tuned_mllr", STAGES / "s3cot/pilot"
        root = STAGES / "s3cot/1_search"
        files = [*config("s3cot/5_curriculum"), *config("mllr/curriculum")]
        found = [
            *tuned_steps(self.folder, self.seed),
            self.export(first, pilot, name="best"),
            self._search(pilot, root),
            self.run("fit", files, again, "--model.learning_rates.result", root / "robust_modules.yaml"),
        ]
        for name, fit in (("s3cot", first), ("s3cot_mllr", again)):
            files = [*config("s3cot/6_test"), *config("mllr/suites/safety")]
            words: list[str | Path] = ["--ckpt_path", fit / "checkpoints/best.ckpt"]
            found.append(self.run("test", files, STAGES / "s3cot" / name, *words))
        return found


def steps(folder: Path, seed: int, controls: bool) -> list[Step]:
    """All commands of one seed; without controls, the plain fine-tune and ML-LR only."""
    do = MLLRCommands(folder, seed)
    found = [do.world(), *do.search("maths", stability=controls)]
    found.append(do.test("maths", "aligned", None, tested("maths", "aligned")))
    if not controls:
        return [*found, *do.arm("maths", "plain"), *do.arm("maths", "mllr")]
    found.append(do.noise_search())
    for task in TASKS:
        if seed >= SEEDS[task]:
            continue
        if task != "maths":
            found += [*do.search(task), do.test(task, "aligned", None, tested(task, "aligned"))]
        found += do.sweep(task) if seed == 0 else []
        found += [step for condition in CHOSEN[task] for step in do.arm(task, condition)]
    found += [do.export(tuned("maths", "plain"), STAGES / "plain"), do.swap()]
    if seed == 0 and (MADE / "model/config.json").is_file():
        found += do.safelora(MADE.resolve())
    return [*found, *(do.s3cot() if seed < S3COT_SEEDS else [])]
