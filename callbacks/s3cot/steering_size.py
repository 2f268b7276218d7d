"""Whether what steering adds is of a size that is of use."""

from collections.abc import Sequence
from math import isfinite

from callbacks.s3cot.strength_sweep import SweepRow

BAND = (0.05, 0.5)
"""Useful mean size of what is added, relative to the residual stream (ours, as measured in docs/s3cot.md)."""


def size_warning(rows: Sequence[SweepRow]) -> str:
    """What is wrong with the sizes in a strength sweep, and which strengths to try; empty if one is in the `BAND`.

    The size is in proportion to the strength.
    """
    low, high = BAND
    sizes = {row.steered_size: row for row in rows if row.steered_size and isfinite(row.steered_size)}
    if not sizes or any(low <= size <= high for size in sizes) or min(sizes) < low < high < max(sizes):
        return ""
    size, bound = (max(sizes), low) if max(sizes) < low else (min(sizes), high)
    row = sizes[size]
    where = f" on {row.layer_set}" if row.layer_set else ""
    effect = "too little to change answers" if bound == low else "so much that answers fall apart"
    return (
        f"at alpha {row.alpha:g}{where} what steering adds is {size:.2%} of the residual stream, {effect}; {low:.0%} "
        f"to {high:.0%} is of use, so try alphas {'from' if bound == low else 'up to'} {row.alpha * bound / size:.2g}"
    )
