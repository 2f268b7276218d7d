"""Accuracy against tokens over any number of conditions: intervals, Pareto front, AES, paired tests, lost groups."""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from callbacks.evaluation.columns import printable
from callbacks.evaluation.metrics import aes
from callbacks.evaluation.paired import difference, holm
from callbacks.evaluation.statistics import Records, mean_of
from datamodules.errors import InputError
from datamodules.records.kinds import Trace
from datamodules.records.reader import read_records
from datamodules.suites.predictions import Prediction

Conditions = dict[str, list[Prediction]]
"""Scored predictions by the name of their condition."""


@dataclass(frozen=True)
class Point:
    """A condition on a suite.

    Attributes:
        suite, condition: What was measured.
        records, n: Questions and completions.
        accuracy, tokens: Means, each with its 95 % interval ``_low``, ``_high``.
        on_front: No other condition is at least as accurate with at most as many tokens.
        aes: Accuracy-efficiency score against the base; None for the base.
        common: Questions that the base has too; differences are over them.
        accuracy_difference, tokens_difference: Condition minus base, paired by question, and its 95 % interval.
        accuracy_p, tokens_p: Paired p-values.
        accuracy_p_holm, tokens_p_holm: Corrected for how many conditions of the suite are tested (Holm).
        detectable: Accuracy difference that so many questions would show with a probability of 80 %.
    """

    suite: str
    condition: str
    records: int
    n: int
    accuracy: float
    accuracy_low: float
    accuracy_high: float
    tokens: float
    tokens_low: float
    tokens_high: float
    on_front: bool = False
    aes: float | None = None
    common: int = 0
    accuracy_difference: float | None = None
    accuracy_difference_low: float | None = None
    accuracy_difference_high: float | None = None
    accuracy_p: float | None = None
    accuracy_p_holm: float | None = None
    tokens_difference: float | None = None
    tokens_p: float | None = None
    tokens_p_holm: float | None = None
    detectable: float | None = None


@dataclass(frozen=True)
class GroupLoss:
    """Accuracy of a condition on a group of questions, against the base on the same questions."""

    suite: str
    condition: str
    group: str
    records: int
    base_accuracy: float
    accuracy: float
    difference: float
    low: float
    high: float


@dataclass
class _Answers:
    """A question's answers in one condition."""

    right: list[float] = field(default_factory=list)
    tokens: list[float] = field(default_factory=list)
    unit: str = ""
    group: str = ""


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
    ``by_group``. Only answers with a gold answer count.

    Raises:
        InputError: There is no such file, it has no gold answers, or no token counts.
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


def _size(run: Run, condition: str) -> float:
    return abs(run.strengths[condition][1]) if condition in run.strengths else 0.0


def base_of(answers: Collection[str], base: str) -> str:
    """The condition that others of a suite are held against: the base or, if it has no answers, the suite's first."""
    return base if base in answers else next(iter(answers))


def points_of(conditions: Mapping[str, Sequence[Prediction]], base: str) -> list[Point]:
    """Measure every condition on every suite and hold it against the suite's base."""
    found: list[Point] = []
    for suite, answers in answers_by_suite(conditions).items():
        reference = answers[base_of(answers, base)]
        points = [_point(suite, condition, own, reference) for condition, own in answers.items()]
        points = [replace(p, on_front=not any(_dominates(other, p) for other in points)) for p in points]
        found += _corrected(points)
    return found


def group_losses(conditions: Mapping[str, Sequence[Prediction]], base: str) -> list[GroupLoss]:
    """Accuracy of every condition on every group of questions against the suite's base; the largest loss first."""
    found: list[GroupLoss] = []
    for suite, answers in answers_by_suite(conditions).items():
        reference = base_of(answers, base)
        for condition, own in answers.items():
            if condition == reference:
                continue
            common = [key for key in own if key in answers[reference]]
            for group in sorted({own[key].group for key in common} - {""}):
                keys = [key for key in common if own[key].group == group]
                a, b = ([_mean(side[key].right) for key in keys] for side in (answers[reference], own))
                d = difference(a, b, [own[key].unit for key in keys], resamples=2000)
                found.append(GroupLoss(suite, condition, group, len(keys), _mean(a), _mean(b), d.value, d.low, d.high))
    return sorted(found, key=lambda loss: (loss.suite, loss.condition, loss.difference))


def lost_first(losses: Sequence[GroupLoss], points: Sequence[Point]) -> list[tuple[GroupLoss, Point]]:
    """The groups that lose accuracy (interval below 0), each at the longest condition at which it does.

    The first lose while answers are still long: they bear the least shortening.
    """
    places = {(point.suite, point.condition): point for point in points}
    first: dict[tuple[str, str], tuple[GroupLoss, Point]] = {}
    for loss in losses:
        place, key = places[loss.suite, loss.condition], (loss.suite, loss.group)
        if loss.high < 0 and (key not in first or place.tokens > first[key][1].tokens):
            first[key] = loss, place
    return sorted(first.values(), key=lambda pair: (pair[0].suite, -pair[1].tokens, pair[0].difference))


def answers_by_suite(conditions: Mapping[str, Sequence[Prediction]]) -> dict[str, dict[str, dict[str, _Answers]]]:
    """Suite -> condition -> question (text and gold answer) -> its answers.

    Questions are told by their text, so that runs of different tools fit. Sets with other names that share most of
    their questions are one suite.
    """
    suites: dict[str, dict[str, dict[str, _Answers]]] = {}
    questions: dict[str, set[str]] = {}
    for condition, predictions in conditions.items():
        by_name: dict[str, dict[str, _Answers]] = {}
        for p in predictions:
            answers = by_name.setdefault(p.suite, {}).setdefault(f"{p.question}\0{p.gold}", _Answers())
            answers.right.append(float(bool(p.right)))
            answers.tokens.append(float(p.n_tokens or 0))
            answers.unit, answers.group = p.cluster or f"{p.question}\0{p.gold}", p.group
        for name, own in by_name.items():
            same = name if name in suites else None
            for other, asked in questions.items():
                if same is None and 2 * len(asked & own.keys()) > max(len(asked), len(own)):
                    same = other
            suite = same or name
            suites.setdefault(suite, {})[condition] = own
            questions.setdefault(suite, set()).update(own)
    return suites


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
                question=t.question,
                gold=t.gold,
                suite="questions",
                sample=t.sample,
                prompt=t.prompt,
                n_tokens=t.n_tokens,
                finish_reason=t.finish_reason,
                answer=t.answer,
                correct=t.correct,
            ),
        )
        for t in traces
    ]
    return made, {t.id: t.alpha for t in traces}


def _point(suite: str, condition: str, own: Mapping[str, _Answers], base: Mapping[str, _Answers]) -> Point:
    accuracy, tokens = (_interval(own, name) for name in ("right", "tokens"))
    n = sum(len(answers.right) for answers in own.values())
    point = Point(suite, condition, len(own), n, *accuracy, *tokens)
    common = [key for key in own if key in base]
    if base is own or not common:
        return replace(point, common=len(common))
    units = [own[key].unit for key in common]
    right, length = (
        [[_mean(getattr(side[key], name)) for key in common] for side in (base, own)] for name in ("right", "tokens")
    )
    a, t = difference(right[0], right[1], units), difference(length[0], length[1], units)
    score = aes(_mean(right[1]), _mean(length[1]), _mean(right[0]), _mean(length[0]))
    return replace(
        point,
        common=len(common),
        aes=score if math.isfinite(score) else None,
        accuracy_difference=a.value,
        accuracy_difference_low=a.low,
        accuracy_difference_high=a.high,
        accuracy_p=a.p,
        tokens_difference=t.value,
        tokens_p=t.p,
        detectable=a.detectable,
    )


def _interval(answers: Mapping[str, _Answers], name: str) -> tuple[float, float, float]:
    records = Records(mean_of)
    for key, own in answers.items():
        values = getattr(own, name)
        records.update([f"{key}|{i}" for i in range(len(values))], [own.unit] * len(values), values)
    numbers = records.compute()
    return numbers["value"], numbers["low"], numbers["high"]


def _corrected(points: Sequence[Point]) -> list[Point]:
    """The points of a suite with p-values corrected for how many conditions are held against the base."""
    tested = [p for p in points if p.accuracy_p is not None]
    accuracy = holm([p.accuracy_p or 0.0 for p in tested])
    tokens = holm([p.tokens_p or 0.0 for p in tested])
    new = {
        p.condition: replace(p, accuracy_p_holm=a, tokens_p_holm=t)
        for p, a, t in zip(tested, accuracy, tokens, strict=True)
    }
    return [new.get(p.condition, p) for p in points]


def _dominates(a: Point, b: Point) -> bool:
    no_worse = a.accuracy >= b.accuracy and a.tokens <= b.tokens
    return no_worse and (a.accuracy > b.accuracy or a.tokens < b.tokens)


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)
