"""A trial of `benchmarks/reliability.py`, and what its products are compared with."""

import collections
import json
from dataclasses import dataclass, field
from pathlib import Path

import torch

from benchmarks.reliability_jobs import JOBS


@dataclass
class Trial:
    """What happened to a job and what came of it."""

    number: int
    fault: str
    job: str
    hit: bool = False
    """Whether the job was still at work when it happened."""
    counts: dict[str, int] = field(default_factory=dict)

    def add(self, what: str, n: int = 1) -> None:
        """Count."""
        if n:
            self.counts[what] = self.counts.get(what, 0) + n


def compare(trial: Trial, whole: Path, found: Path) -> None:
    """Count what differs between the products of the undisturbed run and those of the trial."""
    for pattern in JOBS[trial.job].products:
        for expected in sorted((whole / trial.job).glob(pattern)):
            path = found / trial.job / expected.relative_to(whole / trial.job)
            if not path.is_file():
                trial.add("lost")
            elif path.suffix == ".jsonl":
                _compare_lines(trial, expected, path)
            elif path.suffix == ".ckpt":
                trial.add("differs", not _same_weights(expected, path))
            else:
                trial.add("differs", expected.read_bytes() != path.read_bytes())


def _compare_lines(trial: Trial, expected: Path, found: Path) -> None:
    wanted, lines = (path.read_bytes().splitlines() for path in (expected, found))
    own, seen = (collections.Counter(filter(None, map(_key, of))) for of in (wanted, lines))
    counts = {
        "torn": len(lines) - seen.total(),
        "doubled": sum(max(0, seen[key] - n) for key, n in own.items()),
        "lost": (own - seen).total(),
    }
    for what, n in counts.items():
        trial.add(what, n)
    trial.add("differs", seen.keys() - own.keys() != set() or (not any(counts.values()) and wanted != lines))


def _key(line: bytes) -> str:
    """What tells a row from others: its id or, without one, all of it; empty if it is torn."""
    try:
        return str(json.loads(line).get("id", line))
    except ValueError:
        return ""


def _same_weights(expected: Path, found: Path) -> bool:
    one, other = (torch.load(path, weights_only=True)["state_dict"] for path in (expected, found))
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
