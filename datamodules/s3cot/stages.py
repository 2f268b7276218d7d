"""Which (item, variant) pairs each stage of the compression curriculum trains on. Knows lengths only, no text."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from typing import Literal

from datamodules.errors import InputError

N_BUCKETS = 10
"""Length ratios are drawn about uniformly over this many buckets of equal width from 0 to 1 (likely)."""

LOWER_BOUNDS = (0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0.0)
"""Ten windows, the first from 0.9 to 1, each a step of 0.1 wider than the one before (paper, sec. 5 of the method)."""

Selection = Literal["curriculum", "all_at_once", "shortest_only", "verbose_only"]
"""The curriculum, or one of its controls, which have as many pairs a stage."""

_SLACK = 1e-9  # so that 0.3 / 0.1 counts as 3


@dataclass(frozen=True)
class Pair:
    """One item and the variant that System 1 learns from it; ``variant`` None stands for the initial trace."""

    item: int
    variant: int | None
    length_ratio: float


@dataclass(frozen=True)
class Stage:
    """What one stage trains on.

    Attributes:
        lower: The window of length ratios goes from here to 1; the controls' windows are always open.
        pairs: The pairs drawn, in the order drawn; one may come again once its bucket is exhausted.
        available: Different pairs to draw from, per bucket of length ratio from 0 to 1.
    """

    index: int
    lower: float
    pairs: tuple[Pair, ...]
    available: tuple[int, ...]

    @property
    def drawn(self) -> tuple[int, ...]:
        """Pairs drawn per bucket of length ratio."""
        return count_buckets(self.pairs)


def bucket(length_ratio: float) -> int:
    """The bucket of a length ratio in [0, 1]; 1 belongs to the last."""
    return min(N_BUCKETS - 1, int(length_ratio * N_BUCKETS + _SLACK))


def count_buckets(pairs: Sequence[Pair]) -> tuple[int, ...]:
    """Pairs per bucket."""
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

    ``curriculum`` draws from variants whose length ratio is in the stage's window, ``all_at_once`` from all of them in
    every stage: the non-empty buckets take turns, and each gives its pairs in a random order, from the start again
    when it is exhausted. ``shortest_only`` and ``verbose_only`` go through the items in a random order.

    Args:
        ratios: Length ratios of the variants of each item; items without one in (0, 1] are not used.
        lower_bounds: Lower end of each stage's window; the upper end is 1.
        selection: The curriculum or a control.
        pairs_per_stage: How many pairs each stage gets (ours: the same for all).
        seed: Each stage draws with a seed of its own that depends on this one.

    Raises:
        InputError: A bound out of order or range, or a stage without a pair.
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
    """All pairs of an item and a usable variant of it."""
    return [
        Pair(item, variant, ratio)
        for item, its_ratios in enumerate(ratios)
        for variant, ratio in enumerate(its_ratios)
        if is_usable(ratio)
    ]


def is_usable(length_ratio: float) -> bool:
    """Whether a variant is no longer than the initial trace (paper: windows end at 1)."""
    return 0 < length_ratio <= 1


def _groups(pairs: list[Pair], lower: float, selection: Selection) -> list[list[Pair]]:
    """The groups of pairs that take turns in a stage."""
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
    """Draw ``n`` pairs, from each group in turn, none twice before its group is exhausted."""
    groups = [rng.sample(group, len(group)) for group in groups]
    rng.shuffle(groups)
    turns = [cycle(group) for group in groups]
    return tuple(next(turn) for turn in islice(cycle(turns), n))


def _check_bounds(lower_bounds: Sequence[float]) -> None:
    bounds = list(lower_bounds)
    if not bounds or not all(0 <= bound < 1 for bound in bounds):
        raise InputError(f"data.lower_bounds: each stage needs a length ratio from 0 to below 1, not {bounds}")
    if bounds != sorted(bounds, reverse=True):
        raise InputError(
            f"data.lower_bounds: windows only grow, so bounds never rise from a stage to the next: {bounds}"
        )


def _empty_stage(index: int, lower: float, pairs: list[Pair]) -> str:
    """Why a stage is empty and where the data are."""
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
