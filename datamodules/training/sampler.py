"""Sample batches of examples of similar length, in random order, with the same number on every process."""

import itertools
import random
from bisect import bisect_left, insort
from collections.abc import Iterator, Sequence

from datamodules.errors import InputError

MEGABATCH = 50
"""Batches per process within which examples are sorted by length (ours). Larger: less padding. Smaller: more random."""


class LengthGroupedBatchSampler:
    """Batches of examples of similar length.

    The examples are shuffled, cut into megabatches and sorted by length within each; the megabatches are cut into
    batches, and these are shuffled. The batches of one step have similar lengths on all processes. They depend on
    lengths, settings and epoch alone, and their number is a multiple of the number of processes. Every example is in
    exactly one batch, or in several if there are too few examples for that.

    Args:
        lengths: Number of tokens of each example.
        batch_size: Rows of a batch. If the examples do not divide evenly, several batches have one row less.
        max_tokens: Instead of ``batch_size``: most tokens of a batch, padding included.
        packing: Make each batch a single row of at most ``max_tokens`` tokens, with examples packed end to end.
        seed: Seed of the shuffling.
        world_size: Number of processes that share the data.
        rank: This process.

    Raises:
        InputError: The settings contradict each other, an example is longer than ``max_tokens``, or there are none.
    """

    def __init__(
        self,
        lengths: Sequence[int],
        *,
        batch_size: int | None = None,
        max_tokens: int | None = None,
        packing: bool = False,
        seed: int = 0,
        world_size: int = 1,
        rank: int = 0,
    ) -> None:
        check_batch_settings(batch_size, max_tokens, packing)
        if not lengths:
            raise InputError("there are no examples to make batches of")
        if max_tokens is not None and max(lengths) > max_tokens:
            raise InputError(f"an example of {max(lengths)} tokens does not fit into max_tokens={max_tokens}")
        self.lengths = list(lengths)
        self.batch_size, self.max_tokens, self.packing = batch_size, max_tokens, packing
        self.seed, self.world_size, self.rank = seed, world_size, rank
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch to iterate over."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[list[int]]:
        return (step[self.rank] for step in self.steps(self.epoch))

    def __len__(self) -> int:
        return len(self.steps(self.epoch))

    def steps(self, epoch: int) -> list[list[list[int]]]:
        """Return the batches of all processes: for each step and process, the indices of its examples."""
        rng = random.Random(f"{self.seed}/{epoch}")
        order = list(range(len(self.lengths)))
        rng.shuffle(order)
        batches = self._fixed(order) if self.batch_size is not None else self._budgeted(order)
        world = self.world_size
        steps = [batches[i : i + world] for i in range(0, len(batches), world)]
        rng.shuffle(steps)
        return steps

    def _fixed(self, order: list[int]) -> list[list[int]]:
        """Cut batches of ``batch_size`` rows, or one row less."""
        assert self.batch_size is not None
        n = _round_up(_ceil_div(len(order), self.batch_size), self.world_size)
        order = _at_least(order, n)
        edges = [len(order) * i // n for i in range(n + 1)]
        group = MEGABATCH * self.world_size
        for first in range(0, n, group):
            window = slice(edges[first], edges[min(first + group, n)])
            order[window] = self._sorted(order[window])
        return [order[a:b] for a, b in itertools.pairwise(edges)]

    def _budgeted(self, order: list[int]) -> list[list[int]]:
        """Cut batches of at most ``max_tokens`` tokens; their number is a multiple of the number of processes."""
        assert self.max_tokens is not None
        mean = sum(self.lengths) / len(self.lengths)
        window = MEGABATCH * self.world_size * max(1, int(self.max_tokens / mean))
        fill = self._fill_packed if self.packing else self._fill_padded
        order = _at_least(order, self.world_size)
        batches = [b for i in range(0, len(order), window) for b in fill(self._sorted(order[i : i + window]))]
        while len(batches) % self.world_size:
            largest = max(range(len(batches)), key=lambda i: len(batches[i]))
            if len(batches[largest]) > 1:
                half = len(batches[largest]) // 2
                batches[largest : largest + 1] = [batches[largest][:half], batches[largest][half:]]
            else:
                batches.append(batches[0])
        return batches

    def _fill_padded(self, order: list[int]) -> list[list[int]]:
        """Fill padded batches with examples of falling length, each up to the budget."""
        assert self.max_tokens is not None
        batches: list[list[int]] = []
        for index in order:
            if batches and (len(batches[-1]) + 1) * self.lengths[batches[-1][0]] <= self.max_tokens:
                batches[-1].append(index)
            else:
                batches.append([index])
        return batches

    def _fill_packed(self, order: list[int]) -> list[list[int]]:
        """Pack by best fit decreasing: each example goes into the fullest row that has room for it."""
        assert self.max_tokens is not None
        rows: list[list[int]] = []
        free: list[tuple[int, int]] = []  # (free tokens, row), sorted
        for index in order:
            length = self.lengths[index]
            at = bisect_left(free, (length, -1))
            if at < len(free):
                room, row = free.pop(at)
                rows[row].append(index)
            else:
                room, row = self.max_tokens, len(rows)
                rows.append([index])
            insort(free, (room - length, row))
        return rows

    def _sorted(self, order: list[int]) -> list[int]:
        return sorted(order, key=lambda i: -self.lengths[i])


def check_batch_settings(batch_size: int | None, max_tokens: int | None, packing: bool) -> None:
    """Raise `InputError` unless exactly one of the two sizes is given, and ``max_tokens`` for packing."""
    if (batch_size is None) == (max_tokens is None):
        raise InputError("give exactly one of data.batch_size (rows) and data.max_tokens (tokens of a batch)")
    for key, value in (("batch_size", batch_size), ("max_tokens", max_tokens)):
        if value is not None and value < 1:
            raise InputError(f"data.{key} must be at least 1, not {value}")
    if packing and max_tokens is None:
        raise InputError("data.packing needs data.max_tokens, the length of a packed row")


def _ceil_div(a: int, b: int) -> int:
    return -(-a // b)


def _round_up(a: int, multiple: int) -> int:
    return _ceil_div(a, multiple) * multiple


def _at_least(order: list[int], n: int) -> list[int]:
    """Repeat entries from the beginning until there are ``n``."""
    return (order * _ceil_div(n, len(order)))[: max(n, len(order))]
