"""Accuracy against tokens over any number of conditions: intervals, Pareto front, AES, paired tests, lost groups."""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from callbacks.evaluation.conditions import Answers, Suites
from callbacks.evaluation.metrics import aes
from callbacks.evaluation.paired import difference, holm
from callbacks.evaluation.statistics import Records, Statistic, mean_of, rate_of


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


def base_of(answers: Collection[str], base: str) -> str:
    """The condition that others of a suite are held against: the base or, if it has no answers, the suite's first."""
    return base if base in answers else next(iter(answers))


def points_of(suites: Suites, base: str) -> list[Point]:
    """Measure every condition on every suite and hold it against the suite's base."""
    found: list[Point] = []
    for suite, answers in suites.items():
        reference = answers[base_of(answers, base)]
        points = [_point(suite, condition, own, reference) for condition, own in answers.items()]
        points = [replace(p, on_front=not any(_dominates(other, p) for other in points)) for p in points]
        found += _corrected(points)
    return found


def group_losses(suites: Suites, base: str) -> list[GroupLoss]:
    """Accuracy of every condition on every group of questions against the suite's base; the largest loss first."""
    found: list[GroupLoss] = []
    for suite, answers in suites.items():
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


def _point(suite: str, condition: str, own: Mapping[str, Answers], base: Mapping[str, Answers]) -> Point:
    accuracy, tokens = _interval(own, "right", rate_of), _interval(own, "tokens", mean_of)
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


def _interval(answers: Mapping[str, Answers], name: str, statistic: Statistic) -> tuple[float, float, float]:
    records = Records(statistic)
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
