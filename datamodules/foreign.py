"""Completions that another project wrote, as predictions."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datamodules.errors import InputError
from datamodules.expressions import Expression
from datamodules.extraction import AnswerRule
from datamodules.records import Prediction
from datamodules.sources import Line, LocalFile, Source
from datamodules.suites import Kind, Suite, items_of

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


def read_foreign(
    path: Path, fields: Fields, name: str, kind: Kind, rule: AnswerRule
) -> tuple[list[Prediction], dict[str, Reference]]:
    """The completions of a file, and what it says of them by the predictions' ids.

    A line whose completion is a list gives a sample for each of its entries.

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
        gold=fields.gold or ("none" if kind == "answers" else ""),
        options=fields.options,
        group=fields.group,
    )
    lines = list(source.read())
    extra = {
        key: Expression(f"--{key}", text)
        for key in ("completion", "tokens", "reference")
        if (text := getattr(fields, key))
    }
    predictions: list[Prediction] = []
    references: dict[str, Reference] = {}
    for line, item in zip(lines, items_of(suite, lines), strict=True):
        texts = _listed(extra["completion"](line))
        for key, values in ((key, _listed(extra[key](line))) for key in extra if key != "completion"):
            if len(values) != len(texts):
                raise InputError(f"{line.where}: --{key}: {len(values)} values for {len(texts)} completions")
        for sample, text in enumerate(texts):
            prediction = Prediction(
                id=f"{name}/{item.id}|s{sample}",
                completion=_text(text, line),
                question_id=f"{name}/{item.id}",
                question=item.question,
                gold=item.gold,
                options=item.options,
                suite=name,
                kind=kind,
                group=item.group,
                sample=sample,
                n_tokens=int(_listed(extra["tokens"](line))[sample]) if "tokens" in extra else None,
                rule=rule,
            )
            predictions.append(prediction)
            if "reference" in extra:
                value = _listed(extra["reference"](line))[sample]
                references[prediction.id] = value if value is None or isinstance(value, bool) else str(value) or None
    if not predictions:
        raise InputError(f"{path}: no line has a completion")
    return predictions, references


def disagrees(prediction: Prediction, reference: Reference) -> bool:
    """Whether a reference says something else than the prediction's own answer or verdict."""
    if isinstance(reference, bool):
        return prediction.correct is not reference
    return prediction.answer != reference


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value]


def _text(value: Any, line: Line) -> str:
    if not isinstance(value, str):
        raise InputError(f"{line.where}: --completion: a text is wanted, not {type(value).__name__}")
    return value
