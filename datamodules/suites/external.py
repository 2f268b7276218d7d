"""Read completions that another project wrote as predictions."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from datamodules.answers.rule import DEFAULT_OPTIONS, AnswerRule, named_options
from datamodules.errors import InputError
from datamodules.records.reader import read_records
from datamodules.suites.expressions import Expression
from datamodules.suites.predictions import Prediction
from datamodules.suites.sources import Line, LocalFile, Source
from datamodules.suites.suite import NO_GOLD, Item, Suite, SuiteKind, items_of

Reference = bool | str | None
"""Somebody else's reading of a completion: whether it is right, or the answer in it (None: no answer)."""


@dataclass(frozen=True)
class Fields:
    """Expressions over the fields of a line of an external file; empty if the file has no such field.

    Attributes:
        completion: Expression of the completion: a text, or a list of samples.
        question: Expression of the question.
        gold: Expression of the gold answer.
        options: Expression of the options of multiple choice.
        id: Expression of the record id; file and line number by default.
        group: Expression; records with equal values are also reported separately.
        tokens: Expression of the number of generated tokens; a list for a list of completions.
        reference: Expression of another reading of the completion: whether it is right (true or false), or its answer;
            a list for a list of completions. Agreement is printed, and disagreements go to ``disagreements.jsonl``.
        prompt: Expression of the rendered prompt, or of its end: if it ends with the mark that opens a thought, such as
            ``"'<think>'"``, the completion begins in one. Without it, only a closing mark in the completion shows that.
        keep: Expression; lines with a false or empty value are left out.
    """

    completion: str = ""
    question: str = "question"
    gold: str = ""
    options: str = ""
    id: str = ""
    group: str = ""
    tokens: str = ""
    reference: str = ""
    prompt: str = ""
    keep: str = ""


@dataclass(frozen=True)
class ExternalFile:
    """The predictions of a file, its references by prediction id, and the items that were asked."""

    predictions: list[Prediction]
    references: dict[str, Reference]
    items: list[Item]


def read_external(path: Path, fields: Fields, name: str, kind: SuiteKind, rule: AnswerRule) -> ExternalFile:
    """Read the completions of a file. A list of completions in a line counts as samples of one record.

    Raises:
        InputError: The file cannot be read, an expression names an absent field, an id is repeated, or a list of
            tokens or references is not as long as the list of completions.
    """
    suite = Suite(
        name,
        kind,
        Source(local=LocalFile(str(path))),
        question=fields.question,
        id=fields.id,
        gold=fields.gold or (NO_GOLD if kind == "answers" else ""),
        options=fields.options,
        group=fields.group,
    )
    keep = Expression("--keep", fields.keep) if fields.keep else None
    prompt = Expression("--prompt", fields.prompt) if fields.prompt else None
    lines = [line for line in suite.source.read() if keep is None or keep(line)]
    texts = {key: getattr(fields, key) for key in ("completion", "tokens", "reference")}
    expressions = {key: Expression(f"--{key}", text) for key, text in texts.items() if text}
    items = items_of(suite, lines)
    # Several files may share a name; line numbers alone would not tell their records apart.
    prefix = f"{name}/" if fields.id or name == path.stem else f"{name}/{path.stem}-"
    predictions: list[Prediction] = []
    references: dict[str, Reference] = {}
    for line, item in zip(lines, items, strict=True):
        for sample, values in enumerate(_samples(line, expressions)):
            prediction = Prediction(
                id=f"{prefix}{item.id}|s{sample}",
                completion=_text("completion", values["completion"], line),
                question_id=f"{prefix}{item.id}",
                question=item.question,
                gold=item.gold,
                options=item.options,
                suite=name,
                kind=kind,
                group=item.group,
                sample=sample,
                prompt=_text("prompt", prompt(line), line) if prompt else "",
                n_tokens=_count(values.get("tokens"), line),
                rule=rule,
            )
            predictions.append(prediction)
            if "reference" in values:
                value = values["reference"]
                references[prediction.id] = value if value is None or isinstance(value, bool) else str(value) or None
    if not predictions:
        raise InputError(f"{path}: no line has a completion")
    return ExternalFile(predictions, references, items)


def read_own(path: Path, rule: AnswerRule | None = None) -> list[Prediction]:
    """Read a ``predictions.jsonl`` of this project; ``rule`` replaces the answer rule of its lines.

    Raises:
        InputError: The file cannot be read, or has a bad line.
    """
    try:
        found = read_records(path, Prediction, strict=True)
    except InputError as error:
        raise InputError(f"{error}; to read completions of another project, give --completion") from error
    return found if rule is None else [replace(prediction, rule=rule) for prediction in found]


def disagrees(prediction: Prediction, reference: Reference) -> bool:
    """Whether a reference differs from the prediction's own answer or verdict."""
    if isinstance(reference, bool):
        return prediction.correct is not reference
    options = named_options(prediction.options) or set(DEFAULT_OPTIONS)
    if prediction.rule.type == "choice" and reference not in options:
        reference = None  # not an option: the file's word for "no answer", or a misreading
    return prediction.answer != reference


def _samples(line: Line, expressions: Mapping[str, Expression]) -> list[dict[str, Any]]:
    columns = {key: _listed(expression(line)) for key, expression in expressions.items()}
    n = len(columns["completion"])
    for key, values in columns.items():
        if len(values) != n:
            raise InputError(f"{line.where}: --{key}: {len(values)} values for {n} completions")
    return [{key: values[sample] for key, values in columns.items()} for sample in range(n)]


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value]


def _count(value: Any, line: Line) -> int | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or value != int(value) or value < 0:
        raise InputError(f"{line.where}: --tokens: must be a number of tokens, not {value!r:.40}")
    return int(value)


def _text(key: str, value: Any, line: Line) -> str:
    if not isinstance(value, str):
        raise InputError(f"{line.where}: --{key}: must be a text, not {type(value).__name__}")
    return value
