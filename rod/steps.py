"""Run several ``rod`` commands in a row; after an interruption, finished ones are skipped."""

import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from rod.__main__ import main as rod
from rod.shipped import CONFIGS

console = Console()


@dataclass(frozen=True)
class Step:
    """One command; ``product`` is the file that it writes last: once it exists, the step is done.

    ``words`` come after ``rod``; the command works in ``folder``, where its relative paths start.
    """

    name: str
    words: Sequence[str | Path]
    product: Path
    folder: Path = Path()


def run_steps(steps: Sequence[Step], command: Callable[[list[str]], int] = rod) -> None:
    """Run the steps whose product does not exist yet, in order.

    SystemExit if a command failed, with its exit status.
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
    if words[0] == "fit":
        words += ["--resume", "auto"]
    status = command(words)
    if status != 0:
        raise SystemExit(status)
    if not step.product.exists():
        raise RuntimeError(f"`rod {' '.join(words)}` ended without writing {step.product}")
    console.print(f"{label}: {time.monotonic() - start:.0f} s", style="dim", highlight=False)


def config(*names: str) -> list[str | Path]:
    """``--config`` words for shipped configurations, such as ``config("s3cot/6_test", "s3cot/controls/base")``."""
    return [word for name in names for word in ("--config", CONFIGS / f"{name}.yaml")]
