"""The commands behind ML-LR's evidence: those of its page, run in a folder of the seed's own."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from rod.evidence.s3cot import S3CoTEvidence
from rod.run_folder import DONE
from rod.steps import Step, config

STAGES = Path("runs/mllr")
"""Where the shipped configurations put a stage's folder, below the folder that a seed's commands run in."""
RESULT = STAGES / "1_search/robust_modules.yaml"
MADE = Path("runs/miniature")
"""A miniature made anew, before and after its alignment; without it (`make miniature`) SafeLoRA is left out."""
REMADE = STAGES / "remade"
CHOSEN: dict[str, dict[str, float]] = {
    "maths": {
        "mllr": 6e-4,
        "plain": 6e-4,
        "uniform_low": 3e-4,
        "random_set": 4e-4,
        "inverse": 3.2e-3,
        "adapters_only": 4e-3,
        "sppft": 4e-4,
        "swat": 4e-4,
    },
    "howto": {"mllr": 4e-4, "plain": 4e-4, "uniform_low": 2e-4, "random_set": 4e-4},
}
"""Tuning task -> condition -> learning rate. Chosen on dev prompts from the sweep of seed 0, by `LEAST_TASK`; ``plain``
has the rate of ``mllr``."""
LEAST_TASK = 0.98
"""A condition is tested at the lowest rate of its sweep that reaches this accuracy on the task's dev prompts."""
SWEEP: dict[str, tuple[float, ...]] = {
    "mllr": (2e-4, 3e-4, 4e-4, 6e-4),
    "uniform_low": (1e-4, 1.5e-4, 2e-4, 3e-4, 4e-4),
    "random_set": (2e-4, 3e-4, 4e-4, 6e-4),
    "inverse": (4e-4, 8e-4, 1.6e-3, 3.2e-3),
    "adapters_only": (1e-3, 2e-3, 4e-3),
    "sppft": (1.5e-4, 2e-4, 3e-4, 4e-4),
    "swat": (1.5e-4, 2e-4, 3e-4, 4e-4),
}
SHORT = {"maths": STAGES, "howto": STAGES / "howto"}
Words = Sequence[str | Path]


def suites(task: str) -> list[str | Path]:
    """Refusals, abilities and a task."""
    return [f for name in ("safety", "abilities", f"task_{task}") for f in config("mllr", "suites", f"{name}.yaml")]


def fragments(condition: str) -> list[str | Path]:
    """What a condition adds to ``2_tune.yaml``, and to the test of its checkpoint."""
    return [] if condition == "mllr" else config("mllr", "controls", f"{condition}.yaml")


def tuned(task: str, condition: str) -> Path:
    """The folder of a fit."""
    return SHORT[task] / "2_tune" / condition


def tested(task: str, condition: str) -> Path:
    """The folder of a test."""
    return SHORT[task] / "3_test" / condition


def swept(task: str, condition: str, rate: float) -> Path:
    """The folder of a fit of the sweep; its test on dev prompts is in ``dev``."""
    return SHORT[task] / "sweep" / f"{condition}-{rate:g}"


class Commands:
    """Steps of one seed."""

    def __init__(self, folder: Path, seed: int) -> None:
        """Where, and which."""
        self.folder, self.seed = folder, seed

    def run(self, verb: str, files: Words, root: Path, *words: str | Path, drawn: bool = True) -> Step:
        """A command of Lightning's; ``drawn`` says whether its data are drawn by a seed."""
        seeds = ["--seed_everything", str(self.seed)]
        seeds += ["--data.init_args.seed", str(self.seed)] if drawn else []
        return Step(
            f"seed {self.seed}: {root}",
            [verb, *files, "--trainer.default_root_dir", root, *words, *seeds],
            root / DONE,
            resume_from=root / "checkpoints/last.ckpt" if verb == "fit" else None,
            folder=self.folder,
        )

    def search(self) -> list[Step]:
        """The world, and the robust modules under this seed's noise."""
        seeds = [10 * self.seed + n for n in range(3)]
        noise = [
            "--trainer.callbacks.seeds",
            str(seeds),
            "--trainer.callbacks.check_seeds",
            str([100 + s for s in seeds]),
        ]
        files = config("mllr", "1_probe_and_search.yaml")
        return [
            Step(f"seed {self.seed}: the world", ["world"], Path("runs/world/twins.train.jsonl"), folder=self.folder),
            self.run("predict", files, STAGES / "1_search", *noise, drawn=False),
        ]

    def tune(self, task: str, condition: str, rate: float, root: Path, *more: str | Path) -> Step:
        """A benign fine-tune."""
        words: list[str | Path] = ["--data.init_args.path", f"runs/world/tuning.{task}.train.jsonl"]
        words += ["--model.init_args.optimizer.init_args.lr", f"{rate:g}"]
        if condition == "random_set":
            words += ["--model.init_args.learning_rates.random_set", str(self.seed)]
        return self.run("fit", [*config("mllr", "2_tune.yaml"), *fragments(condition)], root, *words, *more)

    def test(self, task: str, condition: str, fit: Path | None, root: Path, *words: str | Path) -> Step:
        """Refusals, abilities and the task, on held-out prompts; of the aligned model where there is no fit."""
        files = [*config("mllr", "3_test.yaml"), *(fragments(condition) if fit else [])]
        start: list[str | Path] = ["--ckpt_path", fit / "checkpoints/last.ckpt"] if fit else []
        return self.run("test", [*files, *suites(task)], root, *words, *start, drawn=False)

    def arm(self, task: str, condition: str) -> list[Step]:
        """A fine-tune at its chosen rate, and its test."""
        fit = tuned(task, condition)
        return [
            self.tune(task, condition, CHOSEN[task][condition], fit),
            self.test(task, condition, fit, tested(task, condition)),
        ]

    def sweep(self, task: str, conditions: Sequence[str]) -> Iterator[Step]:
        """Fits at several rates, tested on dev prompts: what the rates were chosen from."""
        for condition in conditions:
            for rate in SWEEP[condition]:
                root = swept(task, condition, rate)
                yield self.tune(task, condition, rate, root)
                yield self.test(task, condition, root, root / "dev", "--data.init_args.split", "dev")

    def merged(self, fit: Path, model: Path) -> Step:
        """The model of a fit as a folder."""
        words: list[str | Path] = [
            "export",
            "--checkpoint",
            fit / "checkpoints/last.ckpt",
            "--output",
            model,
            "--overwrite",
            "true",
        ]
        return Step(f"seed {self.seed}: {model}", words, model / "tokenizer_config.json", folder=self.folder)

    def swap(self) -> Step:
        """Which modules carry the refusals of the aligned model, seen from the plainly tuned one."""
        table = STAGES / "swap/swap.csv"
        words: list[str | Path] = ["swap", "--tuned", STAGES / "plain", "--aligned", "miniature", "--output", table]
        words += ["--requests", "runs/world/requests.forbidden.test.jsonl", "--overwrite", "true"]
        return Step(f"seed {self.seed}: {table}", words, table, folder=self.folder)

    def safelora(self, made: Path) -> list[Step]:
        """SafeLoRA needs the model before alignment: on a miniature made anew, with what it is held against."""
        aligned: list[str | Path] = ["--model.init_args.backbone", made / "model"]
        grouped: list[str | Path] = [
            *aligned,
            "--model.init_args.learning_rates.result",
            REMADE / "1_search/robust_modules.yaml",
        ]
        plain, projected = REMADE / "plain", REMADE / "safelora"
        test = [*config("test.yaml"), *suites("maths"), "--model.init_args.backbone"]
        words: list[str | Path] = ["project", "--tuned", plain, "--aligned", made / "model"]
        words += ["--base", made / "1_pretrain/model", "--output", projected, "--overwrite", "true"]
        found = [
            self.run("predict", config("mllr", "1_probe_and_search.yaml"), REMADE / "1_search", *aligned, drawn=False),
            self.run("test", [*test, made / "model"], REMADE / "3_test/aligned", drawn=False),
        ]
        for condition in ("plain", "mllr"):
            fit = REMADE / "2_tune" / condition
            found.append(self.tune("maths", condition, CHOSEN["maths"][condition], fit, *grouped))
            found.append(self.test("maths", condition, fit, REMADE / "3_test" / condition, *grouped))
        return [
            *found,
            self.merged(REMADE / "2_tune/plain", plain),
            Step(f"seed {self.seed}: {projected}", words, projected / "tokenizer_config.json", folder=self.folder),
            self.run("test", [*test, projected], REMADE / "3_test/safelora", drawn=False),
        ]

    def s3cot(self) -> list[Step]:
        """S³-CoT's fine-tune is a benign one too: with and without the groups, its reasoning and its refusals."""
        curriculum = config("s3cot", "5_curriculum.yaml")
        grouped = STAGES / "s3cot/tuned_mllr"
        fit = self.run("fit", [*curriculum, *config("mllr", "curriculum.yaml")], grouped)
        found = [*S3CoTEvidence().steps(self.folder, self.seed, controls=False), fit]
        for name, root in (("s3cot", Path("runs/s3cot/5_curriculum/tuned")), ("s3cot_mllr", grouped)):
            files = [*config("s3cot", "6_test.yaml"), *config("mllr", "suites", "safety.yaml")]
            words: list[str | Path] = ["--ckpt_path", root / "checkpoints/best.ckpt"]
            found.append(self.run("test", files, STAGES / "s3cot" / name, *words))
        return found


def steps(folder: Path, seed: int, controls: bool) -> list[Step]:
    """All commands of one seed; without controls, the problem and the remedy."""
    do = Commands(folder, seed)
    found = [*do.search(), do.test("maths", "aligned", None, tested("maths", "aligned"))]
    if not controls:
        return [*found, *do.arm("maths", "plain"), *do.arm("maths", "mllr")]
    if seed == 0:
        found += [*do.sweep("maths", list(SWEEP)), *do.sweep("howto", ("mllr", "uniform_low", "random_set"))]
    found += [step for condition in CHOSEN["maths"] for step in do.arm("maths", condition)]
    found.append(do.test("howto", "aligned", None, tested("howto", "aligned")))
    found += [step for condition in CHOSEN["howto"] for step in do.arm("howto", condition)]
    found += [do.merged(tuned("maths", "plain"), STAGES / "plain"), do.swap()]
    if seed == 0 and (MADE / "model/config.json").is_file():
        found += do.safelora(MADE.resolve())
    return [*found, *(do.s3cot() if seed < S3CoTEvidence.seeds else [])]
