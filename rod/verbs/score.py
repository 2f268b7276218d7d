"""``rod score``: score completions in files without a model, this project's own or another's."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from datamodules.answers import AnswerChecker, AnswerRule
from datamodules.errors import InputError
from datamodules.suites.external import Fields, Reference, disagrees, read_external, read_own
from datamodules.suites.suite import SuiteKind, check_golds
from llm_modules.judges import Judge
from rod import classes

if TYPE_CHECKING:
    from datamodules.suites.predictions import Prediction

classes.load(classes.JUDGES)


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
    overwrite: bool = False,
    **fields: str,
) -> None:
    """Score completions in files, and write predictions.jsonl and metrics.json.

    Without ``--completion`` the files are ``predictions.jsonl`` of this project, whose lines say how they are scored.
    With it they may be any JSONL files; the options map their fields by expressions such as ``--completion response``
    or ``--gold "record['175b'].answer"``. A list of completions counts as samples of the line.

    Args:
        predictions: JSONL files, or glob patterns.
        output: Folder for the results.
        name: Name of the set in the results; the file's name by default.
        kind: Kind of the set.
        answer: How answers are found and read. For a ``predictions.jsonl`` of this project it replaces the rule of its
            lines.
        evaluate: Judges, and the baseline of AES.
        overwrite: Replace the results of an earlier run.
        fields: Expressions over the fields of external files, see `Fields`.
    """
    from callbacks.evaluation.report import library_versions, metrics_json, read_baseline, results_of
    from callbacks.evaluation.scoring import default_judges, score_predictions
    from callbacks.evaluation.table import answer_hints, print_table
    from datamodules.records.reader import to_json
    from datamodules.records.shards import write_lines
    from rod.verbs.files import expand, require_new

    expressions = Fields(**fields)
    files = {key: output / key for key in ("predictions.jsonl", "metrics.json", "disagreements.jsonl")}
    require_new(list(files.values()), overwrite)
    judges = default_judges() if evaluate.judges is None else evaluate.judges
    paths = expand("predictions", predictions)
    base = read_baseline(evaluate.baseline) if evaluate.baseline else None
    for judge in judges:
        judge.check()
    with AnswerChecker() as checker:
        found, references = _read(paths, expressions, name, kind, answer, checker)
        scored = score_predictions(found, checker, judges, evaluate.judge_thoughts)
    results = results_of(scored, base)
    about: dict[str, Any] = {
        "files": [str(path) for path in paths],
        "judges": {judge.name: dict(judge.identity()) for judge in judges},
        "baseline_file": str(evaluate.baseline) if evaluate.baseline else None,
        "versions": library_versions(),
    }
    write_lines(files["predictions.jsonl"], map(to_json, scored))
    write_lines(files["metrics.json"], [metrics_json(results, about)])
    print_table(results, ", ".join(str(path) for path in paths), hints=answer_hints(scored))
    files["disagreements.jsonl"].unlink(missing_ok=True)
    if references:
        _report_disagreements(scored, references, files["disagreements.jsonl"])


def _read(
    paths: Sequence[Path],
    fields: Fields,
    name: str,
    kind: SuiteKind,
    answer: AnswerRule | None,
    checker: AnswerChecker,
) -> "tuple[list[Prediction], dict[str, Reference]]":
    """The predictions of all files, and the references of external files."""
    found: list[Prediction] = []
    references: dict[str, Reference] = {}
    for path in paths:
        if not fields.completion:
            _check_options(fields, name)
            found += read_own(path, answer)
            continue
        suite, rule = name or path.stem, answer or AnswerRule()
        external = read_external(path, fields, suite, kind, rule)
        check_golds(suite, rule, external.items, checker)
        found += external.predictions
        references |= external.references
    if twice := next((key for key, count in Counter(p.id for p in found).items() if count > 1), None):
        raise InputError(f"predictions: '{twice}' is in several files; score them separately, or give --id")
    return found, references


def _check_options(fields: Fields, name: str) -> None:
    """Without ``--completion``, raise an error for options that would have no effect."""
    asked = [key for key, text in asdict(fields).items() if key not in ("completion", "question") and text]
    if asked or name or fields.question != "question":
        option = (asked or (["name"] if name else ["question"]))[0]
        raise InputError(
            f"--{option}: has no effect on a predictions.jsonl of this project, whose lines have this already; for "
            "completions of another project, give --completion too"
        )


def _report_disagreements(predictions: "Sequence[Prediction]", references: "dict[str, Reference]", path: Path) -> None:
    from rich.console import Console

    from datamodules.records.shards import write_lines

    lines = [
        {
            "id": p.id,
            "gold": p.gold,
            "answer": p.answer,
            "correct": p.correct,
            "reference": references[p.id],
            "completion": p.completion,
        }
        for p in predictions
        if p.id in references and disagrees(p, references[p.id])
    ]
    n = sum(p.id in references for p in predictions)
    write_lines(path, (json.dumps(line, ensure_ascii=False) for line in lines))
    Console().print(
        f"agreement with the reference: {n - len(lines)} of {n} ({1 - len(lines) / n:.2%}); disagreements in {path}",
        highlight=False,
        soft_wrap=True,
    )
