"""Metrics of generated reasoning as plain functions: AES, length ratio, repetition, hesitation words, intervals."""

import math
import re
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache

import numpy as np

NGRAM = 16
"""Tokens of a window whose recurrence counts as repetition (ours)."""
_KEPT = 40_000_000
"""Bytes of the draws of a bootstrap up to which they are kept."""
WON, LOST = 5, 10
"""Weights of a relative gain and of a relative loss of accuracy in AES (paper)."""
HESITATIONS = ("wait", "but", "so")
"""Words that are more frequent in longer reasoning (companion paper, arXiv 2602.01999)."""


def aes(accuracy: float, tokens: float, base_accuracy: float, base_tokens: float) -> float:
    """Accuracy-efficiency score (paper, evaluation): tokens saved, plus 5 x accuracy won or minus 10 x accuracy lost.

    ``dLen = (L_base - L) / L_base``, ``dAcc = (A - A_base) / A_base``. The score is ``dLen + 5 dAcc`` if
    ``dAcc >= 0``, else ``dLen - 10 |dAcc|``; ``dLen`` if both accuracies are 0, infinite if only the base's is, nan if
    an accuracy is nan. For several benchmarks, pass macro-averages.

    Example:
        >>> aes(accuracy=0.8, tokens=50, base_accuracy=0.8, base_tokens=200)
        0.75
    """
    if base_tokens <= 0:
        return float("nan")
    saved = (base_tokens - tokens) / base_tokens
    gain = accuracy - base_accuracy
    if gain == 0:
        return saved
    relative = gain / base_accuracy if base_accuracy else gain * float("inf")
    return saved + (WON * relative if relative >= 0 else LOST * relative)


def length_ratio(tokens: Sequence[float], base_tokens: Sequence[float]) -> float:
    """Len-R of a set of completions: their mean length over that of the initial completions (paper, sec. VL-D).

    A ratio of means measures the total saving; in a mean of ratios short questions would dominate.
    """
    return float(np.sum(tokens) / np.sum(base_tokens)) if np.sum(base_tokens) else float("nan")


def repetition(token_ids: Sequence[int], n: int = NGRAM) -> float:
    """Share of the windows of ``n`` tokens that occurred earlier in the same completion, in [0, 1).

    It is about the share of the completion that is a loop. Sound text stays low: of 4,000 GPT-3.5/4 chains of thought,
    formulas included, one in a hundred has more than 0.06 and none more than 0.27. Fewer than ``n + 1`` tokens give 0.
    """
    windows = len(token_ids) - n + 1
    if windows < 2:
        return 0.0
    return 1 - len(set(zip(*(token_ids[start : start + windows] for start in range(n)), strict=True))) / windows


def hesitation_rates(texts: Iterable[str], tokens: float) -> dict[str, float]:
    """Occurrences of ``HESITATIONS`` (whole words, any case) per 100 tokens; ``tokens`` is the total of all texts."""
    counts = dict.fromkeys(HESITATIONS, 0)
    pattern = re.compile(rf"\b({'|'.join(HESITATIONS)})\b", re.IGNORECASE)
    for text in texts:
        for word in pattern.findall(text):
            counts[word.lower()] += 1
    return {word: 100 * count / tokens if tokens else float("nan") for word, count in counts.items()}


def wilson_interval(successes: float, n: float, z: float = 1.96) -> tuple[float, float]:
    """Wilson's score interval of a rate, which stays sensible for few trials and near 0 and 1; (0, 1) without trials.

    ``z`` is the normal quantile, 1.96 for 95 %.
    """
    if n == 0:
        return 0.0, 1.0
    share, denominator = successes / n, 1 + z * z / n
    centre = share + z * z / (2 * n)
    half = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return max(0.0, (centre - half) / denominator), min(1.0, (centre + half) / denominator)


def rate_interval(values: Sequence[float] | np.ndarray, groups: Sequence[int] | np.ndarray) -> tuple[float, float]:
    """Wilson's 95 % interval of a rate, for as many independent records as the ``values`` of 0 and 1 are worth.

    That is their number over the design effect (Kish): how much larger the variance of the rate is, because the values
    of one group depend on each other, than that of as many independent ones; and less for few groups, by Student's
    quantile (Korn and Graubard 1998). If all values but one are equal, which tells nothing about the groups, each group
    counts as one record; the design effect counts the more, the more values differ (ours). (nan, nan) without values.

    Example:
        >>> [f"{bound:.2f}" for bound in rate_interval([1, 1, 0, 0], [0, 1, 2, 3])]
        ['0.15', '0.85']
        >>> [f"{bound:.2f}" for bound in rate_interval([1, 1, 0, 0, 0, 1], [0, 0, 1, 1, 2, 2])]
        ['0.04', '0.96']
    """
    values = np.asarray(values, dtype=np.float64)
    if values.size == 0:
        return float("nan"), float("nan")
    index = np.unique(np.asarray(groups), return_inverse=True)[1]
    sums, counts = np.bincount(index, weights=values), np.bincount(index)
    rate, n = float(values.mean()), float(counts.size)
    if 1 < n < values.size and 0 < rate < 1:
        variance = n / (n - 1) * float(np.square(sums - rate * counts).sum()) / values.size**2
        worth = min(values.size, rate * (1 - rate) / max(variance, 1e-12)) * (1.96 / _student(n - 1)) ** 2
        rarer = min(values.sum(), values.size - values.sum())
        n = min(worth, n + (worth - n) * (1 - 1 / rarer))
    return wilson_interval(rate * n, n)


def _student(freedom: float) -> float:
    """The 97.5 % quantile of Student's distribution, by the expansion in 1 / degrees of freedom; a bit low below 3."""
    z = 1.96
    first, second = (z**3 + z) / 4, (5 * z**5 + 16 * z**3 + 3 * z) / 96
    return z + first / freedom + second / freedom**2


def bootstrap_interval(
    values: Sequence[float] | np.ndarray,
    groups: Sequence[int] | np.ndarray | None = None,
    *,
    bounds: tuple[float, float] | None = None,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean of ``values``; (nan, nan) without values.

    ``groups`` names the question of each value: whole questions are resampled, since samples of one question are not
    independent. By default each value is its own group. ``bounds`` are the least and the largest value that there can
    be: see `with_bounds`.
    """
    values = np.asarray(values, dtype=np.float64)
    if values.size == 0:
        return float("nan"), float("nan")
    index = np.arange(values.size) if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1]
    sums, counts = np.bincount(index, weights=values), np.bincount(index).astype(np.float64)
    means = [(times @ sums) / (times @ counts) for times in _resamples(sums.size, resamples, seed)]
    low, high = np.quantile(np.concatenate(means), [0.5 - level / 2, 0.5 + level / 2])
    if bounds is None:
        return float(low), float(high)
    return with_bounds(float(low), float(high), values, sums.size, bounds)


def with_bounds(
    low: float, high: float, values: np.ndarray, n: int, bounds: tuple[float, float]
) -> tuple[float, float]:
    """A bootstrap interval of values between ``bounds`` that is not empty when all resamples are equal.

    So they are of equal ``values`` and of a single group, and yet 0 of 20 does not show a rate of 0. Towards each bound
    the interval then reaches as far as Wilson's does for a rate of 0 among ``n`` independent groups (ours).
    """
    first = float(values.mean())
    if n > 1 and (values != values[0]).any():
        return low, high
    reach = wilson_interval(0, n)[1]
    return first - reach * (first - bounds[0]), first + reach * (bounds[1] - first)


def _resamples(n: int, resamples: int, seed: int) -> Iterator[np.ndarray]:
    """How often each resample draws each of ``n`` groups, in blocks of rows (resamples, n).

    All metrics of a run have the same groups, so the draws of small sets are kept.
    """
    blocks = _kept(n, resamples, seed) if n * resamples <= _KEPT else _drawn(n, resamples, seed)
    return (block.astype(np.float64) for block in blocks)


@lru_cache(maxsize=4)
def _kept(n: int, resamples: int, seed: int) -> list[np.ndarray]:
    return list(_drawn(n, resamples, seed))


def _drawn(n: int, resamples: int, seed: int) -> Iterator[np.ndarray]:
    generator = np.random.default_rng(seed)
    per_block = max(1, 2_000_000 // n)  # keeps a block of draws within 16 MB
    for start in range(0, resamples, per_block):
        rows = min(per_block, resamples - start)
        drawn = generator.integers(n, size=(rows, n)) + n * np.arange(rows)[:, None]
        # No group of many is drawn 256 times.
        yield np.bincount(drawn.ravel(), minlength=rows * n).reshape(rows, n).astype(np.uint8)
