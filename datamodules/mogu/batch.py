"""Batches of MoGU."""

from dataclasses import dataclass

import torch
from torch import Tensor

from datamodules.batch import SupervisedBatch


@dataclass
class BranchedBatch:
    """Pairs of sequences that begin alike: what they have in common is there once, and both go on from it.

    A row is the common tokens, the rest of the first sequence, the rest of the second, padding. The losses of the
    sequences are in two halves: row ``i`` is the first sequence of row ``i``, row ``items + i`` the second.

    Attributes:
        input_ids: (items, seq).
        position_ids: (items, seq), each token's place in its own sequence.
        branch: (items, seq), 0 for common tokens, 1 and 2 for the rests, -1 for padding.
        targets: (2 * items, targets), tokens to predict; ``IGNORE_INDEX`` where a sequence has fewer.
        predictors: (2 * items, targets), the column of ``input_ids`` that predicts each.
    """

    input_ids: Tensor
    position_ids: Tensor
    branch: Tensor
    targets: Tensor
    predictors: Tensor

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "BranchedBatch":
        """The same batch on another device."""
        tensors = (self.input_ids, self.position_ids, self.branch, self.targets, self.predictors)
        return BranchedBatch(*(t.to(device, non_blocking=non_blocking) for t in tensors))


@dataclass
class ResponderBatch:
    """Two responses to each request in one batch: the first half of the rows to learn, the second half their opposites.

    ``rows.input_ids`` is (2 * items, seq); row ``items + i`` is the opposite of row ``i``. ``branched`` is the same
    with each prompt once, for models that can be run so. ``mean_items`` is how many items the epoch's batches, those of
    all processes, have on average: a sum over items divided by it weighs all items of an epoch alike.
    """

    rows: SupervisedBatch
    branched: BranchedBatch
    mean_items: float | None = None

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
    """Requests with the response that is right for them, and what the gates should be.

    Attributes:
        rows: Tokens and labels, (batch, seq).
        malicious: (batch,) bool.
        starts: (batch,), index of the first token of the instruction; what stands before is alike in all rows.
        ends: (batch,), index of the first token after it.
        mean_items: As in `ResponderBatch`.
    """

    rows: SupervisedBatch
    malicious: Tensor
    starts: Tensor
    ends: Tensor
    mean_items: float | None = None

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
