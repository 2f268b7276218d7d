"""What a DataModule hands to a LightningModule."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from torch import Tensor

from datamodules.records.kinds import Question

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
    ``attack_template`` say which part of a benchmark the row belongs to.
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
    attack_template: str = "none"
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
