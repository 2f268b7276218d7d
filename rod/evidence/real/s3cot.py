"""S³-CoT's evidence on SmolLM2-135M, which is taught arithmetic first: commands and tables."""

from collections.abc import Sequence
from pathlib import Path

from rod.evidence.commands import Words
from rod.evidence.real.arithmetic import FILES, TESTED
from rod.evidence.real.commands import RealCommands
from rod.evidence.s3cot.evidence import S3CoTEvidence
from rod.evidence.s3cot.steps import S3CoTCommands, steps_of
from rod.run_folder import DONE
from rod.steps import Step, config

PROBLEMS = Path("runs/problems")
FRAGMENTS = {
    "s3cot/1_direction": "1_direction",
    "s3cot/2_calibrate": "2_calibrate",
    "s3cot/3_sample": "3_sample",
    "s3cot/5_curriculum": "5_curriculum",
    "s3cot/6_test": "6_test",
    "s3cot/controls/sweep": "sweep",
    "crisp/1_distill": "distill",
}
"""Configuration of a stage -> its fragment for this model in ``s3cot/real/arithmetic``."""


class RealS3CoTEvidence(S3CoTEvidence):
    """The evidence of S³-CoT on a real model."""

    model = "SmolLM2-135M, taught arithmetic"
    suites: Sequence[str] = TESTED
    files: Sequence[str] = FILES

    def __init__(self, data: Path) -> None:
        """Take the folder of the published data sets."""
        self.data = data.resolve()

    def steps(self, folder: Path, seed: int, controls: bool) -> list[Step]:
        """The commands of one seed; all seeds share the taught model and the problems."""
        return steps_of(RealS3CoTCommands(folder, seed, self.data), controls)


class RealS3CoTCommands(RealCommands, S3CoTCommands):
    """The stages with their fragments for this model."""

    def __init__(self, folder: Path, seed: int, data: Path) -> None:
        super().__init__(folder, seed, data)
        self.teaching, self.taught = folder.parent / "teaching", folder.parent / "smollm2-arithmetic"

    def files(self, *names: str) -> Words:
        """``--config`` words of a stage, each followed by its fragment."""
        found: list[str | Path] = []
        for name in names:
            found += config(name)
            if fragment := FRAGMENTS.get(name):
                found += config(f"s3cot/real/arithmetic/{fragment}")
        return found

    def run(self, verb: str, files: Words, root: Path, *words: str | Path) -> Step:
        """A command on the taught model."""
        return super().run(verb, files, root, *words, "--model.backbone", self.taught)

    def prepared(self) -> list[Step]:
        """Fetch the model, write the problems, teach it once."""
        teach = ["fit", *config("s3cot/real/arithmetic/teach"), "--trainer.default_root_dir", self.teaching]
        return [
            self.model(),
            self.step(["real-problems", "--data", self.data, "--output", PROBLEMS], PROBLEMS / "test.svamp.jsonl"),
            self.step([*teach, *self.base], self.teaching / DONE),
            self.export(self.teaching, self.taught),
        ]
