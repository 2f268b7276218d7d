"""``rod score``: completions scored without a model, this project's own or anybody's."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from datamodules.answers.rule import AnswerRule
from datamodules.errors import InputError
from llm_modules.judges.judge import Judge
from rod import classes

if TYPE_CHECKING:
    from datamodules.answers.checker import AnswerChecker
    from datamodules.suites.external import Fields, Reference
    from datamodules.suites.predictions import Prediction
    from datamodules.suites.suite import SuiteKind


# Judges can be named without their modules once these are imported.
classes.load(classes.JUDGES)


@dataclass(frozen=True)
class Judging:
    """The options that ``rod test`` has under ``evaluate``, so that the same YAML fragments serve both.

    Attributes:
        judges: Of the completions of safety and benign sets; the refusal classifier and the phrase rule by default.
        baseline: ``metrics.json`` of a base model, for AES.
    """

    judges: list[Judge] | None = None
    baseline: Path | None = None


def run(
    predictions: Sequence[str] = (),
    /,
    *,
    output: Path,
    completion: str = "",
    question: str = "question",
    gold: str = "",
    options: str = "",
    id: str = "",
    group: str = "",
    tokens: str = "",
    reference: str = "",
    keep: str = "",
    name: str = "",
    kind: Literal["answers", "safety", "benign"] = "answers",
    answer: AnswerRule | None = None,
    evaluate: Judging = Judging(),
    overwrite: bool = False,
) -> None:
    """Score completions in files, and write predictions.jsonl and metrics.json.

    Without ``--completion`` the lines are those of a ``predictions.jsonl`` of this project, which say themselves how
    they are scored. With it they are anybody's, and the options say what is what by expressions over their fields:
    ``--completion response``, ``--gold "record['175b'].answer"``. A list of completions counts as samples of the line.

    Args:
        predictions: JSONL files, or glob patterns of such.
        output: Folder for the results.
        completion: Expression of what the model wrote: a text, or a list of them.
        question: Expression of what it was asked.
        gold: Expression of the right answer.
        options: Expression of the options of multiple choice.
        id: Expression of what names a record; file and line number by default.
        group: Expression of what records are also reported by.
        tokens: Expression of the generated tokens: a number, or a list of them.
        reference: Expression of what somebody else says of the completion: whether it is right (true or false), or the
            answer in it; a list for a list of completions. Agreement is printed, and every disagreement written to
            ``disagreements.jsonl``.
        keep: Expression; lines for which it is false (or empty) are left out.
        name: What the set is called in the results; the file's name by default.
        kind: Of the set.
        answer: How answers are found in completions, and read; for a ``predictions.jsonl`` of this project in place of
            what its lines say.
        evaluate: How completions are judged, and what they are compared with.
        overwrite: Replace what an earlier run left in the folder.
    """
    from callbacks.evaluation.evaluate import default_judges
    from callbacks.evaluation.report import metrics_json, print_table, read_baseline, results_of
    from callbacks.evaluation.scoring import score
    from callbacks.generation.run_settings import library_versions
    from datamodules.answers.checker import AnswerChecker
    from datamodules.records.reader import to_json
    from datamodules.records.shards import write_lines
    from datamodules.suites.external import Fields
    from rod.verbs.files import expand, require_new

    files = {key: output / key for key in ("predictions.jsonl", "metrics.json", "disagreements.jsonl")}
    require_new(list(files.values()), overwrite)
    judges = default_judges() if evaluate.judges is None else evaluate.judges
    paths = expand("predictions", predictions)
    fields = Fields(completion, question, gold, options, id, group, tokens, reference, keep)
    base = read_baseline(evaluate.baseline) if evaluate.baseline else None
    for judge in judges:
        judge.check()
    with AnswerChecker() as checker:
        found, references = _read(paths, fields, name, kind, answer, checker)
        scored = score(found, checker, judges)
        results = results_of(scored, base)
        write_lines(files["predictions.jsonl"], map(to_json, scored))
        about: dict[str, Any] = {
            "files": [str(path) for path in paths],
            "judges": {judge.name: dict(judge.identity()) for judge in judges},
            "baseline_file": str(evaluate.baseline) if evaluate.baseline else None,
            "versions": library_versions(),
        }
        write_lines(files["metrics.json"], [metrics_json(results, about)])
        print_table(results, ", ".join(str(path) for path in paths))
        files["disagreements.jsonl"].unlink(missing_ok=True)
        if references:
            _report_disagreements(scored, references, files["disagreements.jsonl"])


def _read(
    paths: "Sequence[Path]",
    fields: "Fields",
    name: str,
    kind: "SuiteKind",
    answer: AnswerRule | None,
    checker: "AnswerChecker",
) -> "tuple[list[Prediction], dict[str, Reference]]":
    """The predictions of all files, and what external ones say of theirs."""
    from datamodules.suites.external import read_external, read_own
    from datamodules.suites.suite import check_golds

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
        raise InputError(f"predictions: '{twice}' is in several files; score them apart, or give --id")
    return found, references


def _check_options(fields: "Fields", name: str) -> None:
    """Without ``--completion`` nothing says what is what: refuse to leave out what was asked for."""
    from dataclasses import asdict

    asked = [key for key, text in asdict(fields).items() if key not in ("completion", "question") and text]
    if asked or name or fields.question != "question":
        option = (asked or (["name"] if name else ["question"]))[0]
        raise InputError(
            f"--{option}: lines of a predictions.jsonl of this project say it themselves; for completions of others, "
            "give --completion, the expression of what the model wrote"
        )


def _report_disagreements(predictions: "Sequence[Prediction]", references: "dict[str, Reference]", path: Path) -> None:
    """Print how often the file's own verdicts or answers are the same as ours; write where they are not."""
    import json

    from rich.console import Console

    from datamodules.records.shards import write_lines
    from datamodules.suites.external import disagrees

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
