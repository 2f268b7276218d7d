"""Batches of MoGU."""

from dataclasses import dataclass

import torch
from torch import Tensor

from datamodules.batch import SupervisedBatch


@dataclass
class BranchedBatch:
    """Pairs of sequences with a common beginning, such as a prompt with two responses; each pair is one row.

    A row is the common tokens, the rest of the first sequence, the rest of the second, padding. Row ``i`` of targets
    and predictors belongs to the first sequence of pair ``i``, row ``items + i`` to the second.
    """

    input_ids: Tensor  # (items, seq)
    position_ids: Tensor  # (items, seq), each token's place in its own sequence
    branch: Tensor  # (items, seq), 0 for common tokens, 1 and 2 for the rests, -1 for padding
    targets: Tensor  # (2 * items, targets), tokens to predict; IGNORE_INDEX if a sequence has fewer
    predictors: Tensor  # (2 * items, targets), the column of input_ids that predicts each target

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "BranchedBatch":
        """The same batch on another device."""
        tensors = (self.input_ids, self.position_ids, self.branch, self.targets, self.predictors)
        return BranchedBatch(*(t.to(device, non_blocking=non_blocking) for t in tensors))


@dataclass
class ResponderBatch:
    """Requests with two opposite responses each."""

    rows: SupervisedBatch  # (2 * items, seq): row i is the response to learn, row items + i its opposite
    branched: BranchedBatch  # the same responses with each prompt once, for models that support it
    mean_items: float | None = None  # items of a batch of this epoch, mean over batches and processes

    @property
    def items(self) -> int:
        """Requests in the batch."""
        return len(self.rows.input_ids) // 2

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "ResponderBatch":
        """The same batch on another device."""
        return ResponderBatch(
            self.rows.to(device, non_blocking), self.branched.to(device, non_blocking), self.mean_items
        )


@dataclass
class RouterBatch:
    """Requests with the response that is right for them, and their class: the goal of the gates."""

    rows: SupervisedBatch  # (batch, seq)
    malicious: Tensor  # (batch,) bool
    starts: Tensor  # (batch,), index of the first token of the instruction
    ends: Tensor  # (batch,), index of the first token after the instruction
    mean_items: float | None = None  # as in ResponderBatch

    @property
    def items(self) -> int:
        """Requests in the batch."""
        return len(self.rows.input_ids)

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "RouterBatch":
        """The same batch on another device."""
        malicious, starts, ends = (
            t.to(device, non_blocking=non_blocking) for t in (self.malicious, self.starts, self.ends)
        )
        return RouterBatch(self.rows.to(device, non_blocking), malicious, starts, ends, self.mean_items)
