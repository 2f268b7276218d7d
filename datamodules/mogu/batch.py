"""Batches of MoGU."""

from dataclasses import dataclass

import torch
from torch import Tensor

from datamodules.batch import SupervisedBatch


@dataclass
class BranchedBatch:
    """Pairs of sequences with a common beginning, such as a prompt with two responses; each pair is one row.

    A row is the common tokens, the rest of the first sequence, the rest of the second, padding. Targets and predictors
    have one row per sequence: row ``i`` belongs to the first sequence of pair ``i``, row ``items + i`` to the second.

    Attributes:
        input_ids: (items, seq).
        position_ids: (items, seq), each token's place in its own sequence.
        branch: (items, seq), 0 for common tokens, 1 and 2 for the rests, -1 for padding.
        targets: (2 * items, targets), tokens to predict; ``IGNORE_INDEX`` if a sequence has fewer.
        predictors: (2 * items, targets), the column of ``input_ids`` that predicts each target.
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
    """Requests with two opposite responses each.

    Attributes:
        rows: (2 * items, seq): row ``i`` is the response to learn, row ``items + i`` the opposite response.
        branched: The same responses with each prompt once, for models that support it.
        mean_items: Items of a batch of this epoch on average, over all processes. A sum over items divided by it gives
            every item of the epoch the same weight.
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
    """Requests with the response that is right for them, and their class: the goal of the gates.

    Attributes:
        rows: Tokens and labels, (batch, seq).
        malicious: (batch,) bool.
        starts: (batch,), index of the first token of the instruction.
        ends: (batch,), index of the first token after the instruction.
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
