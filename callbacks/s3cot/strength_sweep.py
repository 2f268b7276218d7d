"""The strength sweep: how each strength on each layer set shortens, what it costs, and which one to take."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from transformers import PreTrainedTokenizerBase

from callbacks.evaluation.metrics import bootstrap_interval, hesitation_rates, length_ratio, repetition
from datamodules.answers.checker import AnswerChecker
from datamodules.answers.loops import has_loop
from datamodules.errors import InputError
from datamodules.prompts.prompt_data import layer_set_of
from datamodules.records.kinds import Trace

Judge = Literal["gold", "agreement"]
Regime = Literal["initial", "weak", "moderate", "collapse"]

WEAK = 0.95
"""A strength that leaves more than this share of the tokens does too little (ours)."""
COLLAPSE_ACCURACY = 0.5
"""A strength that leaves less than this share of the initial accuracy has broken the model (ours)."""


@dataclass(frozen=True)
class Limits:
    """What a strength may cost to be chosen (ours); all are fractions of 1.

    ``accuracy_drop`` counts from alpha 0. ``repetition`` and ``truncation`` are shares of traces; where alpha 0 itself
    has more, that is the limit.
    """

    accuracy_drop: float
    repetition: float
    truncation: float


@dataclass(frozen=True)
class SweepRow:
    """One strength on one layer set; the line of ``strength_sweep.csv``.

    ``accuracy`` is judged by gold answers, or is the share of traces that give the answer of the initial trace of
    their question and sample. ``length_ratio`` is the mean length over that of the same questions' initial traces.
    ``repetition`` is the share of traces caught in a loop (the filter's rule), ``repeated_ngrams`` the mean share of
    repeated token windows. ``wait``, ``but`` and ``so`` are occurrences per 100 tokens.
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
    truncation: float
    repetition: float
    repeated_ngrams: float
    wait: float
    but: float
    so: float
    regime: Regime


def judge_of(traces: Sequence[Trace]) -> Judge:
    """By what the traces can be judged: gold answers, if there are any."""
    return "gold" if any(trace.gold is not None for trace in traces) else "agreement"


def measure_sweep(
    traces: Sequence[Trace], limits: Limits, tokenizer: PreTrainedTokenizerBase, checker: AnswerChecker
) -> list[SweepRow]:
    """One row a (layer set, alpha), alpha 0 first, then by layer set and from the weakest strength to the strongest.

    Args:
        traces: Of one model and one system. Those whose question has no initial trace of the same sample are left out.
        limits: Tell what counts as collapse.
        tokenizer: Of the model.
        checker: Compares answers where there is no gold.

    Raises:
        InputError: There is no trace at alpha 0 to compare with.
    """
    initial = {(trace.question_id, trace.sample): trace for trace in traces if trace.alpha == 0}
    if not initial:
        raise InputError("the strength sweep needs traces at alpha 0 to compare with; add 0 to data.alphas")
    cells: dict[tuple[str, float], list[Trace]] = defaultdict(list)
    for trace in traces:
        if (trace.question_id, trace.sample) in initial:
            cells[layer_set_of(trace.id), trace.alpha].append(trace)
    judge = judge_of(traces)
    base: SweepRow | None = None
    rows = []
    for layer_set, alpha in sorted(cells, key=lambda cell: (cell[1] != 0, cell[0], abs(cell[1]), cell[1])):
        cell = cells[layer_set, alpha]
        rows.append(_row(layer_set, alpha, cell, initial, judge, tokenizer, checker, limits, base))
        base = rows[0]
    return rows


@dataclass(frozen=True)
class Choice:
    """The strength to sample with, or why there is none. ``nearest`` came closest where none is chosen."""

    chosen: SweepRow | None
    nearest: SweepRow | None
    reason: str


def choose(rows: Sequence[SweepRow], limits: Limits, judge: Judge) -> Choice:
    """The strength that shortens most within the limits (ours).

    Args:
        rows: As `measure_sweep` gives them, alpha 0 first.
        limits: What a strength may cost.
        judge: By what accuracy was judged, for the words of the reason.
    """
    base, steered = rows[0], rows[1:]
    word = "accuracy" if judge == "gold" else "agreement with the initial answer"
    if not base.accuracy > 0:
        nothing = "no right answer" if judge == "gold" else "no answer"
        return Choice(None, None, f"None of {len(steered)} settings is chosen: there is {nothing} at alpha 0 to lose.")
    shorter = [row for row in steered if row.length_ratio <= WEAK]
    fit = [row for row in shorter if not _excesses(row, base, limits, word)]
    limits_in_words = (
        f"{word} at most {100 * limits.accuracy_drop:.1f} points under the {base.accuracy:.1%} of alpha 0, loops in "
        f"at most {_limit(base.repetition, limits.repetition):.1%} and truncation in at most "
        f"{_limit(base.truncation, limits.truncation):.1%} of the traces"
    )
    if not fit:
        if not shorter:
            nearest = min(steered, key=lambda row: row.length_ratio, default=None)
            why = f"no strength shortens to a length ratio of {WEAK} or less"
        else:
            nearest = max(shorter, key=lambda row: (row.accuracy - row.repetition - row.truncation, -row.length_ratio))
            why = f"no strength that shortens stays within the limits ({limits_in_words})"
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


def _row(
    layer_set: str,
    alpha: float,
    cell: list[Trace],
    initial: dict[tuple[str, int], Trace],
    judge: Judge,
    tokenizer: PreTrainedTokenizerBase,
    checker: AnswerChecker,
    limits: Limits,
    base: SweepRow | None,
) -> SweepRow:
    """Measure one cell; ``base`` is None for that of alpha 0."""
    partners = [initial[trace.question_id, trace.sample] for trace in cell]
    if judge == "gold":
        judged = [trace for trace in cell if trace.gold is not None]
        right = [trace.correct is True for trace in judged]
    else:
        judged = cell
        answered = [(p.answer, t.answer) for p, t in zip(partners, cell, strict=True)]
        same = iter(checker.check([(first, second) for first, second in answered if first is not None]))
        right = [first is not None and next(same) for first, _ in answered]
    accuracy = sum(right) / len(right) if right else float("nan")
    numbers = {question: number for number, question in enumerate(dict.fromkeys(t.question_id for t in judged))}
    low, high = bootstrap_interval([float(r) for r in right], [numbers[trace.question_id] for trace in judged])
    tokens = [trace.n_tokens for trace in cell]
    ratio = length_ratio(tokens, [trace.n_tokens for trace in partners])
    truncation = sum(trace.finish_reason == "length" for trace in cell) / len(cell)
    loops = sum(has_loop(trace.completion) for trace in cell) / len(cell)
    ids = [tokenizer.encode(trace.completion, add_special_tokens=False) for trace in cell]
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
        truncation=truncation,
        repetition=loops,
        repeated_ngrams=sum(map(repetition, ids)) / len(cell),
        **hesitation_rates((trace.completion for trace in cell), sum(tokens)),
        regime=_regime(ratio, accuracy, loops, truncation, limits, base),
    )


def _regime(
    ratio: float, accuracy: float, loops: float, truncation: float, limits: Limits, base: SweepRow | None
) -> Regime:
    """Too weak, moderate or collapsed (paper names the three; the thresholds are ours)."""
    if base is None:
        return "initial"
    if loops > _limit(base.repetition, limits.repetition) or truncation > _limit(base.truncation, limits.truncation):
        return "collapse"
    if accuracy < COLLAPSE_ACCURACY * base.accuracy:
        return "collapse"
    return "weak" if ratio > WEAK else "moderate"


def _excesses(row: SweepRow, base: SweepRow, limits: Limits, word: str) -> list[str]:
    """Each limit that a row exceeds, in words."""
    drop = base.accuracy - row.accuracy
    found = []
    if drop > limits.accuracy_drop + 1e-9:
        found.append(f"{word} {row.accuracy:.1%} is {100 * drop:.1f} points lower")
    if row.repetition > _limit(base.repetition, limits.repetition):
        found.append(f"{row.repetition:.1%} of its traces loop")
    if row.truncation > _limit(base.truncation, limits.truncation):
        found.append(f"{row.truncation:.1%} of its traces are truncated")
    return found


def _limit(at_zero: float, limit: float) -> float:
    return max(at_zero, limit)


def _name(row: SweepRow) -> str:
    layers = ", ".join(map(str, row.layers))
    return f"alpha {row.alpha:g}" + (f" on {row.layer_set} (layers {layers})" if row.layer_set else "")
