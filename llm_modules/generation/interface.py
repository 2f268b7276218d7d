"""Settings, results and listeners of generation, and what the decoding loop needs of a generator."""

from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch
from torch import Tensor
from transformers import Cache

from datamodules.errors import InputError


@dataclass(frozen=True)
class Completion:
    """What a model wrote: the token ids, including an end-of-sequence token, and why it stopped."""

    token_ids: tuple[int, ...]
    finish_reason: Literal["stop", "length"]

    @property
    def n_tokens(self) -> int:
        """Generated tokens, including an end-of-sequence token."""
        return len(self.token_ids)

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "Completion":
        """Return itself: it holds no tensor. Lightning moves predictions, and cannot copy frozen fields."""
        return self


@dataclass
class GenerationSettings:
    """How completions are generated.

    Attributes:
        max_new_tokens: Most tokens of a completion.
        temperature: 0 takes the most likely token.
        top_p: Sample from the smallest set of tokens with this probability; 1 keeps all.
        top_k: Sample from the most likely tokens; 0 keeps all.
        slots: Rows decoded together; halved if the device runs out of memory.
    """

    max_new_tokens: int = 512
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    slots: int = 64

    def __post_init__(self) -> None:
        for ok, name, remedy in (
            (self.max_new_tokens >= 1, "max_new_tokens", "at least 1"),
            (0 <= self.temperature < float("inf"), "temperature", "0 (greedy) or above"),
            (0 < self.top_p <= 1, "top_p", "above 0 and at most 1 (1 keeps all tokens)"),
            (self.top_k >= 0, "top_k", "0 (keeps all tokens) or above"),
            (self.slots >= 1, "slots", "at least 1"),
        ):
            if not ok:
                raise InputError(f"Generation setting {name} is {getattr(self, name)}: it must be {remedy}.")


class GenerationListener:
    """Base class of objects that a `Generator` notifies. A row is the index of a prompt in the call of `generate`."""

    def before_forward(self, rows: Tensor) -> None:
        """Called before each forward pass with the rows that it computes, (n,) int64 on the device, in batch order.

        ``rows`` is the same tensor object as before while the rows stay the same. It is empty if a sharded model only
        keeps step with other ranks (a pass of batch size 1 whose result is discarded).
        """

    def row_finished(self, row: int, completion: Completion) -> None:
        """Called once for each row, as soon as it is complete."""


class Engine(Protocol):
    """The part of a `Generator` that its decoding loop uses."""

    settings: GenerationSettings
    pad_id: int
    eos_ids: tuple[int, ...]
    synced: bool
    listeners: list[GenerationListener]
    reprefill_at: frozenset[int]

    takes_newcomers: bool
    """Whether rows can join a batch that is being decoded."""
    equal_lengths: bool
    """Whether only prompts of one length are prefilled together."""

    @property
    def device(self) -> torch.device:
        """Device of the model's inputs."""

    def new_cache(self) -> Any:
        """An empty cache for a batch of prompts."""

    def forward(self, rows: Tensor, ids: Tensor, mask: Tensor, positions: Tensor, cache: Cache) -> Tensor:
        """One forward pass; returns the logits of the last column, (batch, vocab)."""
