"""Read labelled answers for the refusal classifier from files of different formats."""

import json
import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from datamodules.completions.thoughts import split_thought
from datamodules.errors import InputError
from datamodules.records.reader import read_records

SENTENCES = Path(__file__).parent / "refusal" / "sentences.jsonl"
SENTENCE_WEIGHT = 3.0
"""Weight of an own sentence (ours): each stands for a construction that the published answers lack."""
READINGS = SENTENCES.with_name("readings.json")


@dataclass(frozen=True)
class LabelledAnswer:
    """An answer that is known to refuse or to comply.

    Attributes:
        source: Name of its source, usually the answers of one model.
        family: Sources of one family, such as models that answer alike, are left out together.
        weight: Weight in the loss.
        unsafe: Whether the request should be refused; None if unknown.
    """

    source: str
    family: str
    prompt: str
    completion: str
    refused: bool
    weight: float = 1.0
    unsafe: bool | None = None


@dataclass
class AnswerSource:
    """A file of answers, usually those of one model, and the way their labels are found.

    Attributes:
        name: Name of the source.
        path: JSONL file.
        completion: Field with the answer.
        prompt: Field with the request; empty if there is none.
        label: ``refused`` or ``complied`` if all answers have the same label; ``field:NAME`` for a field of the file;
            ``readings:NAME`` for a table in ``readings``, by answer id.
        refused: Values of the label field that mean a refusal.
        complied: Values that mean compliance. Answers with other values are left out.
        split: Regular expression with the groups ``prompt`` and ``completion``, if one field holds both.
        prompts: JSONL file with the requests in its field ``prompt``, by the answers' ``id``.
        kind: Field with the kind of the request.
        unsafe: Regular expression; requests whose kind matches should be refused.
        limit: Answers to take of each label at most; the choice is deterministic.
        weight: Weight of each answer.
        family: Sources of one family are left out together; by default the source alone.
        leave_out: Estimate the classifier's agreement without the source's family.
    """

    name: str
    path: Path
    completion: str = "completion"
    prompt: str = "prompt"
    label: str = "refused"
    refused: list[str] = field(default_factory=list)
    complied: list[str] = field(default_factory=list)
    split: str | None = None
    prompts: Path | None = None
    kind: str | None = None
    unsafe: str = "^$"
    limit: int = 250
    weight: float = 1.0
    family: str = ""
    leave_out: bool = False


@dataclass(frozen=True)
class _Line:
    id: str
    completion: str
    prompt: str = ""
    label: str = ""
    kind: str = ""


@dataclass(frozen=True)
class _Prompt:
    id: str
    prompt: str


def read_sources(
    sources: Sequence[AnswerSource], readings: Path, strict: bool, rejected_dir: Path
) -> list[LabelledAnswer]:
    """Read the labelled answers of all sources, source by source.

    ``readings`` is a JSON file with tables of ids: ``{NAME: {"refused": "3 5-9", "skipped": "..."}}``; other ids
    complied. ``strict`` and ``rejected_dir`` as in `read_records`. InputError if a file or a setting is wrong.
    """
    names = [source.name for source in sources]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise InputError(f"sources: two sources are called '{twice[0]}'; give each a name of its own")
    tables = _read_tables(readings)
    return [answer for source in sources for answer in _read(source, tables, strict, rejected_dir)]


def own_sentences() -> list[LabelledAnswer]:
    """The sentences that come with the project, dealt out to three sources, so that n-grams in all count as shared."""
    source = AnswerSource(
        "sentences",
        SENTENCES,
        label="field:label",
        refused=["refused"],
        complied=["complied"],
        weight=SENTENCE_WEIGHT,
    )
    found = _read(source, {}, True, Path())
    return [replace(answer, source=f"sentences {row % 3}") for row, answer in enumerate(found)]


def _read(source: AnswerSource, tables: dict[str, dict[str, bool]], strict: bool, folder: Path) -> list[LabelledAnswer]:
    fields = {"completion": source.completion}
    fields |= {"prompt": source.prompt} if source.prompt and source.prompts is None and source.split is None else {}
    fields |= {"label": source.label.removeprefix("field:")} if source.label.startswith("field:") else {}
    fields |= {"kind": source.kind} if source.kind else {}
    key = f"sources.{source.name}"
    lines = read_records(source.path, _Line, fields=fields, strict=strict, rejected_dir=folder, key=key)
    prompts = {}
    if source.prompts is not None:
        renamed = read_records(source.prompts, _Prompt, fields={"prompt": source.prompt}, rejected_dir=folder, key=key)
        prompts = {line.id: line.prompt for line in renamed}
    answers = []
    for line in lines:
        refused = _refused(source, line, tables)
        if refused is None or not line.completion.strip():
            continue
        prompt, completion = prompts.get(line.id, line.prompt), line.completion
        if source.split is not None:
            prompt, completion = _split(source, line)
        completion = split_thought(completion).answer or ""
        if not completion.strip():  # the thought does not end
            continue
        unsafe = bool(re.search(source.unsafe, line.kind)) if source.kind else None
        answers.append(
            LabelledAnswer(
                source.name, source.family or source.name, prompt, completion, refused, source.weight, unsafe
            )
        )
    if not answers:
        raise InputError(
            f"sources.{source.name}: no answer of {source.path} has a label; check label, refused and complied"
        )
    return _limited(answers, source.limit)


def _refused(source: AnswerSource, line: _Line, tables: dict[str, dict[str, bool]]) -> bool | None:
    """Whether a line is a refusal; None if it is left out."""
    if source.label in ("refused", "complied"):
        return source.label == "refused"
    kind, _, name = source.label.partition(":")
    if kind == "field":
        return True if line.label in source.refused else False if line.label in source.complied else None
    if kind != "readings" or name not in tables:
        known = ", ".join(["refused", "complied", "field:NAME", *(f"readings:{table}" for table in tables)])
        raise InputError(f"sources.{source.name}.label: '{source.label}' is not one of {known}")
    table = tables[name]
    return None if table.get(line.id) is False else line.id in table


def _split(source: AnswerSource, line: _Line) -> tuple[str, str]:
    match = re.fullmatch(source.split or "", line.completion, re.DOTALL)
    if match is None or not {"prompt", "completion"} <= match.groupdict().keys():
        raise InputError(
            f"sources.{source.name}.split: must have the groups 'prompt' and 'completion' and match every answer; "
            f"does not match {line.id} of {source.path}"
        )
    return match["prompt"].strip(), match["completion"].strip()


def _limited(answers: list[LabelledAnswer], limit: int) -> list[LabelledAnswer]:
    """At most ``limit`` answers per label, chosen by a hash of their text, in file order."""
    chosen: set[int] = set()
    for refused in (False, True):
        rows = [row for row, answer in enumerate(answers) if answer.refused is refused]
        rows.sort(key=lambda row: (zlib.crc32((answers[row].prompt + answers[row].completion).encode()), row))
        chosen.update(rows[:limit])
    return [answer for row, answer in enumerate(answers) if row in chosen]


def _read_tables(path: Path) -> dict[str, dict[str, bool]]:
    """Tables of ids: True for refused, False for skipped."""
    try:
        tables = json.loads(path.read_text(encoding="utf-8"))
        marks: tuple[tuple[Literal["refused", "skipped"], bool], ...] = (("refused", True), ("skipped", False))
        return {
            name: {identifier: mark for key, mark in marks for identifier in _ids(table[key])}
            for name, table in tables.items()
        }
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise InputError(
            f"readings: '{path}' is not a JSON file of tables with 'refused' and 'skipped' ids ({error})"
        ) from error


def _ids(text: str) -> list[str]:
    """Expand ``"3 5-7"`` to 3, 5, 6, 7."""
    ends = [part.partition("-") for part in text.split()]
    return [str(number) for first, _, last in ends for number in range(int(first), int(last or first) + 1)]
