"""A cache whose rows can be added and dropped while the others are decoded.

It holds keys and values, and the states of linear attention, state-space models and convolutions. A model with other
contents (an indexer of sparse attention, compressed keys) keeps the cache that transformers makes for it, in which no
row can be added: `BatchCache`.
"""

import inspect
from collections.abc import Callable, Sequence
from typing import Any, get_args

import torch
from torch import Tensor
from transformers import Cache, DynamicCache, PreTrainedModel
from transformers.cache_utils import (
    CacheLayerMixin,
    DummyLayer,
    DynamicLayer,
    DynamicSlidingWindowLayer,
    LinearAttentionAndFullAttentionLayer,
    LinearAttentionAndSlidingWindowAttentionLayer,
    LinearAttentionLayer,
)

from datamodules.errors import InputError
from datamodules.padding import pad_prompts
from llm_modules.backbone.architecture import inner_decoder


class Columns:
    """A tensor with one column per token, (slots, ..., capacity, width), that grows in place.

    The first ``rows`` slots are in use, their contents are in the columns ``start:end``.
    """

    def __init__(self) -> None:
        self.store = torch.empty(0)
        self.rows = self.start = self.end = 0

    def write(self, new: Tensor) -> Tensor:
        """Write the columns of a forward pass; return a view of all columns in use, (rows, ..., seq, width)."""
        end = self.end + new.shape[-2]
        self.store[: self.rows, ..., self.end : end, :] = new
        self.end = end
        return self.store[: self.rows, ..., self.start : end, :]

    def insert(self, new: Tensor) -> None:
        """Write new rows, (new rows, ..., seq, width), into the next slots, right-aligned."""
        slots = slice(self.rows, self.rows + len(new))
        left = self.end - new.shape[-2]
        self.store[slots, ..., left : self.end, :] = new
        # Masked columns get no attention weight, but their contents must still be finite.
        self.store[slots, ..., self.start : left, :] = 0

    def move(self, source: int, target: int) -> None:
        """Copy the contents of one slot to another."""
        self.store[target, ..., self.start : self.end, :] = self.store[source, ..., self.start : self.end, :]

    def relocate(self, like: Tensor, slots: int, width: int, capacity: int) -> None:
        """Move the contents to new storage shaped like a tensor, right-aligned in the columns up to ``width``."""
        left = width - (self.end - self.start)
        store = like.new_empty((slots, *like.shape[1:-2], capacity, like.shape[-1]))
        if self.rows:
            store[: self.rows, ..., left:width, :] = self.store[: self.rows, ..., self.start : self.end, :]
            store[: self.rows, ..., :left, :] = 0
        self.store, self.start, self.end = store, 0, width


class SlotLayer(CacheLayerMixin):
    """Keys and values of one decoder layer.

    A forward pass writes its columns in place and gets views; `DynamicCache` copies its whole contents once per token.
    """

    is_sliding = False

    def __init__(self) -> None:
        super().__init__()
        self.is_initialized = True
        self.columns: list[Columns] = []

    def lazy_initialization(self, *args: Any, **kwargs: Any) -> None:
        """Do nothing: `SlotCache.append` allocates the storage."""

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Write the columns of a forward pass; return views of all keys and values, (rows, heads, seq, head_dim)."""
        keys, values = self.columns
        return keys.write(key_states), values.write(value_states)

    def get_seq_length(self) -> int:
        """Columns in use."""
        return self.columns[0].end - self.columns[0].start

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Return the length of the keys in the coming pass, and the index of the first one."""
        return self.get_seq_length() + query_length, 0

    def get_max_length(self) -> int:
        """No limit."""
        return -1


class StateLayer(LinearAttentionLayer):
    """Linear-attention, state-space and convolution states of one decoder layer: one row per sequence, no columns."""

    def lazy_initialization(self, *args: Any, **kwargs: Any) -> None:
        """Do nothing: the states come with the first rows."""

    def insert_states(self, new: Any, rows: int) -> None:
        """Add the states of new rows behind the first ``rows``."""
        self.number_of_states, self.dtype, self.device = new.number_of_states, new.dtype, new.device
        for mine, theirs in ((self.conv_states, new.conv_states), (self.recurrent_states, new.recurrent_states)):
            for index, states in theirs.items():
                if states is not None:
                    before = mine.get(index)
                    mine[index] = states if before is None or not rows else torch.cat([before[:rows], states])
        for flags in ("is_conv_states_initialized", "is_recurrent_states_initialized", "has_previous_state"):
            setattr(self, flags, dict(getattr(new, flags)))
        self.conv_kernel_size = dict(new.conv_kernel_size)

    def move(self, source: int, target: int) -> None:
        """Copy the states of one row to another."""
        for states in self._states():
            states[target] = states[source]

    def keep_states(self, rows: int) -> None:
        """Drop all rows but the first ones."""
        for kind in (self.conv_states, self.recurrent_states):
            for index, states in kind.items():
                if states is not None:
                    kind[index] = states[:rows]

    def _states(self) -> list[Tensor]:
        kinds = (self.conv_states, self.recurrent_states)
        return [states for kind in kinds for states in kind.values() if states is not None]


class StateAndSlotLayer(StateLayer, SlotLayer):  # type: ignore[override]
    """A decoder layer with both: attention, and a state beside it."""

    is_compileable = False

    def __init__(self) -> None:
        SlotLayer.__init__(self)
        StateLayer.__init__(self)


_HELD: dict[type, type] = {
    DynamicLayer: SlotLayer,
    LinearAttentionLayer: StateLayer,
    LinearAttentionAndFullAttentionLayer: StateAndSlotLayer,
    DummyLayer: DummyLayer,
}
"""Layer of transformers -> the one that holds its contents here."""


def cache_of(model: PreTrainedModel) -> tuple[str, Callable[[], Cache]]:
    """The argument by which a model takes its cache, and a function that makes an empty one for prompts.

    Layers with a sliding window keep all columns: one that had dropped old columns could not take a new row. The
    model's mask still limits the window.

    Raises:
        InputError: The model is not decoder-only, or takes no `Cache`.
    """
    takes = inspect.signature(inner_decoder(model).forward).parameters
    name = next((name for name in ("past_key_values", "cache_params") if name in takes), "")
    hints = get_args(takes[name].annotation) if name else ()
    own = next((hint for hint in hints if isinstance(hint, type) and hint is not type(None)), object)
    if model.config.is_encoder_decoder or not issubclass(own, Cache):
        raise InputError(
            f"{type(model).__name__} cannot generate here: it must be decoder-only and take a cache of transformers"
        )
    if own not in (Cache, DynamicCache):
        return name, own

    def make() -> Cache:
        cache = DynamicCache(config=model.config)
        for index, layer in enumerate(cache.layers):
            if type(layer) is DynamicSlidingWindowLayer:
                cache.layers[index] = DynamicLayer()
            elif type(layer) is LinearAttentionAndSlidingWindowAttentionLayer:
                cache.layers[index] = LinearAttentionAndFullAttentionLayer(layer.number_of_states)
        if not SlotCache.holds(cache):
            return DynamicCache(config=model.config)
        return cache

    return name, make


def has_states(cache: Cache) -> bool:
    """Whether a cache holds more than columns; padding of a prompt may then change what it holds."""
    return any(isinstance(layer, LinearAttentionLayer) for layer in cache.layers)


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


def left_pad(prompts: Sequence[Sequence[int]], pad_id: int) -> tuple[Tensor, Tensor, Tensor]:
    """Pad prompts on the left; return token ids, mask (bool, true at tokens) and positions, each (prompts, seq)."""
    ids, mask = pad_prompts(prompts, pad_id, "left")
    return ids, mask.bool(), (mask.cumsum(dim=1) - 1).clamp(min=0)
