"""What a test says in the end: metrics as JSON, and a table for the terminal."""

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import stdev
from typing import Any

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table

from datamodules.batch import System
from datamodules.errors import InputError
from llm_modules.metrics import Outcomes, Summary, aes


@dataclass(frozen=True)
class Baseline:
    """What AES is measured against: the base model's System 2 answers to the same questions.

    ``questions`` is the fingerprint of the questions, see `fingerprint`.
    """

    accuracy: float
    tokens: float
    questions: str

    def aes(self, summary: Summary) -> float:
        """The score of a summary against this."""
        return aes(summary.accuracy, summary.tokens, self.accuracy, self.tokens)


def baseline_of(outcomes: Outcomes) -> Baseline | None:
    """The System 2 part of some outcomes as a baseline, if they have any."""
    part = outcomes.of(system="system2")
    if "system2" not in outcomes.systems:
        return None
    summary = part.summary()
    return Baseline(summary.accuracy, summary.tokens, fingerprint(part))


def read_baseline(path: Path) -> Baseline:
    """The baseline in the ``metrics.json`` of a test of the base model.

    Raises:
        InputError: The file is not there or is none, or that test had no System 2 prompts.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))["systems"]["system2"]
        return Baseline(float(found["accuracy"]), float(found["tokens"]), str(found["questions_fingerprint"]))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); give the metrics.json of a test run") from error
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path}: is no metrics.json of a test with System 2 prompts and gold answers; test the base model with "
            "data.systems: [system1, system2]"
        ) from error


def fingerprint(outcomes: Outcomes) -> str:
    """A short hash of the set of questions, to tell whether two tests asked the same ones."""
    return hashlib.blake2b(np.unique(outcomes.keys[:, 1]).tobytes(), digest_size=8).hexdigest()


def describe_system(outcomes: Outcomes, baseline: Baseline | None) -> dict[str, Any]:
    """All numbers of one system's outcomes: over all samples, for each sample, and the spread over samples.

    Numbers that are not known are None. Standard deviations are those of the samples' means (n - 1).
    """
    by_sample = [
        {"sample": sample} | _numbers(outcomes.of(sample=sample), baseline, ("n", "accuracy", "tokens", "aes"))
        for sample in outcomes.samples
    ]
    return _numbers(outcomes, baseline) | {
        "questions_fingerprint": fingerprint(outcomes),
        "accuracy_std": _spread([entry["accuracy"] for entry in by_sample]),
        "tokens_std": _spread([entry["tokens"] for entry in by_sample]),
        "aes_std": _spread([entry["aes"] for entry in by_sample]),
        "by_sample": by_sample,
    }


def print_table(systems: dict[System, dict[str, Any]], title: str, console: Console | None = None) -> None:
    """Accuracy with its interval and its spread over samples, tokens, truncation, loops and AES, for people."""
    table = Table(title=title, box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for heading in ("prompt", "answers", "right %", "95 %", "tokens", "cut %", "loop %", "AES"):
        table.add_column(heading, justify="left" if heading == "prompt" else "right", no_wrap=True)
    for system, numbers in systems.items():
        table.add_row(
            system,
            f"{numbers['n']:,}",
            _with_spread(numbers, "accuracy", 100),
            f"{_number(numbers['accuracy_low'], 100)}-{_number(numbers['accuracy_high'], 100)}",
            _with_spread(numbers, "tokens", 1),
            _number(numbers["truncation"], 100),
            _number(numbers["repetition"], 100),
            _number(numbers["aes"], 1, digits=3),
        )
    (console or Console()).print(table)


def _numbers(outcomes: Outcomes, baseline: Baseline | None, names: Sequence[str] = ()) -> dict[str, Any]:
    summary = outcomes.summary()
    values = asdict(summary) | {"aes": baseline.aes(summary) if baseline else None}
    known = {name: None if isinstance(v, float) and not math.isfinite(v) else v for name, v in values.items()}
    return {name: known[name] for name in names or known}


def _spread(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return stdev(known) if len(known) > 1 else None


def _number(value: float | None, factor: float, digits: int = 1) -> str:
    return "-" if value is None else f"{factor * value:.{digits}f}"


def _with_spread(numbers: dict[str, Any], name: str, factor: float) -> str:
    spread = numbers[f"{name}_std"]
    digits = 0 if (numbers[name] or 0) >= 1000 else 1
    return _number(numbers[name], factor, digits) + ("" if spread is None else f" ± {factor * spread:.{digits}f}")
