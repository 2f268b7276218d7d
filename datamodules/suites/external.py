"""Completions that another project wrote, as predictions."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from datamodules.answers.rule import LETTERS, AnswerRule, named_options
from datamodules.errors import InputError
from datamodules.records.reader import read_records
from datamodules.suites.expressions import Expression
from datamodules.suites.predictions import Prediction
from datamodules.suites.sources import Line, LocalFile, Source
from datamodules.suites.suite import NO_GOLD, Item, Kind, Suite, items_of

Reference = bool | str | None
"""What somebody else says of a completion: whether it is right, or the answer in it (None: no answer)."""


@dataclass(frozen=True)
class Fields:
    """Expressions over the fields of a line; empty where the file has no such thing."""

    completion: str
    question: str = "question"
    gold: str = ""
    options: str = ""
    id: str = ""
    group: str = ""
    tokens: str = ""
    reference: str = ""
    keep: str = ""


@dataclass(frozen=True)
class Foreign:
    """The completions of a file, what it says of them by the predictions' ids, and the records that they answer."""

    predictions: list[Prediction]
    references: dict[str, Reference]
    items: list[Item]


def read_foreign(path: Path, fields: Fields, name: str, kind: Kind, rule: AnswerRule) -> Foreign:
    """The completions of a file. A line whose completion is a list gives a sample for each of its entries.

    Raises:
        InputError: The file cannot be read, an expression names a field that is not there, an id occurs twice, a list
            of tokens or references is not as long as that of the completions.
    """
    source = Source(local=LocalFile(str(path)))
    suite = Suite(
        name,
        kind,
        source,
        question=fields.question,
        id=fields.id,
        gold=fields.gold or (NO_GOLD if kind == "answers" else ""),
        options=fields.options,
        group=fields.group,
    )
    keep = Expression("--keep", fields.keep) if fields.keep else None
    lines = [line for line in source.read() if keep is None or keep(line)]
    extra = {
        key: Expression(f"--{key}", text)
        for key in ("completion", "tokens", "reference")
        if (text := getattr(fields, key))
    }
    predictions: list[Prediction] = []
    references: dict[str, Reference] = {}
    items = items_of(suite, lines)
    # Several files may go by one name; a line number alone would not tell their records apart.
    prefix = f"{name}/" if fields.id or name == path.stem else f"{name}/{path.stem}-"
    for line, item in zip(lines, items, strict=True):
        texts = _listed(extra["completion"](line))
        for key, values in ((key, _listed(extra[key](line))) for key in extra if key != "completion"):
            if len(values) != len(texts):
                raise InputError(f"{line.where}: --{key}: {len(values)} values for {len(texts)} completions")
        for sample, text in enumerate(texts):
            prediction = Prediction(
                id=f"{prefix}{item.id}|s{sample}",
                completion=_text(text, line),
                question_id=f"{prefix}{item.id}",
                question=item.question,
                gold=item.gold,
                options=item.options,
                suite=name,
                kind=kind,
                group=item.group,
                sample=sample,
                n_tokens=_count(_listed(extra["tokens"](line))[sample], line) if "tokens" in extra else None,
                rule=rule,
            )
            predictions.append(prediction)
            if "reference" in extra:
                value = _listed(extra["reference"](line))[sample]
                references[prediction.id] = value if value is None or isinstance(value, bool) else str(value) or None
    if not predictions:
        raise InputError(f"{path}: no line has a completion")
    return Foreign(predictions, references, items)


def read_own(path: Path, rule: AnswerRule | None = None) -> list[Prediction]:
    """The lines of a ``predictions.jsonl`` of this project.

    Args:
        path: The file.
        rule: How answers are found, in place of what the lines say.

    Raises:
        InputError: The file cannot be read, or has a bad line.
    """
    try:
        found = read_records(path, Prediction, strict=True)
    except InputError as error:
        raise InputError(f"{error}; completions of others are read by --completion and other expressions") from error
    return found if rule is None else [replace(prediction, rule=rule) for prediction in found]


def disagrees(prediction: Prediction, reference: Reference) -> bool:
    """Whether a reference says something else than the prediction's own answer or verdict."""
    if isinstance(reference, bool):
        return prediction.correct is not reference
    if prediction.rule.type == "choice" and reference not in (named_options(prediction.options) or LETTERS):
        reference = None  # their word for no answer, or what they took for one
    return prediction.answer != reference


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value]


def _count(value: Any, line: Line) -> int | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or value != int(value) or value < 0:
        raise InputError(f"{line.where}: --tokens: a number of tokens is wanted, not {value!r:.40}")
    return int(value)


def _text(value: Any, line: Line) -> str:
    if not isinstance(value, str):
        raise InputError(f"{line.where}: --completion: a text is wanted, not {type(value).__name__}")
    return value
