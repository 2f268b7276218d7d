"""MoGU's evidence on SmolLM2-135M-Instruct: the commands of its page, on published requests."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean

from rod.evidence.commands import Words
from rod.evidence.figures import ConditionPoint, plot_dials, plot_safety
from rod.evidence.real.commands import (
    BENIGN,
    JUDGE,
    LIMIT,
    MIXED,
    REQUESTS,
    SOURCES,
    STAGES,
    SUITES,
    TOKENS,
    RealCommands,
)
from rod.evidence.rows import Row, Rows, Section, Value, values_of_test
from rod.steps import Step, config

TESTS = STAGES / "4_test"
FOLDER = STAGES / "mogu"
PAPER = STAGES / "paper"
"""Routers of the paper's pairs and mask."""
WATCHED = "alpaca_subsets/eval_wizardlm_test_set.jsonl"
"""Benign requests that over-refusal is measured on while the routers learn."""
RATE = "2e-4"
"""Learning rate of the responders and of the LoRA fine-tune, for a model of 135M parameters (ours)."""
SHIFTS = (-2, -1, -0.5, 1)
"""Shifts of MoGU's gates: its trade-off of attacks against over-refusal."""
TUNED: Mapping[str, Words] = {
    "all_weights": ("--model.peft", "null", "--model.optimizer.lr", "3e-5"),
    "lora": ("--model.optimizer.lr", RATE),
}
"""Fine-tunes on the same pairs; their trade-off is that of their steps."""
STEPS = (16, 32, 48, 64, 80)
CONDITIONS = (
    *("base", "unwilling", "mogu", "mogu_always", "mogu_paper"),
    *(f"mogu_shift_{shift}" for shift in SHIFTS),
    *(f"{name}_{steps}" for name in TUNED for steps in STEPS),
    "self_reminder",
)


class RealMoGUEvidence:
    """The evidence of MoGU on a real model, as `rod.evidence.rows.Evidence` describes it."""

    method = "mogu"
    seeds = 3
    figures: Mapping[str, str] = {
        "gates.png": f"{TESTS}/mogu/gates.png",
        "gates_tokens.png": f"{TESTS}/mogu/gates_tokens.png",
    }
    compared: Sequence[str] = (f"{TESTS}/base", f"{TESTS}/mogu")
    files: Sequence[str] = (*REQUESTS, WATCHED)

    def __init__(self, data: Path) -> None:
        """Take the folder of the published data sets."""
        self.data = data.resolve()

    def steps(self, folder: Path, seed: int, controls: bool) -> list[Step]:
        """The commands of one seed; all seeds share the model."""
        do = RealMoGUCommands(folder, seed, self.data)
        found = [do.model(), *do.trained(), do.test("base", "--model.mode", "off")]
        found.append(do.test("mogu", "--trainer.callbacks+=SuiteGates"))
        if not controls:
            return found
        found += do.router(PAPER / "3_router", PAPER / "mogu", (), "--model.penalty_mask", "all")
        return [
            *found,
            do.test("unwilling", "--model.mode", "unwilling"),
            do.test("mogu_always", "--model.mode", "always"),
            do.test("mogu_paper", "--model.folder", PAPER / "mogu"),
            *(do.test(f"mogu_shift_{shift}", "--model.gate_shift", str(shift)) for shift in SHIFTS),
            *(step for name in TUNED for step in do.tuned(name)),
            do.test("self_reminder", files=config("mogu/controls/self_reminder")),
        ]

    def values(self, folder: Path) -> Iterator[Value]:
        """All numbers of one seed, read from its runs."""
        for name in CONDITIONS:
            if (path := folder / TESTS / name / "metrics.json").is_file():
                yield from values_of_test(path, name, {suite: suite for suite in SUITES}, JUDGE)

    def sections(self, table: Rows) -> list[Section]:
        """Attacks that succeed, and benign requests that are refused."""
        rows = []
        for condition in CONDITIONS:
            cells = [table.cell(condition, suite, _metric(suite)) for suite in SUITES]
            if any(cell != "-" for cell in cells):
                rows.append([condition, *cells])
        notes = (
            f"Share of attacks that succeed; of the last two suites, share refused. {LIMIT} records of a suite, "
            f"{TOKENS} tokens, greedy, the phrase rule."
        )
        headings = ["condition", *SUITES.values()]
        return [Section("MoGU on SmolLM2-135M-Instruct, requests that nothing was trained on", headings, rows, notes)]

    def plot(self, table: Rows, folder: Path) -> None:
        """Plot attacks that succeed against benign requests that are refused, means over the suites."""
        means = {condition: found for condition in CONDITIONS if (found := _means(table, condition))}
        single = [condition for condition in means if not condition.startswith(("mogu_shift", *TUNED))]
        refused, attacked = "XSTest safe and just_eval, refused", "attacks that succeed"
        if single:
            points = [ConditionPoint(name, *means[name], hollow=not name.startswith("mogu")) for name in single]
            plot_safety(points, folder / "safety.png", refused, attacked)
        shifts = [(f"{shift:+g}", f"mogu_shift_{shift}" if shift else "mogu") for shift in sorted((*SHIFTS, 0))]
        names = {"MoGU, by gate_shift": shifts}
        names |= {f"{name}, by steps": [(str(steps), f"{name}_{steps}") for steps in STEPS] for name in TUNED}
        lines = {
            label: [(setting, *means[name]) for setting, name in places if name in means]
            for label, places in names.items()
        }
        if all(lines.values()):
            plot_dials(lines, folder / "mogu_tradeoff.png", refused, attacked)


class RealMoGUCommands(RealCommands):
    """Steps of one seed."""

    def trained(self) -> list[Step]:
        """The base's answers, pairs of several sources, responders and routers."""
        pairs: Words = ["--data.pairs", MIXED / "pairs.train.jsonl", "--data.val_pairs", MIXED / "pairs.val.jsonl"]
        return [
            *map(self.answers, SOURCES),
            self.pairs(STAGES / "pairs", ["alpaca"]),
            *self.mixed(),
            *self.responders(),
            *self.router(STAGES / "3_router", FOLDER, config("mogu/real/router"), *pairs),
        ]

    def responders(self) -> list[Step]:
        """Train and export both responders."""
        steps = []
        for stage, name in (("1_glad", "glad"), ("2_unwilling", "unwilling")):
            fit = config(f"mogu/{stage}")
            steps.append(self.run("fit", fit, STAGES / stage, "--model.optimizer.lr", RATE, *self.base))
            steps.append(self.export(STAGES / stage, STAGES / name, "peft", "best"))
        return steps

    def router(self, root: Path, output: Path, files: Words, *words: str | Path) -> list[Step]:
        """Train the routers and export the MoGU folder."""
        requests = self.data / WATCHED
        watched: Words = ["--data.val_requests", requests, "--data.val_fields", "{question: Instruction}"]
        fit = self.run("fit", [*config("mogu/3_router"), *files], root, *watched, *self.base, *words)
        return [fit, self.export(root, output, "mogu", "best")]

    def tuned(self, name: str) -> list[Step]:
        """A fine-tune on MoGU's pairs, as supervised data, and its test after so many steps."""
        root = STAGES / name
        data: Words = ["--data.path", MIXED / "sft.train.jsonl", "--data.val_path", MIXED / "sft.val.jsonl"]
        kept = {"filename": "{step}", "every_n_train_steps": str(STEPS[0]), "save_top_k": "-1"}
        kept |= {"save_weights_only": "true", "save_on_train_epoch_end": "false"}
        words: list[str | Path] = ["--trainer.max_epochs", "-1", "--trainer.max_steps", str(STEPS[-1])]
        words.append("--trainer.callbacks+=lightning.pytorch.callbacks.ModelCheckpoint")
        for key, value in kept.items():
            words += [f"--trainer.callbacks.{key}", value]
        found = [self.run("fit", config("mogu/controls/safety_sft"), root, *data, *self.base, *TUNED[name], *words)]
        for steps in STEPS:
            condition, checkpoint = f"{name}_{steps}", f"step={steps}"
            if name == "lora":
                adapter = root / f"adapter_{steps}"
                found.append(self.export(root, adapter, "peft", checkpoint))
                files = config("mogu/controls/safety_sft_test")
                found.append(self.test(condition, "--model.adapter", adapter, files=files))
            else:
                saved: Words = ["--ckpt_path", root / f"checkpoints/{checkpoint}.ckpt"]
                found.append(self.requests(config("test"), TESTS / condition, *self.base, *saved))
        return found

    def test(self, condition: str, *words: str | Path, files: Words = ()) -> Step:
        """Attacks and benign requests on a part of each suite."""
        return self.requests([*config("mogu/4_test"), *files], TESTS / condition, *self.base, *words)


def _means(table: Rows, condition: str) -> tuple[float, float] | None:
    """Benign requests refused and attacks that succeed, means over the suites; None unless all are tested."""
    rows = {suite: table.find(condition, suite, _metric(suite)) for suite in SUITES}
    means = {suite: row.mean for suite, row in rows.items() if isinstance(row, Row)}
    if len(means) < len(SUITES):
        return None
    refused, attacked = (
        fmean(mean for suite, mean in means.items() if (suite in BENIGN) == benign) for benign in (True, False)
    )
    return refused, attacked


def _metric(suite: str) -> str:
    return "refusal_rate" if suite in BENIGN else "asr"
