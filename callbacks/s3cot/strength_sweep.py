"""The strength sweep: how much each strength on each layer set shortens, what it costs, and which one to choose."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from transformers import PreTrainedTokenizerBase

from callbacks.evaluation.metrics import (
    bootstrap_interval,
    hesitation_rates,
    length_ratio,
    rate_interval,
    repetition,
    wilson_interval,
)
from datamodules.answers import AnswerChecker
from datamodules.answers.loops import has_loop
from datamodules.errors import InputError
from datamodules.records.kinds import Trace

JudgedBy = Literal["gold", "agreement"]
"""Accuracy is judged by gold answers, or by agreement with the answer of the initial trace."""

Regime = Literal["initial", "weak", "moderate", "collapse"]

WEAK = 0.95
"""A strength is weak if the length ratio stays above this (ours)."""
COLLAPSE_ACCURACY = 0.5
"""A strength has collapsed if less than this share of the initial accuracy is left (ours)."""


@dataclass(frozen=True)
class Limits:
    """What a strength may cost to be chosen (ours); all are fractions of 1.

    Few traces do not tell a small share: one with a loop of 32 is no evidence of more than 2 %. A share is over its
    limit if the 95 % interval of the share (Wilson) is.

    Attributes:
        accuracy_drop: Most accuracy lost against alpha 0, as measured.
        repetition: Largest share of traces caught in a loop; alpha 0's own share if that is larger.
        truncation: Largest share of traces cut off by the token limit; alpha 0's own share if that is larger.
    """

    accuracy_drop: float
    repetition: float
    truncation: float


@dataclass(frozen=True)
class SweepRow:
    """One strength on one layer set: a line of ``strength_sweep.csv``.

    Attributes:
        length_ratio: Mean length over the mean length of the same questions' initial traces.
        accuracy: Judged by gold answers; without any, the share of traces that give the same answer as the initial
            trace of their question and sample.
        lost: Accuracy lost against the same questions' initial traces, with its 95 % interval.
        repetition: Share of traces caught in a loop (the filter's rule).
        repeated_ngrams: Mean share of repeated token windows.
        steered_size: Mean size of what was added, relative to the residual stream; None if nothing was, or if it is not
            known of these traces.
        wait: Occurrences of "wait" per 100 tokens; ``but`` and ``so`` alike.
    """

    layer_set: str
    layers: tuple[int, ...]
    alpha: float
    n: int
    length_ratio: float
    tokens: float
    accuracy: float
    accuracy_low: float
    accuracy_high: float
    lost: float
    lost_low: float
    lost_high: float
    truncation: float
    repetition: float
    repeated_ngrams: float
    steered_size: float | None
    wait: float
    but: float
    so: float
    regime: Regime


def judged_by(traces: Sequence[Trace]) -> JudgedBy:
    """Return ``gold`` if any trace has a gold answer, else ``agreement``."""
    return "gold" if any(trace.gold is not None for trace in traces) else "agreement"


def measure_sweep(
    traces: Sequence[Trace], limits: Limits, tokenizer: PreTrainedTokenizerBase, checker: AnswerChecker
) -> list[SweepRow]:
    """Measure every (layer set, alpha): alpha 0 first, then by layer set from the weakest strength to the strongest.

    The traces are of one model and one system. A trace is left out if its question has no initial trace of the same
    sample. ``limits`` define what counts as collapse. InputError if there is no trace at alpha 0 to compare with.
    """
    initial = {(trace.question_id, trace.sample): trace for trace in traces if trace.alpha == 0}
    if not initial:
        raise InputError("the strength sweep needs traces at alpha 0 to compare with; add 0 to data.alphas")
    cells: dict[tuple[str, float], list[Trace]] = defaultdict(list)
    for trace, layer_set in zip(traces, _layer_sets(traces), strict=True):
        if (trace.question_id, trace.sample) in initial:
            cells[layer_set, trace.alpha].append(trace)
    judge = judged_by(traces)
    base: SweepRow | None = None
    rows = []
    for layer_set, alpha in sorted(cells, key=lambda cell: (cell[1] != 0, cell[0], abs(cell[1]), cell[1])):
        cell = cells[layer_set, alpha]
        rows.append(_row(layer_set, alpha, cell, initial, judge, tokenizer, checker, limits, base))
        base = rows[0]
    return rows


@dataclass(frozen=True)
class Choice:
    """The strength to sample with, or why there is none; ``nearest`` then came closest to the limits."""

    chosen: SweepRow | None
    nearest: SweepRow | None
    reason: str


def choose(rows: Sequence[SweepRow], limits: Limits, judge: JudgedBy) -> Choice:
    """Choose the setting that shortens most within the limits (ours); ``rows`` are those of `measure_sweep`."""
    base, steered = rows[0], rows[1:]
    word = "accuracy" if judge == "gold" else "agreement with the initial answer"
    if not base.accuracy > 0:
        nothing = "no right answer" if judge == "gold" else "no answer"
        return Choice(None, None, f"None of {len(steered)} settings is chosen: there is {nothing} at alpha 0 to lose.")
    shorter = [row for row in steered if row.length_ratio <= WEAK]
    fit = [row for row in shorter if not _excesses(row, base, limits, word)]
    limits_in_words = (
        f"{word} at most {100 * limits.accuracy_drop:.1f} points under the {base.accuracy:.1%} of alpha 0, loops in "
        f"at most {max(base.repetition, limits.repetition):.1%} and truncation in at most "
        f"{max(base.truncation, limits.truncation):.1%} of the traces"
    )
    if not fit:
        nearest, why = _nearest(steered, shorter, limits_in_words)
        if nearest is not None:
            cost = _excesses(nearest, base, limits, word)
            why += f"; nearest is {_name(nearest)}: length ratio {nearest.length_ratio:.2f}" + (
                f", but {' and '.join(cost)}" if cost else f", {word} {nearest.accuracy:.1%}"
            )
        return Choice(None, nearest, f"None of {len(steered)} settings is chosen: {why}.")
    chosen = min(fit, key=lambda row: (row.length_ratio, abs(row.alpha)))
    reason = (
        f"{len(fit)} of {len(steered)} settings shorten and stay within the limits ({limits_in_words}); of them "
        f"{_name(chosen)} shortens most: length ratio {chosen.length_ratio:.2f} at {word} {chosen.accuracy:.1%} "
        f"(95 % interval {chosen.accuracy_low:.1%} to {chosen.accuracy_high:.1%}, {chosen.n} traces)."
    )
    if chosen.lost_high > limits.accuracy_drop:
        reason += (
            f" {chosen.n} traces cannot tell that it stays within {100 * limits.accuracy_drop:.1f} points: it loses "
            f"{100 * chosen.lost:.1f} (95 % interval {100 * chosen.lost_low:.1f} to {100 * chosen.lost_high:.1f})."
        )
    stronger = [
        row
        for row in shorter
        if row.layer_set == chosen.layer_set and abs(row.alpha) > abs(chosen.alpha) and row.alpha * chosen.alpha > 0
    ]
    if stronger:
        following = min(stronger, key=lambda row: abs(row.alpha))
        against = " and ".join(_excesses(following, base, limits, word)) or "it is no shorter"
        reason += f" The next stronger one, {following.alpha:g}, is not taken: {against}."
    return Choice(chosen, None, reason)


def _layer_sets(traces: Sequence[Trace]) -> list[str]:
    """Return the layer set of each trace; all are named by their layers if any trace of an older file names none."""
    named = [trace.layer_set for trace in traces if trace.layer_set is not None]
    return named if len(named) == len(traces) else [",".join(map(str, trace.layers)) for trace in traces]


def _row(
    layer_set: str,
    alpha: float,
    cell: list[Trace],
    initial: dict[tuple[str, int], Trace],
    judge: JudgedBy,
    tokenizer: PreTrainedTokenizerBase,
    checker: AnswerChecker,
    limits: Limits,
    base: SweepRow | None,
) -> SweepRow:
    """Measure one cell; ``base`` is None for alpha 0."""
    partners = [initial[trace.question_id, trace.sample] for trace in cell]
    if judge == "gold":
        judged = [trace for trace in cell if trace.gold is not None]
        right = [trace.correct is True for trace in judged]
        before = [p.correct is True for p, trace in zip(partners, cell, strict=True) if trace.gold is not None]
    else:
        judged = cell
        answered = [(p.answer, t.answer) for p, t in zip(partners, cell, strict=True)]
        same = iter(checker.check([(first, second) for first, second in answered if first is not None]))
        right = [first is not None and next(same) for first, _ in answered]
        before = [first is not None for first, _ in answered]
    accuracy = sum(right) / len(right) if right else float("nan")
    numbers = {question: number for number, question in enumerate(dict.fromkeys(t.question_id for t in judged))}
    questions = [numbers[trace.question_id] for trace in judged]
    low, high = rate_interval([float(r) for r in right], questions)
    lost = [float(was) - float(now) for was, now in zip(before, right, strict=True)]
    lost_low, lost_high = bootstrap_interval(lost, questions, bounds=(-1, 1))
    tokens = [trace.n_tokens for trace in cell]
    ratio = length_ratio(tokens, [trace.n_tokens for trace in partners])
    truncation = sum(trace.finish_reason == "length" for trace in cell) / len(cell)
    loops = sum(has_loop(trace.completion) for trace in cell) / len(cell)
    ids = [tokenizer.encode(trace.completion, add_special_tokens=False) for trace in cell]
    sizes = [trace.steered_size for trace in cell if trace.steered_size]
    return SweepRow(
        layer_set=layer_set,
        layers=cell[0].layers,
        alpha=alpha,
        n=len(cell),
        length_ratio=ratio,
        tokens=sum(tokens) / len(cell),
        accuracy=accuracy,
        accuracy_low=low,
        accuracy_high=high,
        lost=sum(lost) / len(lost) if lost else float("nan"),
        lost_low=lost_low,
        lost_high=lost_high,
        truncation=truncation,
        repetition=loops,
        repeated_ngrams=sum(map(repetition, ids)) / len(cell),
        steered_size=sum(sizes) / len(sizes) if sizes else None,
        **hesitation_rates((trace.completion for trace in cell), sum(tokens)),
        regime=_regime(ratio, accuracy, loops, truncation, len(cell), limits, base),
    )


def _regime(
    ratio: float, accuracy: float, loops: float, truncation: float, n: int, limits: Limits, base: SweepRow | None
) -> Regime:
    """Return the regime of a strength (the paper names weak, moderate and collapse; the thresholds are ours)."""
    if base is None:
        return "initial"
    if _is_over(loops, n, base.repetition, limits.repetition) or _is_over(
        truncation, n, base.truncation, limits.truncation
    ):
        return "collapse"
    if accuracy < COLLAPSE_ACCURACY * base.accuracy:
        return "collapse"
    return "weak" if ratio > WEAK else "moderate"


def _nearest(
    steered: Sequence[SweepRow], shorter: Sequence[SweepRow], limits_in_words: str
) -> tuple[SweepRow | None, str]:
    if not shorter:
        nearest = min(steered, key=lambda row: row.length_ratio, default=None)
        return nearest, f"no strength shortens to a length ratio of {WEAK} or less"
    nearest = max(shorter, key=lambda row: (row.accuracy - row.repetition - row.truncation, -row.length_ratio))
    return nearest, f"no strength that shortens stays within the limits ({limits_in_words})"


def _excesses(row: SweepRow, base: SweepRow, limits: Limits, word: str) -> list[str]:
    found = []
    if row.lost > limits.accuracy_drop + 1e-9:
        found.append(f"{word} {row.accuracy:.1%} is {100 * row.lost:.1f} points lower")
    if _is_over(row.repetition, row.n, base.repetition, limits.repetition):
        found.append(f"{row.repetition:.1%} of its traces loop")
    if _is_over(row.truncation, row.n, base.truncation, limits.truncation):
        found.append(f"{row.truncation:.1%} of its traces are truncated")
    return found


def _is_over(share: float, n: int, base: float, limit: float) -> bool:
    """Whether a share of ``n`` traces is over its limit, or alpha 0's share if that is larger, by more than chance."""
    return wilson_interval(round(share * n), n)[0] > max(base, limit)


def _name(row: SweepRow) -> str:
    layers = ", ".join(map(str, row.layers))
    return f"alpha {row.alpha:g}" + (f" on {row.layer_set} (layers {layers})" if row.layer_set else "")
