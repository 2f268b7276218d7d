"""Draw the (item, variant) pairs of each stage of the compression curriculum; works on lengths only, not on text."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from typing import Literal

from datamodules.errors import InputError

N_BUCKETS = 10
"""Buckets of equal width from 0 to 1 over which length ratios are drawn about uniformly (likely)."""

LOWER_BOUNDS = (0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0.0)
"""Lower ends of ten windows: 0.9 to 1 first, each 0.1 wider than the one before (paper, sec. 5 of the method)."""

Selection = Literal["curriculum", "all_at_once", "shortest_only", "verbose_only"]
"""The curriculum, or one of its controls with as many pairs per stage; see `draw_stages`."""

_SLACK = 1e-9  # 0.3 / 0.1 must count as 3


@dataclass(frozen=True)
class Pair:
    """An item and the variant of it that System 1 learns; ``variant`` None means the initial trace."""

    item: int
    variant: int | None
    length_ratio: float


@dataclass(frozen=True)
class Stage:
    """The pairs of one stage, in the order drawn; a pair may repeat once its bucket is exhausted.

    ``lower`` is the lower end of the window of length ratios, 0 in the controls; ``available`` counts different pairs
    by bucket.
    """

    index: int
    lower: float
    pairs: tuple[Pair, ...]
    available: tuple[int, ...]

    @property
    def drawn(self) -> tuple[int, ...]:
        """Pairs drawn, per bucket of length ratios."""
        return count_buckets(self.pairs)


def bucket(length_ratio: float) -> int:
    """Return the bucket of a length ratio in [0, 1]; 1 belongs to the last.

    Example:
        >>> bucket(0.05), bucket(0.3), bucket(1.0)
        (0, 3, 9)
    """
    return min(N_BUCKETS - 1, int(length_ratio * N_BUCKETS + _SLACK))


def count_buckets(pairs: Sequence[Pair]) -> tuple[int, ...]:
    """Count the pairs per bucket."""
    counts = [0] * N_BUCKETS
    for pair in pairs:
        counts[bucket(pair.length_ratio)] += 1
    return tuple(counts)


def draw_stages(
    ratios: Sequence[Sequence[float]],
    lower_bounds: Sequence[float],
    selection: Selection,
    pairs_per_stage: int,
    seed: int,
) -> list[Stage]:
    """Draw the pairs of every stage.

    ``curriculum`` draws variants whose length ratio is in the stage's window, ``all_at_once`` draws from all variants
    in every stage. Both take pairs from the non-empty buckets in turn; each bucket gives its pairs in a random order
    and starts again when it is exhausted. ``shortest_only`` (each item's shortest variant) and ``verbose_only`` (the
    initial trace for both systems) go through the items in a random order. ``ratios`` are those of the variants of each
    item; an item without one in (0, 1] is not used. InputError if a bound is out of range or rises, or a stage has no
    pair to draw from.
    """
    _check_bounds(lower_bounds)
    pairs = usable_pairs(ratios)
    stages = []
    for index, bound in enumerate(lower_bounds):
        lower = bound if selection == "curriculum" else 0.0
        groups = _groups(pairs, lower, selection)
        if not groups:
            raise InputError(_empty_stage(index, lower, pairs))
        rng = random.Random(f"{seed}/stage/{index}")
        available = count_buckets([pair for group in groups for pair in group])
        stages.append(Stage(index, lower, _take_turns(groups, pairs_per_stage, rng), available))
    return stages


def usable_pairs(ratios: Sequence[Sequence[float]]) -> list[Pair]:
    """Return all pairs of an item and a usable variant of it."""
    return [
        Pair(item, variant, ratio)
        for item, its_ratios in enumerate(ratios)
        for variant, ratio in enumerate(its_ratios)
        if is_usable(ratio)
    ]


def is_usable(length_ratio: float) -> bool:
    """Return whether a variant is no longer than the initial trace (paper: windows end at 1)."""
    return 0 < length_ratio <= 1


def _groups(pairs: list[Pair], lower: float, selection: Selection) -> list[list[Pair]]:
    if selection == "verbose_only":
        return [[Pair(item, None, 1.0) for item in sorted({pair.item for pair in pairs})]]
    if selection == "shortest_only":
        shortest: dict[int, Pair] = {}
        for pair in pairs:
            if pair.item not in shortest or pair.length_ratio < shortest[pair.item].length_ratio:
                shortest[pair.item] = pair
        return [list(shortest.values())]
    buckets: list[list[Pair]] = [[] for _ in range(N_BUCKETS)]
    for pair in pairs:
        if pair.length_ratio >= lower - _SLACK:
            buckets[bucket(pair.length_ratio)].append(pair)
    return [group for group in buckets if group]


def _take_turns(groups: list[list[Pair]], n: int, rng: random.Random) -> tuple[Pair, ...]:
    """Draw ``n`` pairs from the groups in turn; none twice before its group is exhausted."""
    groups = [rng.sample(group, len(group)) for group in groups]
    rng.shuffle(groups)
    turns = [cycle(group) for group in groups]
    return tuple(next(turn) for turn in islice(cycle(turns), n))


def _check_bounds(lower_bounds: Sequence[float]) -> None:
    bounds = list(lower_bounds)
    if not bounds or not all(0 <= bound < 1 for bound in bounds):
        raise InputError(f"data.lower_bounds: each must be a length ratio from 0 to below 1, not {bounds}")
    if bounds != sorted(bounds, reverse=True):
        raise InputError(
            f"data.lower_bounds: windows only grow, so no bound may be higher than the one before it: {bounds}"
        )


def _empty_stage(index: int, lower: float, pairs: list[Pair]) -> str:
    if not pairs:
        return (
            "data.items: no item has a variant that is no longer than its initial trace; sample with a stronger alpha"
        )
    counts = count_buckets(pairs)
    where = ", ".join(f"{b / N_BUCKETS:.1f} to {(b + 1) / N_BUCKETS:.1f}: {n}" for b, n in enumerate(counts) if n)
    highest = max(b for b, n in enumerate(counts) if n) / N_BUCKETS
    return (
        f"stage {index} has no variant with a length ratio from {lower:g} to 1; variants by length ratio: {where};"
        f" begin data.lower_bounds at {highest:.1f} or below (and set trainer.max_epochs to their number),"
        " or sample with a weaker alpha"
    )
