"""Several ``rod`` commands in a row, each done once: what was finished is not run again after an interruption."""

import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

import configs
from rod.__main__ import main as rod

CONFIGS = Path(configs.__file__).parent
console = Console()


@dataclass(frozen=True)
class Step:
    """One command and the file that shows that it is done.

    Attributes:
        name: What the step is called while it runs.
        words: What follows ``rod`` on the command line.
        product: A file that the command writes last.
        resume_from: A checkpoint to go on from, where an interrupted command left one.
        folder: Where the command runs; relative paths of the step start there.
    """

    name: str
    words: Sequence[str | Path]
    product: Path
    resume_from: Path | None = None
    folder: Path = Path()


def run_steps(steps: Sequence[Step], command: Callable[[list[str]], int] = rod) -> None:
    """Run the steps whose product is not there yet, in order.

    Raises:
        SystemExit: A command failed; its message has been printed.
    """
    for number, step in enumerate(steps, start=1):
        label = f"[{number}/{len(steps)}] {step.name}"
        step.folder.mkdir(parents=True, exist_ok=True)
        with contextlib.chdir(step.folder):
            _run(step, label, command)


def _run(step: Step, label: str, command: Callable[[list[str]], int]) -> None:
    if step.product.exists():
        console.print(f"{label}: done before", style="dim", highlight=False)
        return
    console.print(label, style="bold", highlight=False)
    start = time.monotonic()
    words = [str(word) for word in step.words]
    if step.resume_from is not None and step.resume_from.exists():
        words += ["--ckpt_path", str(step.resume_from)]
    status = command(words)
    if status != 0:
        raise SystemExit(status)
    if not step.product.exists():
        raise RuntimeError(f"`rod {' '.join(words)}` ended without writing {step.product}")
    console.print(f"{label}: {time.monotonic() - start:.0f} s", style="dim", highlight=False)


def config(*parts: str) -> list[str | Path]:
    """``--config`` words for a file that comes with the project, such as ``config("s3cot", "1_direction.yaml")``."""
    return ["--config", CONFIGS.joinpath(*parts)]
