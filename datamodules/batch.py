"""What a DataModule hands to a LightningModule."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from torch import Tensor

from datamodules.records import Question

IGNORE_INDEX = -100
"""Label of a position that takes no part in the loss."""

System = Literal["system1", "system2", "plain"]
"""Which instruction a question is put with: be brief, reason step by step, or nothing at all."""


@dataclass
class SupervisedBatch:
    """Right-padded token sequences with labels; padding and prompt positions have label ``IGNORE_INDEX``.

    ``attention_mask`` is None for packed sequences, whose ``position_ids`` then restart at every document.
    ``mean_targets`` is how many tokens the epoch's batches, those of all processes, have to predict on average. A loss
    divided by it instead of by the batch's own number weighs all tokens of an epoch alike, however they are grouped.

    Shapes: all (batch, seq).
    """

    input_ids: Tensor
    labels: Tensor
    attention_mask: Tensor | None = None
    position_ids: Tensor | None = None
    mean_targets: float | None = None

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "SupervisedBatch":
        """The same batch on another device."""

        def move(tensor: Tensor | None) -> Tensor | None:
            return None if tensor is None else tensor.to(device, non_blocking=non_blocking)

        return SupervisedBatch(
            self.input_ids.to(device, non_blocking=non_blocking),
            self.labels.to(device, non_blocking=non_blocking),
            move(self.attention_mask),
            move(self.position_ids),
            self.mean_targets,
        )


@dataclass(frozen=True)
class PromptRow:
    """One completion to generate: a question, how it is put, with which steering, which sample of it.

    ``id`` is unique in a run and a function of the fields alone, so that a restarted run knows what is done.
    ``seed`` is the row's own; what is sampled depends on no other row. ``max_new_tokens`` is a budget of its own, in
    place of the model's. ``prefill`` is the beginning of the answer, which the prompt holds already; ``suite`` and
    ``wrap`` say which part of a benchmark the row belongs to.
    """

    id: str
    question: Question
    system: System
    prompt: str
    token_ids: tuple[int, ...]
    seed: int = 0
    sample: int = 0
    alpha: float = 0.0
    layer_set: str = ""
    suite: str = ""
    wrap: str = "none"
    prefill: str = ""
    max_new_tokens: int | None = None


class PromptBatch:
    """Rows to generate for. Ragged on purpose: the generator pads, groups and refills by itself.

    No dataclass, and with a ``to``: Lightning would take it apart to move tensors to a device or to a lower precision,
    and fail on the frozen rows. There is no tensor in it. A batch may be empty, where another rank has rows left.
    """

    def __init__(self, rows: Iterable[PromptRow]) -> None:
        self.rows = tuple(rows)

    def __repr__(self) -> str:
        return f"PromptBatch({len(self.rows)} rows)"

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "PromptBatch":
        """The batch itself: token ids go to a device when the generator pads them."""
        return self


@dataclass
class ResponseBatch:
    """Given responses whose likelihood is measured: ``batch`` has one a row, ``ids`` names the rows.

    ``alpha`` and ``layer_set`` are the steering of all of them.
    """

    ids: tuple[str, ...]
    batch: SupervisedBatch = field(repr=False)
    alpha: float = 0.0
    layer_set: str = ""

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "ResponseBatch":
        """The same batch on another device."""
        return replace(self, batch=self.batch.to(device, non_blocking=non_blocking))


@dataclass
class ContrastBatch:
    """Pairs of prompts that differ in one respect; left-padded.

    Shapes: ``*_ids`` and ``*_mask`` (batch, seq).
    """

    ids: tuple[str, ...]
    positive_ids: Tensor = field(repr=False)
    positive_mask: Tensor = field(repr=False)
    negative_ids: Tensor = field(repr=False)
    negative_mask: Tensor = field(repr=False)

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "ContrastBatch":
        """The same batch on another device."""
        tensors = (self.positive_ids, self.positive_mask, self.negative_ids, self.negative_mask)
        return ContrastBatch(self.ids, *(t.to(device, non_blocking=non_blocking) for t in tensors))


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
