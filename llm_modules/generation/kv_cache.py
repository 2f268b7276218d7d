"""A key-value cache whose rows can be added and dropped while the others are decoded."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import Cache
from transformers.cache_utils import CacheLayerMixin

from datamodules.padding import pad_prompts


class SlotLayer(CacheLayerMixin):
    """Keys and values of one decoder layer, with spare capacity.

    ``keys`` and ``values`` are (slots, heads, capacity, head_dim). The first ``rows`` slots are in use, their contents
    are in the columns ``start:end``. A forward pass writes its columns in place and gets views; `DynamicCache` copies
    its whole contents once per token.
    """

    is_sliding = False
    keys: Tensor
    values: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.rows = self.start = self.end = 0

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Do nothing: `SlotCache.append` allocates the storage."""

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Write the columns of a forward pass; return views of all keys and values, (rows, heads, seq, head_dim)."""
        end = self.end + key_states.shape[-2]
        self.keys[: self.rows, :, self.end : end] = key_states
        self.values[: self.rows, :, self.end : end] = value_states
        self.end = end
        return self.keys[: self.rows, :, self.start : end], self.values[: self.rows, :, self.start : end]

    def get_seq_length(self) -> int:
        """Columns in use."""
        return self.end - self.start

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Return the length of the keys in the coming pass, and the index of the first one."""
        return self.get_seq_length() + query_length, 0

    def get_max_length(self) -> int:
        """No limit."""
        return -1

    def insert(self, keys: Tensor, values: Tensor) -> None:
        """Write the states of new rows, (new rows, heads, seq, head_dim), into the next slots, right-aligned."""
        slots = slice(self.rows, self.rows + len(keys))
        for store, states in ((self.keys, keys), (self.values, values)):
            left = self.end - states.shape[-2]
            store[slots, :, left : self.end] = states
            # Masked columns get no attention weight, but their contents must still be finite.
            store[slots, :, self.start : left] = 0

    def move(self, source: int, target: int) -> None:
        """Copy the contents of one slot to another."""
        for store in (self.keys, self.values):
            store[target, :, self.start : self.end] = store[source, :, self.start : self.end]

    def relocate(self, keys: Tensor, values: Tensor, slots: int, width: int, capacity: int) -> None:
        """Move the contents to new storage shaped like the tensors, right-aligned in the columns up to ``width``."""
        left = width - self.get_seq_length()
        stores = []
        for like, old in ((keys, self.keys), (values, self.values)):
            store = like.new_empty((slots, like.shape[1], capacity, like.shape[3]))
            if self.rows:
                store[: self.rows, :, left:width] = old[: self.rows, :, self.start : self.end]
                store[: self.rows, :, :left] = 0
            stores.append(store)
        self.keys, self.values = stores
        self.start, self.end, self.is_initialized = 0, width, True


class SlotCache(Cache):
    """The cache of a batch whose rows change: rows are appended and dropped, and each pass adds a column to all.

    Rows are right-aligned as in any left-padded batch: the newest token of every row is in the last column. All layers
    keep all columns, also those with a sliding window: a layer that had dropped old columns could not take a new row.
    The model's mask still limits the window.
    """

    def __init__(self, slots: int) -> None:
        self._slot_layers: list[SlotLayer] = []
        super().__init__(layers=self._slot_layers)  # type: ignore[arg-type]
        self._slots = slots
        self._capacity = 0
        self._first: list[int] = []  # column of the first token of each row

    @property
    def rows(self) -> int:
        """Slots in use."""
        return len(self._first)

    def append(self, prompts: Cache, lengths: Sequence[int]) -> None:
        """Add rows that were prefilled in a left-padded batch of their own; ``lengths`` do not count padding."""
        if not self._slot_layers:
            self._slot_layers.extend(SlotLayer() for _ in prompts.layers)
        width = prompts.get_seq_length()
        if width > self.get_seq_length():
            self._relocate(prompts, width)
        for layer, new in zip(self._slot_layers, prompts.layers, strict=True):
            layer.insert(new.keys, new.values)  # type: ignore[union-attr, arg-type]
        end = self._slot_layers[0].end
        self._arrange(self._first + [end - length for length in lengths])

    def drop(self, finished: Sequence[int]) -> list[tuple[int, int]]:
        """Drop rows; the last rows move into their slots. Return these moves as (from, to)."""
        gone, rows = set(finished), self.rows - len(finished)
        last = (row for row in range(rows, self.rows) if row not in gone)
        moves = list(zip(last, sorted(row for row in gone if row < rows), strict=True))
        for source, target in moves:
            self._first[target] = self._first[source]
            for layer in self._slot_layers:
                layer.move(source, target)
        self._arrange(self._first[:rows])
        return moves

    def mask(self) -> Tensor:
        """Make room for one more token per row; return which columns of that pass are tokens, (rows, seq) bool."""
        if self._slot_layers[0].end == self._capacity:
            self._relocate(self, self.get_seq_length())
            self._arrange(self._first)
        layer = self._slot_layers[0]
        return self._is_token[:, layer.start : layer.end + 1]

    def _arrange(self, first: list[int]) -> None:
        """Set the rows; trim columns on the left that are padding in all of them."""
        self._first = first
        for layer in self._slot_layers:
            layer.rows, layer.start = len(first), min(first, default=layer.end)
        device = self._slot_layers[0].keys.device
        columns = torch.arange(self._capacity, device=device)
        # Future columns are tokens in every row.
        self._is_token = columns >= torch.tensor(first, dtype=torch.long, device=device)[:, None]

    def _relocate(self, like: Cache, width: int) -> None:
        """Move everything to the left end of larger storage."""
        self._capacity = width + max(64, width // 4)
        shift = width - self._slot_layers[0].end
        for layer, other in zip(self._slot_layers, like.layers, strict=True):
            layer.relocate(other.keys, other.values, self._slots, width, self._capacity)  # type: ignore[union-attr, arg-type]
        self._first = [column + shift for column in self._first]


def left_pad(prompts: Sequence[Sequence[int]], pad_id: int) -> tuple[Tensor, Tensor, Tensor]:
    """Pad prompts on the left; return token ids, mask (bool, true at tokens) and positions, each (prompts, seq)."""
    ids, mask = pad_prompts(prompts, pad_id, "left")
    return ids, mask.bool(), (mask.cumsum(dim=1) - 1).clamp(min=0)
