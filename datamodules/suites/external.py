"""Read completions that another project wrote as predictions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from datamodules.answers.rule import AnswerRule
from datamodules.errors import InputError
from datamodules.records.files import Line, read_file
from datamodules.records.reader import read_records
from datamodules.suites.cells import CUT, count_of, finish_of, is_true, samples_of, text_of
from datamodules.suites.expressions import Expression
from datamodules.suites.items import ItemMaker
from datamodules.suites.predictions import Prediction
from datamodules.suites.references import Meaning, Reference, answer_reference, label_of
from datamodules.suites.repeats import Entry, check_repeats
from datamodules.suites.sources import LocalFile, Source
from datamodules.suites.suite import NO_GOLD, Suite, SuiteKind


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
        cluster: Expression; records with equal values are not independent, such as variants of one template.
            Intervals and tests are over clusters.
        tokens: Expression of the number of generated tokens; a list for a list of completions.
        finish: Expression of how the completion ended: ``stop`` or true, ``length`` or false if it was cut off. In a
            completion that was cut off, only an answer that marks its own end counts. A list for a list of completions.
        reference: Expression of another reading of the completion: whether it is right (true or false), or its answer;
            of safety and benign sets, whether the model complied (true, ``unsafe``, ``1_full_compliance``) or refused.
            A list for a list of completions. Agreement is printed, and disagreements go to ``disagreements.jsonl``.
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
    cluster: str = ""
    tokens: str = ""
    finish: str = ""
    reference: str = ""
    prompt: str = ""
    keep: str = ""


@dataclass(frozen=True)
class SetAside:
    """A line that cannot be scored, and why."""

    where: str
    reason: str


@dataclass(frozen=True)
class External:
    """What external files hold.

    Attributes:
        predictions: Not yet checked or judged.
        references: By prediction id.
        places: Place of each prediction's line, by id.
        set_aside: Lines that cannot be scored.
        hints: Remarks on how the file may be misread.
    """

    predictions: list[Prediction] = field(default_factory=list)
    references: dict[str, Reference] = field(default_factory=dict)
    places: dict[str, str] = field(default_factory=dict)
    set_aside: list[SetAside] = field(default_factory=list)
    hints: list[str] = field(default_factory=list)


def read_external(
    path: Path,
    fields: Fields,
    name: str,
    kind: SuiteKind,
    rule: AnswerRule,
    labels: Mapping[str, Meaning] | None = None,
    strict: bool = False,
) -> External:
    """Read the completions of a file. A list of completions in a line counts as samples of one record.

    Args:
        path: JSONL, a JSON list, CSV, TSV or Parquet, see `read_file`.
        fields: How its fields are mapped.
        name: Name of the set.
        kind: Kind of the set.
        rule: How answers are found and read.
        labels: Meanings of reference labels that are not known.
        strict: Stop at the first line that cannot be read; otherwise such lines are set aside.

    Raises:
        InputError: The file cannot be read, no line is good, an id is repeated, lines without ids are repeated, a
            reference's label is unknown, or ``strict`` and a line is bad.
    """
    found = External()

    def bad(error: InputError) -> None:
        if strict:
            raise error
        found.set_aside.append(SetAside(str(path), str(error)))

    reader = _Reader(path, fields, name, kind, rule, labels or {})
    entries: list[Entry] = []
    for line in read_file(path, bad):
        try:
            read = reader(line)
        except _Fatal as error:
            raise InputError(str(error)) from error
        except InputError as error:
            bad(error)
            continue
        if read is None:
            continue
        predictions, references = read
        found.predictions.extend(predictions)
        found.references.update(references)
        found.places.update((p.id, line.where) for p in predictions)
        entries.append(Entry(line, tuple(p.completion for p in predictions), reader.key(predictions)))
    if not found.predictions:
        reasons = "; ".join(line.reason for line in found.set_aside[:3])
        more = f"; and {len(found.set_aside) - 3} more" if len(found.set_aside) > 3 else ""
        raise InputError(reasons + more if reasons else f"{path}: no line has a completion; check --completion, --keep")
    if not fields.id:
        found.hints.extend(check_repeats(path, entries))
    if not fields.finish:
        found.hints.extend(_cut_hint(path, entries))
    return found


def _cut_hint(path: Path, entries: Sequence[Entry]) -> list[str]:
    """A hint if a field says that completions were cut off, and nobody asked for it."""
    for name in ("finish_reason", "stop_reason", "done_reason"):
        if cut := sum(str(entry.line.values.get(name)).lower() in CUT for entry in entries):
            return [
                f"{path}: {cut:,} of {len(entries):,} completions were cut off by their '{name}', but are read as "
                f"finished; give --finish {name}"
            ]
    return []


class _Fatal(InputError):
    """A mistake in how the file is mapped, not in a line."""


class _Reader:
    """Makes the predictions and references of a line; None for a line that is left out."""

    def __init__(
        self, path: Path, fields: Fields, name: str, kind: SuiteKind, rule: AnswerRule, labels: Mapping[str, Meaning]
    ) -> None:
        suite = Suite(
            name,
            kind,
            Source(local=LocalFile(str(path))),
            question=fields.question,
            id=fields.id,
            gold=fields.gold or (NO_GOLD if kind == "answers" else ""),
            options=fields.options,
            group=fields.group,
            cluster=fields.cluster,
        )
        self.suite, self.rule, self.labels = suite, rule, labels
        self.keep = Expression("--keep", fields.keep) if fields.keep else None
        self.prompt = Expression("--prompt", fields.prompt) if fields.prompt else None
        texts = {key: getattr(fields, key) for key in ("completion", "tokens", "finish", "reference")}
        self.expressions = {key: Expression(f"--{key}", text) for key, text in texts.items() if text}
        self.item = ItemMaker(suite)
        # Several files may share a name; line numbers alone would not tell their records apart.
        self.prefix = f"{name}/" if fields.id or name == path.stem else f"{name}/{path.stem}-"
        self.taken: dict[str, str] = {}

    def __call__(self, line: Line) -> tuple[list[Prediction], dict[str, Reference]] | None:
        if self.keep is not None and not is_true(self.keep(line)):
            return None
        item = self.item(line)
        assert item is not None  # the suite keeps every line
        if item.id in self.taken:
            raise _Fatal(
                f"{item.where}: suite '{self.suite.name}': the id '{item.id}' is already taken by "
                f"{self.taken[item.id]}; give --id an expression that is unique per line; of several lines for one "
                "completion, such as one for each filter, keep one by --keep"
            )
        predictions: list[Prediction] = []
        references: dict[str, Reference] = {}
        for sample, values in enumerate(_samples(line, self.expressions)):
            prediction = Prediction(
                id=f"{self.prefix}{item.id}|s{sample}",
                completion=text_of("completion", values["completion"], line),
                question_id=f"{self.prefix}{item.id}",
                question=item.asked,
                gold=item.gold,
                options=item.options,
                suite=self.suite.name,
                kind=self.suite.kind,
                group=item.group,
                cluster=item.cluster,
                sample=sample,
                prompt=text_of("prompt", self.prompt(line), line) if self.prompt else "",
                n_tokens=count_of(values.get("tokens"), line),
                finish_reason=finish_of(values.get("finish"), line),
                rule=self.rule,
            )
            predictions.append(prediction)
            if "reference" in values:
                references[prediction.id] = self._reference(values["reference"], line)
        self.taken[item.id] = line.where
        return predictions, references

    def key(self, predictions: Sequence[Prediction]) -> tuple[Any, ...]:
        """What makes two lines the same question."""
        return tuple((p.question, p.gold, p.options) for p in predictions[:1])

    def _reference(self, value: Any, line: Line) -> Reference:
        if self.suite.kind == "answers":
            return answer_reference(value, self.rule)
        try:
            return label_of(value, self.labels, line.where)
        except InputError as error:
            raise _Fatal(str(error)) from error


def read_own(path: Path, rule: AnswerRule | None = None) -> External:
    """Read a ``predictions.jsonl`` of this project; ``rule`` replaces the answer rule of its lines.

    InputError if the file cannot be read, or has a bad line.
    """
    try:
        found = read_records(path, Prediction, strict=True)
    except InputError as error:
        remedy = "delete a line that is cut off; to read completions of another project, give --completion"
        raise InputError(f"{error}; {remedy}") from error
    found = found if rule is None else [replace(prediction, rule=rule) for prediction in found]
    return External(found, places={p.id: f"{path}: '{p.id}'" for p in found})


def _samples(line: Line, expressions: Mapping[str, Expression]) -> list[dict[str, Any]]:
    columns = {key: samples_of(expression(line)) for key, expression in expressions.items()}
    n = len(columns["completion"])
    if n == 0:
        raise InputError(f"{line.where}: --completion: the list of completions is empty")
    for key, values in columns.items():
        if len(values) != n:
            raise InputError(f"{line.where}: --{key}: {len(values)} values for {n} completions")
    return [{key: values[sample] for key, values in columns.items()} for sample in range(n)]
