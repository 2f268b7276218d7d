"""What a `SlotCache` holds of one decoder layer: columns of keys and values, states, or both."""

from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import CacheLayerMixin, LinearAttentionLayer


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


class StateAndSlotLayer(StateLayer, SlotLayer):
    """A decoder layer with both: attention, and a state beside it."""

    is_compileable = False
    is_croppable = False

    def __init__(self) -> None:
        SlotLayer.__init__(self)
        StateLayer.__init__(self)
