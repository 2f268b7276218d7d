"""Token sequences of different lengths as one tensor."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

Side = Literal["left", "right"]


def pad_rows(rows: Sequence[Sequence[int]], value: int, side: Side = "right") -> Tensor:
    """Rows filled up with ``value`` to the length of the longest, (rows, longest) int64.

    >>> pad_rows([[1, 2, 3], [4]], 0).tolist()
    [[1, 2, 3], [4, 0, 0]]
    """
    tensors = [torch.tensor(row, dtype=torch.long) for row in rows]
    return pad_sequence(tensors, batch_first=True, padding_value=value, padding_side=side)


def pad_prompts(prompts: Sequence[Sequence[int]], pad_id: int, side: Side = "right") -> tuple[Tensor, Tensor]:
    """Token ids and attention mask (1 at tokens, 0 at padding) of prompts, both (prompts, longest) int64.

    >>> ids, mask = pad_prompts([[5, 6, 7], [8]], pad_id=0, side="left")
    >>> ids.tolist(), mask.tolist()
    ([[5, 6, 7], [0, 0, 8]], [[1, 1, 1], [0, 0, 1]])
    """
    return pad_rows(prompts, pad_id, side), pad_rows([[1] * len(prompt) for prompt in prompts], 0, side)
