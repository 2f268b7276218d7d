"""Whether the commands of an evidence fit together."""

from collections.abc import Sequence
from pathlib import Path

from rod.steps import Step


def assert_written_before_read(steps: Sequence[Step]) -> None:
    """Every run file that a command names was written by an earlier one, and no two write the same."""
    assert len({step.folder / step.product for step in steps}) == len(steps)
    made: set[Path] = set()
    for step in steps:
        words = [str(word) for word in step.words]
        own = words[words.index("--output" if "--output" in words else "--trainer.default_root_dir") + 1]
        for word in words:
            if word.endswith(".yaml") and "configs" in Path(word).parts:
                assert Path(word).is_file()
            elif word.startswith("runs/") and word != own:
                assert any((step.folder / word).is_relative_to(place) for place in made), (step.name, word)
        made.add(step.folder / own)
