"""The commands behind S³-CoT's evidence: those of its page, run in a folder of the seed's own."""

from pathlib import Path

from rod.evidence.commands import Commands, Words
from rod.steps import Step, config

STAGES = Path("runs/s3cot")
"""Folder of the stages, as the shipped configurations name it."""
TRACES = STAGES / "3_sample/traces/traces.jsonl"
ITEMS = {"gold": STAGES / "4_filter/items.jsonl", "agreement": STAGES / "4_filter/items_agreement.jsonl"}
"""Filter -> what it keeps."""

TRAINED: dict[str, Words] = {
    "tuned": [],
    "tuned_no_gold": ["--data.items", ITEMS["agreement"]],
    "shortest_only": ["--data.selection", "shortest_only"],
    "no_curriculum": ["--data.selection", "all_at_once"],
}
"""Condition -> what it adds to ``5_curriculum.yaml``."""

DISTILLED = "self_distilled"
"""Condition: CRISP, which shortens answers without traces of them."""
CONDITIONS = (*TRAINED, DISTILLED)

SWEEPS: dict[str, Words] = {
    "steered": [],
    "steered_all": ["--steer.positions", "all"],
    "steered_prompt": ["--steer.positions", "prompt"],
    "steered_generated": ["--steer.positions", "generated"],
    "random_direction": ["--steer.random", "true"],
}
"""Condition -> what it adds to the strength sweep on test problems."""


def swept(condition: str) -> Path:
    """The run folder of a strength sweep."""
    return STAGES / "sweep" / condition


def root_of(condition: str) -> Path:
    """The run folder in which a condition is trained."""
    return Path("runs/crisp/1_distill") if condition == DISTILLED else STAGES / "5_curriculum" / condition


class S3CoTCommands(Commands):
    """Steps of one seed."""

    def files(self, *names: str) -> Words:
        """``--config`` words of a stage."""
        return config(*names)

    def prepared(self) -> list[Step]:
        """What all seeds begin with: the questions."""
        return [self.step(["world"], Path("runs/world/questions.test.jsonl"))]

    def sampled(self) -> list[Step]:
        """The direction, the strength sweep and the traces."""
        choice: Words = ["--config", STAGES / "2_calibrate/choice.yaml"]
        offset = ["--data.offset", str(100 * self.seed)]
        return [
            self.run("predict", self.files("s3cot/1_direction"), STAGES / "1_direction", *offset),
            self.run("predict", self.files("s3cot/2_calibrate"), STAGES / "2_calibrate"),
            self.run("predict", [*self.files("s3cot/3_sample"), *choice], STAGES / "3_sample"),
        ]

    def filter(self, by: str) -> Step:
        """Keep right or agreeing traces."""
        words: Words = ["filter", "--traces", TRACES, "--by", by, "--output", ITEMS[by], "--overwrite", "true"]
        return self.step(words, ITEMS[by])

    def fit(self, condition: str, *words: str | Path) -> Step:
        """The curriculum, or a control of it."""
        return self.run("fit", self.files("s3cot/5_curriculum"), root_of(condition), *TRAINED[condition], *words)

    def distill(self) -> Step:
        """CRISP on the same questions, in place of all stages up to the curriculum."""
        return self.run("fit", self.files("crisp/1_distill"), root_of(DISTILLED))

    def test(self, condition: str) -> Step:
        """Both systems on test problems."""
        files = self.files("s3cot/6_test")
        if condition == "base":
            return self.run("test", [*files, *self.files("s3cot/controls/base")], STAGES / "6_test/base")
        checkpoint = root_of(condition) / "checkpoints/best.ckpt"
        return self.run("test", files, STAGES / "6_test" / condition, "--ckpt_path", checkpoint)

    def sweep(self, condition: str) -> Step:
        """Strengths on test problems."""
        files = self.files("s3cot/2_calibrate", "s3cot/controls/sweep")
        return self.run("predict", files, swept(condition), *SWEEPS[condition])


def tuned_steps(folder: Path, seed: int) -> list[Step]:
    """The commands up to the tuned model and its tests, for other methods to go on from."""
    return steps(folder, seed, controls=False)


def steps(folder: Path, seed: int, controls: bool, words_of_fit: Words = ()) -> list[Step]:
    """All commands of one seed; without controls, the base model and the tuned one."""
    return steps_of(S3CoTCommands(folder, seed), controls, words_of_fit)


def steps_of(do: S3CoTCommands, controls: bool, words_of_fit: Words = ()) -> list[Step]:
    """All commands of one seed, in the form that ``do`` gives them."""
    filters = ITEMS if controls else ("gold",)
    trained = tuple(TRAINED) if controls else ("tuned",)
    return [
        *do.prepared(),
        *do.sampled(),
        *(do.filter(by) for by in filters),
        *(do.fit(condition, *words_of_fit) for condition in trained),
        *([do.distill()] if controls else []),
        do.test("base"),
        *(do.test(condition) for condition in (CONDITIONS if controls else trained)),
        *(do.sweep(condition) for condition in (SWEEPS if controls else ())),
    ]
