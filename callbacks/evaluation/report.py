"""The results of an evaluation: ``metrics.json``, numbers for loggers."""

import hashlib
import json
import math
import re
import warnings
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, NamedTuple

from callbacks.evaluation.measures import Baseline, Measures, Values
from callbacks.evaluation.metrics import aes
from callbacks.evaluation.statistics import Records, perplexity_of
from datamodules.completions.thoughts import UNFINISHED
from datamodules.errors import InputError
from datamodules.suites.predictions import Prediction, ScoredResponse

BASELINE_SYSTEM = "system2"
"""System instruction of the base model's answers that AES is measured against (paper)."""


class Cell(NamedTuple):
    """Predictions that are measured together. An empty ``group`` means all groups of the suite."""

    suite: str
    system: str = "plain"
    attack_template: str = "none"
    group: str = ""

    def parts(self) -> list[str]:
        """The suite, and the other values that are not the default."""
        defaults = ("plain", "none", "")
        return [self.suite, *(value for value, default in zip(self[1:], defaults, strict=True) if value != default)]

    def __str__(self) -> str:
        return " ".join(self.parts())


@dataclass(frozen=True)
class Result:
    """The metrics of one cell.

    Attributes:
        suite, system, attack_template, group: The cell.
        kind: Kind of the suite.
        n: Number of completions.
        records: Number of distinct questions.
        fingerprint: Hash of ids, questions and gold answers; equal for runs that can be compared.
        metrics: By name, ``value`` and its companions (``low``, ``high``, ``std`` over samples, ...); None if unknown.
        failures: Counts of completions that could not be measured: answers over the time limit, errors of each judge.
        by_sample: Accuracy and tokens of each sample, if there are several.
        clusters: Number of clusters that intervals are over; None if each question is its own.
    """

    suite: str
    system: str
    attack_template: str
    group: str
    kind: str
    n: int
    records: int
    fingerprint: str
    metrics: dict[str, dict[str, float | None]]
    failures: dict[str, int]
    by_sample: list[dict[str, float | None]]
    clusters: int | None = None

    @property
    def cell(self) -> Cell:
        """The cell of these metrics."""
        return Cell(self.suite, self.system, self.attack_template, self.group)

    def value(self, metric: str) -> float | None:
        """The value of a metric; None if it was not measured."""
        return self.metrics.get(metric, {}).get("value")


def results_of(predictions: Iterable[Prediction], baseline: dict[str, Baseline] | None = None) -> list[Result]:
    """The results of all cells of scored predictions, in order of appearance; ``baseline`` is that of AES by suite."""
    cells: dict[Cell, list[Prediction]] = defaultdict(list)
    grouped: dict[Cell, list[Prediction]] = defaultdict(list)
    for p in predictions:
        cells[Cell(p.suite, p.system, p.attack_template)].append(p)
        if p.group:
            grouped[Cell(p.suite, p.system, p.attack_template, p.group)].append(p)
    order = [cell for whole in cells for cell in (whole, *sorted(c for c in grouped if c[:3] == whole[:3]))]
    # A baseline has no groups, and a group cannot be scored against a whole suite.
    bases = {cell: base for cell in cells if (base := (baseline or {}).get(cell.suite)) is not None}
    results = [_result(cell, (cells | grouped)[cell], bases.get(cell)) for cell in order]
    for result in results:
        base = bases.get(result.cell)
        if base is not None and base.fingerprint not in ("", result.fingerprint):
            warnings.warn(
                f"AES of {result.cell}: the baseline was measured on other questions; test the base model on the same",
                stacklevel=2,
            )
    return results


def perplexities(responses: Iterable[ScoredResponse]) -> list[Result]:
    """The results of perplexity suites."""
    suites: dict[str, list[ScoredResponse]] = defaultdict(list)
    for response in responses:
        suites[response.suite].append(response)
    found = []
    for suite, scored in suites.items():
        metric = Records(perplexity_of)
        ids = [r.id for r in scored]
        metric.update(ids, ids, [r.nll for r in scored], [r.n_tokens for r in scored])
        metrics = {"perplexity": _known(metric.compute())}
        found.append(
            Result(suite, "plain", "none", "", "perplexity", len(ids), len(ids), fingerprint(ids), metrics, {}, [])
        )
    return found


def read_baseline(path: Path, model: str = "") -> dict[str, Baseline]:
    """Read accuracy and tokens by suite from the base model's ``metrics.json``: its System 2 answers (paper).

    For a suite without System 2 prompts, the answers to the others are taken. InputError if the file cannot be read, is
    no ``metrics.json``, or has no suite with accuracy and tokens; it says how to test ``model``.
    """
    if not path.is_file():
        of_it = f" --model.backbone {model}" if model not in ("", "miniature") else ""
        raise InputError(
            f"evaluate.baseline: there is no file '{path}'; test the base model first, as in rod test --config "
            f"s3cot/6_test --config s3cot/controls/base{of_it}, or give null for a test without AES"
        )
    found: dict[str, Baseline] = {}
    for result in read_results(path):
        accuracy, tokens = result.value("accuracy"), result.value("tokens")
        if result.group or result.attack_template != "none" or result.kind not in ("", "answers"):
            continue
        if accuracy is None or tokens is None:
            continue
        if result.suite not in found or result.system == BASELINE_SYSTEM:
            found[result.suite] = Baseline(accuracy, tokens, result.fingerprint)
    if not found:
        raise InputError(
            f"{path}: no suite has accuracy and tokens; test the base model on questions with gold answers"
        )
    return found


def model_of(path: Path) -> str:
    """The model that a ``metrics.json`` is about; empty if it does not say."""
    try:
        return str(json.loads(path.read_text(encoding="utf-8")).get("model") or "")
    except (OSError, ValueError, AttributeError):
        return ""


def read_results(path: Path) -> list[Result]:
    """Read the results of a ``metrics.json``. InputError if the file cannot be read or is no ``metrics.json``."""
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))["results"]
        # Files of earlier versions call the attack template "wrap", and have other names for some metrics.
        entries = [{"attack_template" if k == "wrap" else k: v for k, v in e.items()} for e in entries]
        return [Result(**e | {"metrics": {_renamed(k): dict(v) for k, v in e["metrics"].items()}}) for e in entries]
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); give the metrics.json of a test run") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path}: not a metrics.json of a test run") from error


def _renamed(metric: str) -> str:
    """Today's name of a metric: ``accuracy_box`` for ``accuracy/box``, ``agreement/a_vs_b`` for ``agreement/a~b``."""
    return re.sub(r"^(accuracy|tokens)/", r"\1_", metric).replace("~", "_vs_")


def library_versions() -> dict[str, str]:
    """The versions of the libraries that the numbers come from."""
    return {name: version(name) for name in ("torch", "lightning", "transformers", "peft")}


def metrics_json(results: Sequence[Result], about: dict[str, Any]) -> str:
    """The content of ``metrics.json``: ``about`` (model, settings, judges, ...) and the results."""
    macro = macro_aes(results)
    content = about | {"macro": macro, "results": [asdict(result) for result in results]}
    return json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)


def macro_aes(results: Sequence[Result]) -> dict[str, float | None]:
    """AES of macro-averages over suites, by system (paper); left out for fewer than two suites with AES."""
    found: dict[str, float | None] = {}
    for system in dict.fromkeys(result.system for result in results):
        own = [result.metrics for result in results if result.system == system and not result.group]
        scored = [metrics for metrics in own if "base_accuracy" in metrics.get("aes", {})]
        if len(scored) > 1:
            places = (("accuracy", "value"), ("tokens", "value"), ("aes", "base_accuracy"), ("aes", "base_tokens"))
            score = aes(*(fmean(metrics[name][key] or 0.0 for metrics in scored) for name, key in places))
            found[system] = score if math.isfinite(score) else None
    return found


def scalars(results: Sequence[Result]) -> dict[str, float]:
    """The results as numbers for loggers, by keys such as ``test/gsm8k/system2/accuracy``."""
    found = {}
    for result in results:
        place = "/".join(result.cell.parts())
        for name, numbers in result.metrics.items():
            value = numbers.get("value")
            if value is not None:
                found[f"test/{place}/{name}"] = value
    return found


def fingerprint(records: Iterable[str]) -> str:
    """A short hash of a set of texts, independent of their order."""
    digest = hashlib.blake2b(digest_size=8)
    for record in sorted(set(records)):
        digest.update(record.encode("utf-8", "surrogatepass") + b"\0")
    return digest.hexdigest()


def _result(cell: Cell, predictions: list[Prediction], baseline: Baseline | None) -> Result:
    metrics = _measure(predictions, baseline)
    samples = sorted({p.sample for p in predictions})
    parts = [_measure([p for p in predictions if p.sample == s], baseline) for s in samples] if len(samples) > 1 else []
    if parts:
        for name, numbers in metrics.items():
            values = [part[name]["value"] for part in parts if name in part and part[name]["value"] is not None]
            if len(values) > 1:
                numbers["std"] = stdev(float(value or 0.0) for value in values)
    if "aes" in metrics and baseline is not None:
        metrics["aes"] |= {"base_accuracy": baseline.accuracy, "base_tokens": baseline.tokens}
    failures = {"answers over the time limit": sum(p.unchecked for p in predictions)}
    failures["unfinished thoughts"] = sum(any(v.error == UNFINISHED for v in p.verdicts) for p in predictions)
    for p in predictions:
        for verdict in (*p.verdicts, *p.thought_verdicts):
            if verdict.error not in (None, UNFINISHED):
                failures[f"judge {verdict.judge}"] = failures.get(f"judge {verdict.judge}", 0) + 1
    questions = {p.question_id or p.id: p for p in predictions}
    return Result(
        *cell,
        kind=predictions[0].kind,
        n=len(predictions),
        records=len(questions),
        fingerprint=fingerprint(f"{key}\0{p.question}\0{p.gold}" for key, p in questions.items()),
        metrics=metrics,
        failures={name: count for name, count in failures.items() if count},
        by_sample=[
            {"sample": sample} | {name: part[name]["value"] for name in ("accuracy", "tokens", "aes") if name in part}
            for sample, part in zip(samples, parts, strict=False)
        ],
        clusters=len({p.unit for p in predictions}) if any(p.cluster for p in predictions) else None,
    )


def _measure(predictions: Sequence[Prediction], baseline: Baseline | None) -> dict[str, dict[str, float | None]]:
    measures = Measures(baseline)
    measures.update(predictions)
    return {name: _known(numbers) for name, numbers in measures.compute().items()}


def _known(numbers: Values) -> dict[str, float | None]:
    return {name: value if math.isfinite(value) else None for name, value in numbers.items()}
