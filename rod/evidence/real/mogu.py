"""MoGU's evidence on SmolLM2-135M-Instruct: the commands of its page, on published requests."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean

from rod.evidence.commands import Words
from rod.evidence.figures import ConditionPoint, plot_safety
from rod.evidence.real.commands import (
    BENIGN,
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
SFT = STAGES / "safety_sft"
PAPER = STAGES / "paper"
"""Routers of the paper's pairs and mask."""
WATCHED = "alpaca_subsets/eval_wizardlm_test_set.jsonl"
"""Benign requests that over-refusal is measured on while the routers learn."""
RATE = "2e-4"
"""Learning rate of the responders and of the LoRA fine-tune, for a model of 135M parameters (ours)."""
CONDITIONS = ("base", "unwilling", "mogu", "mogu_always", "mogu_paper", "safety_sft", "self_reminder")


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
        do = _Commands(folder, seed, self.data)
        mixed: Words = ["--data.pairs", MIXED / "pairs.train.jsonl", "--data.val_pairs", MIXED / "pairs.val.jsonl"]
        found = [do.model(), *map(do.answers, SOURCES)]
        found += [do.pairs(STAGES / "pairs", ["alpaca"]), do.mixed(), *do.responders()]
        found += do.router(STAGES / "3_router", STAGES / "mogu", config("mogu/real/router"), *mixed)
        found += [do.test("base", "--model.mode", "off"), do.test("mogu", "--trainer.callbacks+=SuiteGates")]
        if not controls:
            return found
        found += do.router(PAPER / "3_router", PAPER / "mogu", (), "--model.penalty_mask", "all")
        sft: Words = ["--data.path", MIXED / "sft.train.jsonl", "--data.val_path", MIXED / "sft.val.jsonl"]
        sft = [*sft, "--model.optimizer.lr", RATE, *do.base]
        found.append(do.run("fit", config("mogu/controls/safety_sft"), SFT, *sft))
        found.append(do.export(SFT, SFT / "adapter", "peft", "best"))
        return [
            *found,
            do.test("unwilling", "--model.mode", "unwilling"),
            do.test("mogu_always", "--model.mode", "always"),
            do.test("mogu_paper", "--model.folder", PAPER / "mogu"),
            do.test("safety_sft", files=config("mogu/controls/safety_sft_test")),
            do.test("self_reminder", files=config("mogu/controls/self_reminder")),
        ]

    def values(self, folder: Path) -> Iterator[Value]:
        """All numbers of one seed, read from its runs."""
        for name in CONDITIONS:
            if (path := folder / TESTS / name / "metrics.json").is_file():
                yield from values_of_test(path, name, {suite: suite for suite in SUITES})

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
        points = []
        for condition in CONDITIONS:
            rows = {suite: table.find(condition, suite, _metric(suite)) for suite in SUITES}
            if all(rows.values()):
                means = {suite: row.mean for suite, row in rows.items() if isinstance(row, Row)}
                refused, attacked = (
                    fmean(mean for suite, mean in means.items() if (suite in BENIGN) == benign)
                    for benign in (True, False)
                )
                hollow = not condition.startswith("mogu")
                points.append(ConditionPoint(condition, refused, attacked, hollow=hollow))
        if points:
            plot_safety(points, folder / "safety.png", "XSTest safe and just_eval, refused", "attacks that succeed")


class _Commands(RealCommands):
    """Steps of one seed."""

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

    def test(self, condition: str, *words: str | Path, files: Words = ()) -> Step:
        """Attacks and benign requests on a part of each suite."""
        return self.requests([*config("mogu/4_test"), *files], TESTS / condition, *self.base, *words)


def _metric(suite: str) -> str:
    return "refusal_rate" if suite in BENIGN else "asr"
