"""Building blocks of a method's evidence: ``rod`` commands of one seed."""

from collections.abc import Sequence
from pathlib import Path

from rod.run_folder import DONE
from rod.steps import Step

Words = Sequence[str | Path]


class Commands:
    """Steps of one seed, run in a folder of the seed's own."""

    def __init__(self, folder: Path, seed: int) -> None:
        """Work in ``folder`` with ``seed``."""
        self.folder, self.seed = folder, seed

    def step(self, words: Words, product: Path) -> Step:
        """A command, named after the file or run folder that it leaves."""
        place = product.parent if product.name == DONE else product
        return Step(f"seed {self.seed}: {place}", words, product, self.folder)

    def run(self, verb: str, files: Words, root: Path, *words: str | Path) -> Step:
        """A command of Lightning's, with the seed for everything that it draws."""
        seed = ["--seed_everything", str(self.seed)]
        return self.step([verb, *files, "--trainer.default_root_dir", root, *words, *seed], root / DONE)

    def export(self, root: Path, output: Path, kind: str = "merged", name: str = "last") -> Step:
        """Export a checkpoint of a fit; the tokenizer is written last."""
        words: list[str | Path] = ["export", "--format", kind, "--checkpoint", root / f"checkpoints/{name}.ckpt"]
        words += ["--output", output, "--overwrite", "true"]
        return self.step(words, output / "tokenizer_config.json")
