"""Caches of a batch that is being decoded, from which finished rows are dropped.

`SlotCache` takes new rows too. It holds keys and values, and the states of linear attention, state-space models and
convolutions. A model with other contents (an indexer of sparse attention, compressed keys) keeps the cache that
transformers makes for it, in a `BatchCache`.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import Cache, DynamicCache
from transformers.cache_utils import (
    DummyLayer,
    DynamicLayer,
    LinearAttentionAndFullAttentionLayer,
    LinearAttentionLayer,
)

from llm_modules.generation.slot_layers import Columns, SlotLayer, StateAndSlotLayer, StateLayer

_HELD: dict[type, type] = {
    DynamicLayer: SlotLayer,
    LinearAttentionLayer: StateLayer,
    LinearAttentionAndFullAttentionLayer: StateAndSlotLayer,
    DummyLayer: DummyLayer,
}
"""Layer of transformers -> the one that holds its contents here."""


def _contents(layer: Any) -> list[Tensor]:
    """The tensors of a layer of transformers that have a column per token."""
    found = [getattr(layer, name, None) for name in ("keys", "values")]
    return [tensor for tensor in found if tensor is not None]


def _held(layer: Any) -> Any:
    if isinstance(layer, DynamicLayer) and not isinstance(layer, LinearAttentionLayer) and not _contents(layer):
        return DummyLayer()  # the model never used it
    return _HELD[type(layer)]()


class SlotCache(Cache):
    """The cache of a batch whose rows change: rows are appended and dropped, and each pass adds a column to all.

    Rows are right-aligned as in any left-padded batch: the newest token of every row is in the last column.
    """

    def __init__(self, slots: int) -> None:
        super().__init__(layers=[])
        self._slots = slots
        self._columns: list[Columns] = []
        self._capacity = 0
        self._first: list[int] = []  # column of the first token of each row

    @staticmethod
    def holds(cache: Cache) -> bool:
        """Whether the contents of a cache can be held here."""
        return type(cache) is DynamicCache and all(type(layer) in _HELD for layer in cache.layers)

    @property
    def rows(self) -> int:
        """Slots in use."""
        return len(self._first)

    @property
    def past(self) -> Cache:
        """The cache for the model's next pass."""
        return self

    def append(self, prompts: Cache, lengths: Sequence[int]) -> None:
        """Add rows that were prefilled in a left-padded batch of their own; ``lengths`` do not count padding."""
        contents = [tensor for layer in prompts.layers for tensor in _contents(layer)]
        if not self.layers:
            self.layers.extend(map(_held, prompts.layers))
            for layer, new in zip(self.layers, prompts.layers, strict=True):
                if isinstance(layer, SlotLayer):
                    layer.columns = [Columns() for _ in _contents(new)]
                    self._columns += layer.columns
        for layer, new in zip(self.layers, prompts.layers, strict=True):
            if isinstance(layer, StateLayer):
                layer.insert_states(new, self.rows)
        width = contents[0].shape[-2] if contents else 0
        if width > self._width:
            self._relocate(contents, width)
        for columns, tensor in zip(self._columns, contents, strict=True):
            columns.insert(tensor)
        self._arrange(self._first + [self._end - length for length in lengths])

    def drop(self, finished: Sequence[int]) -> list[tuple[int, int]]:
        """Drop rows; the last rows move into their slots. Return these moves as (from, to)."""
        moves = filling_moves(self.rows, finished)
        states = [layer for layer in self.layers if isinstance(layer, StateLayer)]
        for source, target in moves:
            self._first[target] = self._first[source]
            for columns in self._columns:
                columns.move(source, target)
            for layer in states:
                layer.move(source, target)
        rows = self.rows - len(finished)
        for layer in states:
            layer.keep_states(rows)
        self._arrange(self._first[:rows])
        return moves

    def mask(self) -> Tensor:
        """Make room for one more token per row; return which columns of that pass are tokens, (rows, seq) bool."""
        if not self._columns:
            return torch.ones((self.rows, 1), dtype=torch.bool, device=self._device)
        if self._end == self._capacity:
            self._relocate([columns.store for columns in self._columns], self._width)
            self._arrange(self._first)
        return self._is_token[:, self._columns[0].start : self._end + 1]

    @property
    def _end(self) -> int:
        return self._columns[0].end if self._columns else 0

    @property
    def _width(self) -> int:
        return self._end - self._columns[0].start if self._columns else 0

    @property
    def _device(self) -> torch.device:
        if self._columns:
            return self._columns[0].store.device
        device = next(layer.device for layer in self.layers if isinstance(layer, StateLayer))
        assert device is not None
        return device

    def _arrange(self, first: list[int]) -> None:
        """Set the rows; trim columns on the left that are padding in all of them."""
        self._first = first
        for columns in self._columns:
            columns.rows, columns.start = len(first), min(first, default=columns.end)
        order = torch.arange(self._capacity, device=self._device)
        # Future columns are tokens in every row.
        self._is_token = order >= torch.tensor(first, dtype=torch.long, device=self._device)[:, None]

    def _relocate(self, like: Sequence[Tensor], width: int) -> None:
        """Move everything to the left end of larger storage."""
        self._capacity = width + max(64, width // 4)
        shift = width - self._end
        for columns, tensor in zip(self._columns, like, strict=True):
            columns.relocate(tensor, self._slots, width, self._capacity)
        self._first = [column + shift for column in self._first]


class BatchCache:
    """A cache of the model's own, for models whose states `SlotCache` cannot hold: no rows can be added to a batch.

    All rows of a batch have prompts of one length, so that nothing is padded.

    Attributes:
        past: The cache for the model's next pass.
        rows: Rows in the batch.
    """

    def __init__(self, device: torch.device) -> None:
        self.past: Any = None
        self.rows = 0
        self._device = device
        self._columns = 0

    def append(self, prompts: Any, lengths: Sequence[int]) -> None:
        """Take over the cache of a batch of prompts; the last batch must have ended."""
        self.past, self.rows, self._columns = prompts, len(lengths), lengths[0]

    def drop(self, finished: Sequence[int]) -> list[tuple[int, int]]:
        """As `SlotCache.drop`."""
        moves = filling_moves(self.rows, finished)
        self.rows -= len(finished)
        order = list(range(self.rows))
        for source, target in moves:
            order[target] = source
        if order:
            self.past.reorder_cache(torch.tensor(order, device=self._device))
        else:
            self.past = None
        return moves

    def mask(self) -> Tensor:
        """As `SlotCache.mask`; there is no padding."""
        self._columns += 1
        return torch.ones((self.rows, self._columns), dtype=torch.bool, device=self._device)


def filling_moves(rows: int, finished: Sequence[int]) -> list[tuple[int, int]]:
    """How the last rows fill the slots of finished ones: (from, to) each."""
    gone, left = set(finished), rows - len(finished)
    last = (row for row in range(left, rows) if row not in gone)
    return list(zip(last, sorted(row for row in gone if row < left), strict=True))
