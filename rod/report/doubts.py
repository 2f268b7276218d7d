"""What a reader of runs should doubt, told before anything else."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from callbacks.evaluation.report import Result
from rod.report.runs import Run
from rod.report.samples import files_of
from rod.report.settings import differing
from rod.report.tables import history, read_json

_FEW = 100
"""Questions below which a rate says little (ours): its 95 % interval is up to 20 points wide."""
_LIMITS = {"truncation": 0.02, "repetition": 0.02, "no_answer": 0.1, "unchecked": 0.01}
"""Shares above which a metric is doubted (ours)."""
_MEANINGS = {
    "truncation": "of the completions were cut off by the token budget; they count as wrong or unfinished",
    "repetition": "of the completions end in a loop",
    "no_answer": "of the completions have no answer that the rule finds; they count as wrong",
    "unchecked": "of the answers took too long to check; they count as wrong",
}
_AGREE = 0.9
"""Share of equal verdicts below which two judges disagree (ours)."""


@dataclass(frozen=True)
class Doubt:
    """A line for the reader about one or several runs; a ``note`` is no reason to distrust a number."""

    run: str
    text: str
    level: Literal["warning", "note"] = "warning"


def doubts_of(runs: Sequence[Run], left_out: int = 0) -> list[Doubt]:
    """All doubts, warnings first."""
    names: dict[str, list[str]] = {}
    for run in runs:
        for doubt in _of_run(run):
            names.setdefault(doubt.text, []).append(doubt.run)
    found = [Doubt(", ".join(of), text) for text, of in names.items()]
    found += _between(runs)
    if left_out:
        found.append(Doubt("", f"{left_out:,} further runs are left out of this page; give their folders", "note"))
    return sorted(found, key=lambda doubt: doubt.level != "warning")


def _of_run(run: Run) -> Iterator[Doubt]:
    if not run.finished:
        yield Doubt(run.name, "The run did not finish. What follows of it is what it had written.")
    for problem in [*run.problems, *(_lost(run) if run.finished else ())]:
        yield Doubt(run.name, problem)
    if run.kind == "fit" and not history(run.folder):
        yield Doubt(run.name, "The fit has no logs in its folder, so there are no curves of it.")
    few = [f"{result.cell} ({result.records})" for result in run.results if result.records < _FEW and not result.group]
    if few:
        yield Doubt(run.name, f"Few questions, so the intervals are wide: {', '.join(few)}.")
    for result in run.results:
        if not result.group:
            yield from (Doubt(run.name, f"{result.cell}: {text}") for text in _of_result(result))
    if run.kind == "evidence":
        yield from _seeds(run)


def _lost(run: Run) -> Iterator[str]:
    """What a finished run should have in its folder and has not."""
    tested = run.kind in ("test", "score")
    if tested and not (run.folder / "metrics.json").is_file():
        yield "metrics.json is missing, so there are no numbers. Score its predictions.jsonl with rod score."
    found = files_of(run)
    measured = sum(r.n for r in run.results if not r.group and r.kind != "perplexity")
    if measured and not any(path.name == "predictions.jsonl" for path in found):
        yield "predictions.jsonl is missing, so there are no samples, and nothing can be compared."
    for path in found:
        whole = _whole_lines(path)
        if whole is None:
            yield f"{path.name} ends in the middle of a line: a part of it is missing."
        elif path.name == "predictions.jsonl" and measured and whole != measured:
            yield f"{path.name} has {whole:,} completions, and {measured:,} were measured: it was cut or changed."


def _whole_lines(path: Path) -> int | None:
    """Lines of a file of records; None if the last one has no end."""
    count, last = 0, b"\n"
    with path.open("rb") as lines:
        for last in lines:
            count += bool(last.strip())
    return count if last.endswith(b"\n") else None


def _of_result(result: Result) -> Iterator[str]:
    for metric, limit in _LIMITS.items():
        value = result.value(metric)
        if value is not None and value > limit:
            yield f"{value:.1%} {_MEANINGS[metric]}."
    for metric, numbers in result.metrics.items():
        value = numbers.get("value")
        if metric.startswith("agreement/") and value is not None and value < _AGREE:
            kappa = numbers.get("kappa")
            more = "" if kappa is None else f" (Cohen's kappa {kappa:.2f})"
            first, _, second = metric.partition("/")[2].partition("_vs_")
            yield f"The judges {first} and {second} disagree on {1 - value:.1%} of the completions{more}."
    for name, count in result.failures.items():
        yield f"{count:,} of {result.n:,} completions were not measured: {name}."


def _seeds(run: Run) -> Iterator[Doubt]:
    """Conditions of the evidence with fewer seeds than others, and methods with one seed."""
    rows = read_json(run.folder / "summary.json")
    rows = [row for row in rows if isinstance(row, dict) and "seeds" in row] if isinstance(rows, list) else []
    by_method: dict[str, dict[str, int]] = {}
    for row in rows:
        seeds = by_method.setdefault(str(row.get("method")), {})
        seeds[str(row.get("condition"))] = max(seeds.get(str(row.get("condition")), 0), int(row["seeds"]))
    single = [method for method, seeds in by_method.items() if max(seeds.values()) == 1]
    if single:
        yield Doubt(run.name, f"One seed of {', '.join(single)}, so the spread over seeds is not known.")
    for method, seeds in by_method.items():
        most = max(seeds.values())
        fewer = [f"{name} ({count})" for name, count in seeds.items() if count < most]
        if fewer:
            yield Doubt(run.name, f"{method}: {most} seeds, but fewer of {', '.join(fewer)}.")


def _between(runs: Sequence[Run]) -> Iterator[Doubt]:
    single: list[str] = []
    for tests in groups_of(runs):
        for key, values in _settings(tests).items():
            if len(set(values)) > 1:
                told = "; ".join(f"{run.name}: {value}" for run, value in zip(tests, values, strict=True))
                yield Doubt("", f"Tests of the same suites differ in {key}: {told}.")
        if {run.seed for run in tests} == {tests[0].seed} and tests[0].seed is not None and len(tests) > 1:
            single += [run.name for run in tests]
    if single:
        yield Doubt(
            "", f"Tests with one seed each, so their spread over seeds is not known: {', '.join(single)}.", "note"
        )
    old = [run.name for run in runs if run.config and not run.starts]
    if old:
        told = ", ".join(old[:3]) + (f" and {len(old) - 3} more" if len(old) > 3 else "")
        yield Doubt("", f"Command, time and data were not recorded by an earlier version: {told}.", "note")


def groups_of(runs: Sequence[Run]) -> list[list[Run]]:
    """Runs with results of the same cells: those that can be compared, in the order given."""
    groups: dict[tuple[Any, ...], list[Run]] = {}
    for run in runs:
        if run.results:
            groups.setdefault(tuple(sorted({r.cell for r in run.results if not r.group})), []).append(run)
    return list(groups.values())


def _settings(tests: Sequence[Run]) -> dict[str, list[str]]:
    """What tests should have in common to be compared: decoding, judges, questions, limits and versions."""
    found: dict[str, list[str]] = {}
    generation = [run.metrics.get("settings", {}) for run in tests]
    if all(isinstance(own, dict) and own for own in generation):
        keys = dict.fromkeys(key for own in generation for key in own.get("generation", {}))
        found |= {key: [str(own.get("generation", {}).get(key)) for own in generation] for key in keys}
        found |= {key: [str(own.get(key)) for own in generation] for key in ("seed", "dtype", "precision")}
    found["judges"] = [", ".join(sorted(run.metrics.get("judges") or {})) or "none" for run in tests]
    names = [run.metrics.get("versions") or {} for run in tests]
    found |= {f"the version of {key}": [str(own.get(key)) for own in names] for key in dict.fromkeys(names[0])}
    prints = [{str(r.cell): r.fingerprint for r in run.results if not r.group} for run in tests]
    other = [cell for cell in prints[0] if len({own.get(cell) for own in prints}) > 1]
    if other:
        found[f"the questions of {', '.join(other)}"] = ["the first", *("others" for _ in tests[1:])]
    with_config = all(run.config for run in tests)
    for key, values in differing(tests) if with_config else ():
        if key.startswith("data.") and key.rpartition(".")[2] in (
            "limit",
            "samples",
            "max_new_tokens",
            "chat_template",
        ):
            found[key] = values
    return found
