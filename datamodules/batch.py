"""The batches that DataModules give to LightningModules."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:  # every LightningModule imports batches; none reads files
    from datamodules.records.kinds import Question, System

IGNORE_INDEX = -100
"""Label of positions that the loss ignores."""


@dataclass
class SupervisedBatch:
    """Right-padded token sequences with labels; padding and prompt positions have label ``IGNORE_INDEX``.

    For packed sequences ``attention_mask`` is None and ``position_ids`` restart at every document. ``mean_targets`` is
    the mean number of tokens to predict in a batch of the epoch, over all processes. Divide the summed loss by it
    instead of the batch's own number, and all tokens of an epoch have the same weight, however they are grouped.

    Shapes: all (batch, seq).
    """

    input_ids: Tensor
    labels: Tensor
    attention_mask: Tensor | None = None
    position_ids: Tensor | None = None
    mean_targets: float | None = None

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "SupervisedBatch":
        """Return the same batch on another device."""

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
    """One completion to generate: a question, its prompt, its steering, and the number of its sample.

    ``id`` is unique in a run and a function of the other fields, so a restarted run knows which rows are done. The
    completion depends on the row's own ``seed`` and on no other row. ``max_new_tokens`` overrides the model's budget.
    ``prefill`` is the beginning of the answer; ``token_ids`` end with it, ``prompt`` does not. ``suite`` and
    ``attack_template`` say which part of a benchmark the row belongs to. ``chat_template_kwargs`` are those that its
    prompt was rendered with.
    """

    id: str
    question: "Question"
    system: "System"
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
    chat_template_kwargs: Mapping[str, Any] = field(default_factory=dict, hash=False)


class PromptBatch:
    """Rows to generate for, without tensors: the generator itself pads them and groups them. It may be empty.

    It is no dataclass: Lightning would take that apart to move its tensors, and fail on the frozen rows.
    """

    def __init__(self, rows: Iterable[PromptRow]) -> None:
        self.rows = tuple(rows)

    def __repr__(self) -> str:
        return f"PromptBatch({len(self.rows)} rows)"

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "PromptBatch":
        """Return the batch itself; the generator moves the token ids."""
        return self


@dataclass
class ResponseBatch:
    """Given responses, a row of ``batch`` each, to measure their likelihood; all have the same steering."""

    ids: tuple[str, ...]
    batch: SupervisedBatch = field(repr=False)
    alpha: float = 0.0
    layer_set: str = ""

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "ResponseBatch":
        """Return the same batch on another device."""
        return replace(self, batch=self.batch.to(device, non_blocking=non_blocking))


@dataclass
class ContrastBatch:
    """Pairs of prompts that differ in one respect; left-padded, ids and masks (batch, seq)."""

    ids: tuple[str, ...]
    positive_ids: Tensor = field(repr=False)
    positive_mask: Tensor = field(repr=False)
    negative_ids: Tensor = field(repr=False)
    negative_mask: Tensor = field(repr=False)

    @property
    def longest(self) -> int:
        """Tokens of the longest prompt."""
        return max(self.positive_ids.shape[1], self.negative_ids.shape[1])

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "ContrastBatch":
        """Return the same batch on another device."""
        tensors = (self.positive_ids, self.positive_mask, self.negative_ids, self.negative_mask)
        return ContrastBatch(self.ids, *(t.to(device, non_blocking=non_blocking) for t in tensors))
