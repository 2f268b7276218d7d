"""``rod score``: score completions in files without a model, this project's own or another's."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from datamodules.answers import AnswerChecker, AnswerRule
from datamodules.errors import InputError
from datamodules.suites.external import External, Fields, SetAside, read_external, read_own
from datamodules.suites.references import Meaning
from llm_modules.judges import Judge
from rod import classes

if TYPE_CHECKING:
    from callbacks.evaluation.references import ReferenceAgreement
    from datamodules.suites.predictions import Prediction

classes.load(classes.JUDGES)

_STEP = 500
"""Answers checked between two moves of the progress bar."""


@dataclass(frozen=True)
class Judging:
    """The options that ``rod test`` has under ``evaluate``, so that the same YAML fragments serve both.

    Attributes:
        judges: Judges of safety and benign completions; by default the refusal classifier and the phrase rule.
        baseline: ``metrics.json`` of a base model, for AES.
        judge_thoughts: Let the judges judge the thoughts too, apart from the answers.
    """

    judges: list[Judge] | None = None
    baseline: Path | None = None
    judge_thoughts: bool = False


def run(
    predictions: Sequence[str] = (),
    /,
    *,
    output: Path,
    name: str = "",
    kind: Literal["answers", "safety", "benign"] = "answers",
    answer: AnswerRule | None = None,
    evaluate: Judging = Judging(),
    reference_labels: dict[str, Meaning] | None = None,
    tokenizer: str = "",
    strict: bool = False,
    overwrite: bool = False,
    **fields: str,
) -> None:
    """Score completions in files, and write predictions.jsonl and metrics.json.

    Without ``--completion`` the files are ``predictions.jsonl`` of this project, whose lines say how they are scored.
    With it they may be any JSONL, JSON, CSV, TSV or Parquet files; the options map their fields by expressions such as
    ``--completion response`` or ``--gold "record['175b'].answer"``. A list of completions counts as samples of the
    line.

    Args:
        predictions: Files, or glob patterns.
        output: Folder for the results.
        name: Name of the set in the results; the file's name by default.
        kind: Kind of the set.
        answer: How answers are found and read. For a ``predictions.jsonl`` of this project it replaces the rule of its
            lines.
        evaluate: Judges, and the baseline of AES.
        reference_labels: Meaning of labels in ``--reference`` of safety and benign sets that are not known.
        tokenizer: Folder of a tokenizer, or its hub id, to count the tokens of completions without a count.
        strict: Stop at the first line that cannot be scored. By default such lines are set aside and counted.
        overwrite: Replace the results of an earlier run.
        fields: Expressions over the fields of external files, see `Fields`.
    """
    from callbacks.evaluation.budgets import budgets_json
    from callbacks.evaluation.report import library_versions, metrics_json, read_baseline, results_of
    from callbacks.evaluation.scoring import ask_judges, default_judges
    from callbacks.evaluation.table import answer_hints, print_table
    from datamodules.records.reader import to_json
    from datamodules.records.shards import write_lines
    from datamodules.suites.token_places import count_tokens
    from rod.files import expand, require_new

    expressions = Fields(**fields)
    files = {key: output / f"{key}.jsonl" for key in ("predictions", "disagreements", "set_aside")}
    files["metrics"] = output / "metrics.json"
    require_new(list(files.values()), overwrite)
    judges = default_judges() if evaluate.judges is None else evaluate.judges
    paths = expand("predictions", predictions)
    base = read_baseline(evaluate.baseline) if evaluate.baseline else None
    for judge in judges:
        judge.check()
    reading = _Reading(expressions, name, kind, answer, reference_labels, strict)
    with AnswerChecker() as checker:
        found = _read(paths, reading, checker)
        if not judges and any(p.kind != "answers" for p in found.predictions):
            raise InputError("evaluate.judges: there is no judge for safety and benign completions; name at least one")
        counted = count_tokens(found.predictions, tokenizer) if tokenizer else found.predictions
        scored = ask_judges(_checked(counted, checker), judges, evaluate.judge_thoughts)
        budgets = budgets_json(scored, checker)
        agreements, disagreements = _held_against(scored, found, checker)
    results = results_of(scored, base)
    about: dict[str, Any] = {
        "files": [str(path) for path in paths],
        "judges": {judge.name: dict(judge.identity()) for judge in judges},
        "baseline_file": str(evaluate.baseline) if evaluate.baseline else None,
        "versions": library_versions(),
        "set_aside": len(found.set_aside),
        "references": [asdict(agreement) for agreement in agreements],
        "budgets": budgets,
    }
    write_lines(files["predictions"], map(to_json, scored))
    write_lines(files["metrics"], [metrics_json(results, about)])
    for key, rows in (("disagreements", disagreements), ("set_aside", [asdict(line) for line in found.set_aside])):
        files[key].unlink(missing_ok=True)
        if rows or (key == "disagreements" and found.references):
            write_lines(files[key], (json.dumps(row, ensure_ascii=False) for row in rows))
    hints = [*_aside_hint(found, files["set_aside"]), *found.hints, *answer_hints(scored)]
    if without := sum(p.n_tokens is not None and p.thought_tokens is None for p in scored) if tokenizer else 0:
        hints.append(
            f"{without:,} of {len(scored):,} completions have no budgets: the file counts their tokens otherwise than "
            f"{tokenizer} does; leave --tokens out to count by it"
        )
    print_table(results, ", ".join(str(path) for path in paths), hints=hints)
    if agreements:
        _print_agreements(agreements, len(disagreements), files["disagreements"])


@dataclass(frozen=True)
class _Reading:
    """How files are read."""

    fields: Fields
    name: str
    kind: Literal["answers", "safety", "benign"]
    answer: AnswerRule | None
    labels: dict[str, Meaning] | None
    strict: bool


def _read(paths: Sequence[Path], how: _Reading, checker: AnswerChecker) -> External:
    """The predictions of all files whose gold answers can be compared, and the references of external files."""
    found = External()
    for path in paths:
        if how.fields.completion:
            suite, rule = how.name or path.stem, how.answer or AnswerRule()
            part = read_external(path, how.fields, suite, how.kind, rule, how.labels, how.strict)
        else:
            _check_options(how)
            part = read_own(path, how.answer)
        part = _readable_golds(path, part, how.strict, checker)
        found.predictions.extend(part.predictions)
        found.references.update(part.references)
        found.set_aside.extend(part.set_aside)
        found.hints.extend(part.hints)
    if twice := next((key for key, count in Counter(p.id for p in found.predictions).items() if count > 1), None):
        raise InputError(f"predictions: '{twice}' is in several files; score them separately, or give --id")
    return found


def _readable_golds(path: Path, found: External, strict: bool, checker: AnswerChecker) -> External:
    """Set aside what has a gold answer that cannot be compared; an error if that is everything, or if ``strict``."""
    from datamodules.answers.gold import readable, require_gold

    unfit: set[str] = set()
    for rule in dict.fromkeys(p.rule for p in found.predictions):
        known = [p for p in found.predictions if p.rule == rule and p.gold is not None]
        golds, options = [p.gold or "" for p in known], [p.options for p in known]
        fine = readable(rule, golds, checker, options)
        if not all(fine) and (strict or not any(fine)):
            places = [f"{found.places[p.id]}: suite '{p.suite}': gold" for p in known]
            require_gold(rule, golds, checker, options, places)
        unfit |= {p.id for p, good in zip(known, fine, strict=True) if not good}
    if not unfit:
        return found
    aside: dict[str, SetAside] = {}
    for p in found.predictions:
        if p.id in unfit:
            place = found.places[p.id]
            reason = f"{place}: suite '{p.suite}': gold: {(p.gold or '')[:60]!r} cannot be read as {p.rule.type}"
            aside.setdefault(place, SetAside(place, reason))
    return External(
        [p for p in found.predictions if p.id not in unfit],
        {key: value for key, value in found.references.items() if key not in unfit},
        found.places,
        [*found.set_aside, *aside.values()],
        found.hints,
    )


def _check_options(how: _Reading) -> None:
    """Without ``--completion``, raise an error for options that would have no effect."""
    asked = [key for key, text in asdict(how.fields).items() if key not in ("completion", "question") and text]
    if asked or how.name or how.fields.question != "question":
        option = (asked or (["name"] if how.name else ["question"]))[0]
        raise InputError(
            f"--{option}: has no effect on a predictions.jsonl of this project, whose lines have this already; for "
            "completions of another project, give --completion too"
        )


def _checked(predictions: "Sequence[Prediction]", checker: AnswerChecker) -> "list[Prediction]":
    """The predictions with their answers checked, behind a progress bar."""
    from rich.console import Console
    from rich.progress import Progress

    from callbacks.evaluation.places import check_places
    from callbacks.evaluation.scoring import check_answers

    errors = Console(stderr=True)
    checked: list[Prediction] = []
    with Progress(console=errors, disable=not errors.is_terminal, transient=True) as progress:
        task = progress.add_task("checking answers", total=len(predictions))
        for start in range(0, len(predictions), _STEP):
            checked += check_places(check_answers(predictions[start : start + _STEP], checker), checker)
            progress.update(task, completed=len(checked))
    return checked


def _held_against(
    scored: "Sequence[Prediction]", found: External, checker: AnswerChecker
) -> "tuple[list[ReferenceAgreement], list[dict[str, object]]]":
    """Agreement with the references, and the disagreements."""
    from callbacks.evaluation.references import compare_answers, compare_judges

    if not found.references:
        return [], []
    if any(p.kind == "answers" for p in scored):
        return compare_answers(scored, found.references, checker)
    agreements, disagreements = compare_judges(scored, found.references)
    if not agreements:
        raise InputError("--reference: no completion has a label; check the expression")
    return agreements, disagreements


def _print_agreements(agreements: "Sequence[ReferenceAgreement]", disagreements: int, path: Path) -> None:
    from callbacks.columns import terminal
    from callbacks.evaluation.references import print_judges

    console = terminal()
    if any(a.judge for a in agreements):
        print_judges(agreements, console)
    else:
        n = sum(a.n for a in agreements)
        same = n - disagreements
        line = f"agreement with the reference: {same} of {n} ({same / n:.2%})"
        console.print(line, highlight=False, soft_wrap=True)
    console.print(f"{disagreements} disagreements in {path}", highlight=False, soft_wrap=True)


def _aside_hint(found: External, path: Path) -> list[str]:
    """How many lines were set aside, and why some of them."""
    if not found.set_aside:
        return []
    some = "; ".join(line.reason for line in found.set_aside[:3])
    more = f"; and {len(found.set_aside) - 3} more" if len(found.set_aside) > 3 else ""
    return [f"{len(found.set_aside)} lines cannot be scored, count nowhere, and are set aside in {path}: {some}{more}"]
