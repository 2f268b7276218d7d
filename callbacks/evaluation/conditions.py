"""Conditions to compare: the answers of runs of any kind, by condition, suite and question."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path

from callbacks.columns import printable
from datamodules.errors import InputError
from datamodules.records.kinds import Trace
from datamodules.records.reader import read_records
from datamodules.suites.predictions import Prediction

Conditions = dict[str, list[Prediction]]
"""Scored predictions by the name of their condition."""


@dataclass
class Answers:
    """A question's answers in one condition."""

    right: list[float] = field(default_factory=list)
    tokens: list[float] = field(default_factory=list)
    unit: str = ""
    group: str = ""
    suite: str = ""


Suites = dict[str, dict[str, dict[str, Answers]]]
"""Suite -> condition -> question (text and gold answer) -> its answers."""


@dataclass(frozen=True)
class Run:
    """The conditions of a run; of a strength sweep also the series and strength of each, by name.

    A series has the strengths of one layer set. The unsteered condition is in none.
    """

    conditions: Conditions
    strengths: dict[str, tuple[str, float]]


_ANSWERS = ("predictions.jsonl", "traces.jsonl", "traces/traces.jsonl")
"""Files with the answers of a run: of ``rod test`` and ``rod score``, and of ``rod predict``."""


def read_conditions(path: Path, name: str, by_group: bool = False) -> Run:
    """Read a run's answers: a folder of ``rod test``, ``rod score`` or ``rod predict``, or a file of one.

    System instructions, strengths and layer sets of a run are conditions of their own, and so are its groups with
    ``by_group``. Only answers with a gold answer count. InputError if there is no such file, it has no gold answers, or
    no token counts.
    """
    file = path
    if path.is_dir():
        found = [path / known for known in _ANSWERS if (path / known).is_file()]
        if not found:
            raise InputError(f"{path}: has none of {', '.join(_ANSWERS)}; give the folder of a finished run")
        file = found[0]
    made, strengths = _of_traces(file) if file.name.startswith("traces") else (_of_predictions(file), {})
    known = [(labels, p) for labels, p in made if p.right is not None]
    if not known:
        raise InputError(f"{file}: no answer was checked against a gold answer; score it with rod score --gold first")
    if without := sum(p.n_tokens is None for _, p in known):
        raise InputError(
            f"{file}: {without} of {len(known)} answers have no token count; score them with --tokens, the field of "
            "the counts, or --tokenizer, a tokenizer to count with"
        )
    # Labels that are the same everywhere in the run say nothing.
    telling = [i for i in range(len(known[0][0])) if len({labels[i] for labels, _ in known}) > 1]
    run = Run({}, {})
    for labels, p in known:
        parts = [labels[i] for i in telling] + [p.group if by_group else ""]
        series = printable(" ".join(part for part in (name, *parts) if part))
        strength = strengths.get(p.id, 0.0)
        condition = series
        if strengths:
            condition += f" α {strength:+g}" if strength else " α 0"
        if strength:
            run.strengths[condition] = series, strength
        run.conditions.setdefault(condition, []).append(replace(p, group="") if by_group else p)
    by_strength = sorted(run.conditions, key=lambda c: (run.strengths.get(c, ("", 0.0))[0], _size(run, c)))
    return replace(run, conditions={condition: run.conditions[condition] for condition in by_strength})


def answers_by_suite(conditions: Conditions) -> Suites:
    """The answers of all conditions; sets of two runs with one name, or with most of their questions, are one suite.

    Questions are told by their text, so that runs of different tools, which name suites otherwise, fit. If more than
    one set fits equally well, as with two prompts for the same questions, none is joined.
    """
    suites: Suites = {}
    questions: dict[str, set[str]] = {}
    for condition, predictions in conditions.items():
        by_name: dict[str, dict[str, Answers]] = {}
        for p in predictions:
            answers = by_name.setdefault(p.suite, {}).setdefault(f"{p.question}\0{p.gold}", Answers())
            answers.right.append(float(bool(p.right)))
            answers.tokens.append(float(p.n_tokens or 0))
            answers.unit, answers.group = p.cluster or f"{p.question}\0{p.gold}", p.group
            answers.suite = p.suite
        suite_of = _matched(by_name, questions)
        for name, own in by_name.items():
            suites.setdefault(suite_of[name], {})[condition] = own
            questions.setdefault(suite_of[name], set()).update(own)
    return suites


def _matched(own: Mapping[str, Collection[str]], known: Mapping[str, set[str]]) -> dict[str, str]:
    """The known suite of each set of questions, by name or else by questions; its own name if it is a new suite."""
    suite_of = {name: name for name in own}
    shared: dict[tuple[str, str], int] = {}
    for name, other in product(own.keys() - known.keys(), known.keys() - own.keys()):
        n_shared = len(known[other].intersection(own[name]))
        if 2 * n_shared > max(len(known[other]), len(own[name])):
            shared[name, other] = n_shared
    for (name, other), n_shared in shared.items():
        rivals = [n for pair, n in shared.items() if pair != (name, other) and (pair[0] == name or pair[1] == other)]
        if n_shared > max(rivals, default=0):
            suite_of[name] = other
    return suite_of


def _size(run: Run, condition: str) -> float:
    return abs(run.strengths[condition][1]) if condition in run.strengths else 0.0


def _of_predictions(file: Path) -> list[tuple[tuple[str, ...], Prediction]]:
    if not file.is_file():
        raise InputError(f"{file}: there is no such file; give runs of rod test or rod score")
    return [
        ((p.system, p.attack_template), p) for p in read_records(file, Prediction, strict=True) if p.kind == "answers"
    ]


def _of_traces(file: Path) -> tuple[list[tuple[tuple[str, ...], Prediction]], dict[str, float]]:
    """Traces of a strength sweep as predictions, labelled with system and layer set, and their strengths by id."""
    traces = read_records(file, Trace, strict=True)
    made: list[tuple[tuple[str, ...], Prediction]] = [
        (
            (t.system, t.layer_set or ""),
            Prediction(
                id=t.id,
                completion=t.completion,
                question_id=t.question_id,
                question=t.asked,
                gold=t.gold,
                suite="questions",
                sample=t.sample,
                prompt=t.prompt,
                n_tokens=t.n_tokens,
                finish_reason=t.finish_reason,
                answer=t.answer,
                correct=t.correct is True if t.gold is not None else None,  # no answer is a wrong one
            ),
        )
        for t in traces
    ]
    return made, {t.id: t.alpha for t in traces}
