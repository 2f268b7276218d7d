"""Paired comparison of two runs on the same records, which removes the variance between easy and hard records."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Difference:
    """Difference of a second run from a first.

    Attributes:
        value: Mean of the second minus mean of the first.
        low, high: Its 95 % interval by a bootstrap over records.
        p: Two-sided p-value: McNemar's exact test if all values are 0 or 1, else from the bootstrap.
    """

    value: float
    low: float
    high: float
    p: float


def difference(
    first: Sequence[float] | np.ndarray, second: Sequence[float] | np.ndarray, *, resamples: int = 10_000, seed: int = 0
) -> Difference:
    """Compare two runs record by record. Both have one value per record (the mean of several samples), in one order.

    Raises:
        ValueError: There are no records, or the lengths differ.

    Example:
        >>> difference([1, 0, 0, 1], [1, 1, 1, 1]).p
        0.5
    """
    a, b = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if a.shape != b.shape or not a.size:
        raise ValueError(f"Paired values need equally many records, not {a.size} and {b.size}.")
    gains = b - a
    generator = np.random.default_rng(seed)
    means = []
    per_block = max(1, 2_000_000 // gains.size)  # keeps a block of draws within 16 MB
    for start in range(0, resamples, per_block):
        drawn = generator.integers(gains.size, size=(min(per_block, resamples - start), gains.size))
        means.append(gains[drawn].mean(axis=1))
    sampled = np.concatenate(means)
    low, high = np.quantile(sampled, [0.025, 0.975])
    binary = bool(np.isin(a, (0, 1)).all() and np.isin(b, (0, 1)).all())
    p = mcnemar(int((gains < 0).sum()), int((gains > 0).sum())) if binary else _bootstrap_p(sampled)
    return Difference(float(gains.mean()), float(low), float(high), p)


def mcnemar(lost: int, won: int) -> float:
    """McNemar's exact two-sided p: only the first run got ``lost`` records right, only the second ``won`` records."""
    n = lost + won
    if n == 0:
        return 1.0
    tail = sum(math.comb(n, k) for k in range(min(lost, won) + 1))
    return min(1.0, 2 * tail / 2**n)


def _bootstrap_p(sampled: np.ndarray) -> float:
    """Twice the share of resampled differences on the rarer side of 0; at least one in the number of resamples."""
    below, above = (sampled <= 0).mean(), (sampled >= 0).mean()
    return float(min(1.0, max(2 * min(below, above), 1 / len(sampled))))
