"""Paired comparison of two runs on the same records, which removes the variance between easy and hard records."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from callbacks.evaluation.metrics import with_bounds


@dataclass(frozen=True)
class Difference:
    """Difference of a second run from a first.

    Attributes:
        value: Mean of the second minus mean of the first.
        low, high: Its 95 % interval by a bootstrap over records or, if they are not independent, over clusters.
        p: Two-sided p-value: McNemar's exact test if all values are 0 or 1 and the records are independent, else from
            the bootstrap or, for fewer than 20 records or clusters, of all flips of their signs.
        detectable: Smallest difference that so many records would show at 5 % significance with a probability of
            80 %; for values of 0 and 1 at least the six records that McNemar's test needs. None below six records or
            clusters, which show no difference, however large.
    """

    value: float
    low: float
    high: float
    p: float
    detectable: float | None = None


_POWER = 1.96 + 0.84
"""Standard errors between 0 and a difference that is found with a probability of 80 %."""
_LEAST = 6
"""Records that must differ, all in one direction, for p to fall below 0.05, McNemar's or of flipped signs."""

_FEW = 20
"""Records or clusters below which resamples are too alike: of 5 without an effect, 15 % would have p < 0.05."""


def difference(
    first: Sequence[float] | np.ndarray,
    second: Sequence[float] | np.ndarray,
    clusters: Sequence[str] | None = None,
    *,
    resamples: int = 10_000,
    seed: int = 0,
) -> Difference:
    """Compare two runs record by record. Both have one value per record (the mean of several samples), in one order.

    ``clusters`` names what is independent: records of one cluster are drawn together. By default each is its own.
    ValueError if there are no records, or the lengths differ.

    Example:
        >>> difference([1, 0, 0, 1], [1, 1, 1, 1]).p
        0.5
    """
    a, b = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if a.shape != b.shape or not a.size:
        raise ValueError(f"Paired values need equally many records, not {a.size} and {b.size}.")
    gains = b - a
    index = np.arange(a.size) if clusters is None else np.unique(np.asarray(clusters), return_inverse=True)[1]
    sums: np.ndarray = np.bincount(index, weights=gains)
    counts = np.bincount(index).astype(np.float64)
    single = sums.size == gains.size
    if single:  # records that are their own cluster keep their order, and so their draws
        sums = gains
    generator = np.random.default_rng(seed)
    means = []
    per_block = max(1, 2_000_000 // sums.size)  # keeps a block of draws within 16 MB
    for start in range(0, resamples, per_block):
        drawn = generator.integers(sums.size, size=(min(per_block, resamples - start), sums.size))
        means.append(sums[drawn].mean(axis=1) if single else sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1))
    sampled = np.concatenate(means)
    low, high = map(float, np.quantile(sampled, [0.025, 0.975]))
    binary = bool(np.isin(a, (0, 1)).all() and np.isin(b, (0, 1)).all())
    if binary:
        low, high = with_bounds(low, high, gains, sums.size, (-1, 1))
    if binary and single:
        p = mcnemar(int((gains < 0).sum()), int((gains > 0).sum()))
    else:
        p = _flip_p(sums) if sums.size < _FEW else _bootstrap_p(sampled)
    detectable = _POWER * float(sampled.std())
    if binary:  # rates differ by 1 at most
        detectable = min(max(detectable, _LEAST / sums.size), 1.0)
    return Difference(float(gains.mean()), low, high, p, detectable if sums.size >= _LEAST else None)


def holm(ps: Sequence[float]) -> list[float]:
    """Holm's correction of p-values for how many are tested, in the same order.

    Example:
        >>> holm([0.01, 0.04, 0.03])
        [0.03, 0.06, 0.06]
    """
    corrected, least = [0.0] * len(ps), 0.0
    for rank, index in enumerate(sorted(range(len(ps)), key=lambda i: ps[i])):
        least = max(least, min(1.0, (len(ps) - rank) * ps[index]))
        corrected[index] = least
    return corrected


def mcnemar(lost: int, won: int) -> float:
    """McNemar's exact two-sided p: only the first run got ``lost`` records right, only the second ``won`` records."""
    n = lost + won
    if n == 0:
        return 1.0
    tail = sum(math.comb(n, k) for k in range(min(lost, won) + 1))
    return min(1.0, 2 * tail / 2**n)


def _flip_p(sums: np.ndarray) -> float:
    """The share of all flips of signs with a sum as far from 0: exact if the differences are symmetric around 0."""
    flipped = np.zeros(1)
    for one in sums:
        flipped = np.concatenate([flipped + one, flipped - one])
    return float((np.abs(flipped) >= abs(float(sums.sum())) - 1e-9).mean())


def _bootstrap_p(sampled: np.ndarray) -> float:
    """Twice the share of resampled differences on the rarer side of 0; at least one in the number of resamples."""
    below, above = (sampled <= 0).mean(), (sampled >= 0).mean()
    return float(min(1.0, max(2 * min(below, above), 1 / len(sampled))))
