"""Generation's settings, its results and its listeners."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from datamodules.errors import InputError

if TYPE_CHECKING:
    pass


@dataclass(frozen=True)
class Completion:
    """What a model wrote: token ids with the end-of-sequence token, where it came, and why it ended there."""

    token_ids: tuple[int, ...]
    finish_reason: Literal["stop", "length"]

    @property
    def n_tokens(self) -> int:
        """Generated tokens, the end-of-sequence token included."""
        return len(self.token_ids)

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "Completion":
        """The completion itself, which holds no tensor. Lightning moves predictions, and cannot copy frozen fields."""
        return self


@dataclass
class GenerationSettings:
    """How completions are generated.

    Attributes:
        max_new_tokens: tokens of a completion at most.
        temperature: 0 takes the most likely token.
        top_p: sample from the smallest set of tokens with this probability; 1 keeps all.
        top_k: sample from the most likely tokens; 0 keeps all.
        slots: rows decoded together.
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
    """Hears what a `Generator` does. A row is the index of a prompt in the call of `Generator.generate`."""

    def before_forward(self, rows: Tensor) -> None:
        """A forward pass comes next.

        Args:
            rows: (n,) int64 on the model's device, the rows that it computes, in its batch order. The same tensor as
                before as long as the rows are the same. Empty when a sharded model only keeps step with other ranks
                (a pass of batch size 1 whose result is thrown away).
        """

    def row_finished(self, row: int, completion: Completion) -> None:
        """A row is complete; called once for each."""
