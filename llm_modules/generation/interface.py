"""Settings, results and listeners of generation, and what the decoding loop needs of a generator."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from torch import Tensor
from transformers import Cache

from datamodules.errors import InputError

EngineName = Literal["slots", "transformers", "vllm", "server"]
"""``slots``: the project's own loop; ``transformers``: the library's ``generate``, a batch at a time; ``vllm``: vLLM in
a process of its own; ``server``: a server with OpenAI's API, such as that of vLLM."""
ELSEWHERE: tuple[EngineName, ...] = ("vllm", "server")
"""Engines that hold the weights outside of this process."""


@dataclass(frozen=True)
class Steered:
    """What steering did to a row.

    Attributes:
        places: Tokens times layers that something was added to.
        relative_size: Mean over these places: norm of what was added over the norm of the residual stream before.
    """

    places: int
    relative_size: float


@dataclass(frozen=True)
class Completion:
    """What a model wrote: the token ids, including an end-of-sequence token, and why it stopped.

    ``steered`` says what steering did to the row; None if the run has no steering.
    """

    token_ids: tuple[int, ...]
    finish_reason: Literal["stop", "length"]
    steered: Steered | None = field(default=None, compare=False)

    @property
    def steered_fields(self) -> dict[str, Any]:
        """What steering did, as the fields of records name it; the size to three digits."""
        if self.steered is None:
            return {"steered_places": None, "steered_size": None}
        return {
            "steered_places": self.steered.places,
            "steered_size": float(f"{self.steered.relative_size:.3g}"),
        }

    @property
    def n_tokens(self) -> int:
        """Generated tokens, including an end-of-sequence token."""
        return len(self.token_ids)

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "Completion":
        """Return itself: it holds no tensor. Lightning moves predictions, and cannot copy frozen fields."""
        return self


@dataclass
class VllmSettings:
    """How the engine ``vllm`` runs.

    Attributes:
        python: Interpreter of an environment with vLLM; ``make engine`` makes the default, in a checkout.
        options: Options of vLLM's own, fields of its ``EngineArgs``, such as ``tensor_parallel_size``.
    """

    python: Path | None = None
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def interpreter(self) -> Path:
        """``python``, or its default."""
        return self.python or Path(__file__).parents[2] / ".venv-engine/bin/python"


@dataclass
class ServerSettings:
    """Which server the engine ``server`` asks.

    Attributes:
        url: Address, such as ``http://localhost:8000``.
        model: Name of the model there; by default the one that is ``model.backbone`` or ``model.adapter``.
        api_key_env: Environment variable with the key; no key is sent if empty.
    """

    url: str = ""
    model: str = ""
    api_key_env: str = ""


@dataclass
class GenerationSettings:
    """How completions are generated.

    Attributes:
        max_new_tokens: Most tokens of a completion.
        temperature: 0 takes the most likely token.
        top_p: Sample from the smallest set of tokens with this probability; 1 keeps all.
        top_k: Sample from the most likely tokens; 0 keeps all.
        slots: Rows decoded together; halved if the device runs out of memory (``slots`` only). Of a ``server``: rows
            that it is asked for at a time.
        engine: What generates; see docs/engines.md.
        vllm: How the engine ``vllm`` runs.
        server: Which server the engine ``server`` asks.
    """

    max_new_tokens: int = 512
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    slots: int = 64
    engine: EngineName = "slots"
    vllm: VllmSettings = field(default_factory=VllmSettings)
    server: ServerSettings = field(default_factory=ServerSettings)

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

    def draws(self, seed: int, drawn: int = 0) -> dict[str, float] | None:
        """What a row with this seed draws its tokens by, in JSON's types; None without temperature.

        ``drawn`` tokens have been drawn before.
        """
        if not self.temperature:
            return None
        return {"seed": seed, "drawn": drawn, "temperature": self.temperature, "top_p": self.top_p, "top_k": self.top_k}


class GenerationListener:
    """Base class of objects that an engine notifies. A row is the index of a prompt in the call of ``generate``."""

    def batch_starts(self, width: int) -> None:
        """Called before a batch is decoded from start to end; its padded prompts have ``width`` columns."""

    def before_forward(self, rows: Tensor) -> None:
        """Called before each forward pass with the rows that it computes, (n,) int64 on the device, in batch order.

        ``rows`` is the same tensor object as before while the rows stay the same. It is empty if a sharded model only
        keeps step with other ranks (a pass of batch size 1 whose result is discarded).
        """

    def reads_alike(self, row: int) -> Hashable:
        """What, beside its tokens, decides what the model keeps of a row's prompt up to its last token.

        Rows with equal prompts and equal values are read once, and none are if a listener overrides `before_forward`
        without this.
        """
        return None

    def before_shared_prompts(self, rows: Tensor, readers: Tensor) -> None:
        """Called before prompts are read in two passes, in place of one.

        The first pass reads all tokens but the last of each prompt that several rows have, in one row that stands for
        them (``readers``, one per row, (n,)); the second reads the last token of each of ``rows``, (n,).
        """

    def tokens_generated(self, number: int) -> None:
        """Called whenever rows have got tokens, with how many in all; with 0 now and then while an engine waits."""

    def steered(self, row: int) -> Steered | None:
        """What this listener has done to a row so far; None if it steers nothing."""
        return None

    def rows_begin_again(self, rows: Sequence[int]) -> None:
        """Called if what was generated for these rows is thrown away."""

    def row_failed(self, row: int, reason: str) -> bool:
        """Called for a row that cannot be completed while others can; returns whether the listener sets it aside."""
        return False

    def row_finished(self, row: int, completion: Completion) -> None:
        """Called once for each row, as soon as it is complete."""


@runtime_checkable
class StartsProcess(Protocol):
    """An engine that starts a process of its own."""

    def close(self) -> None:
        """End the process, if it runs; a later call starts it again."""


class SlotEngine(Protocol):
    """The part of a `Generator` that its decoding loop uses."""

    settings: GenerationSettings
    pad_id: int
    eos_ids: tuple[int, ...]
    synced: bool
    reprefill_at: frozenset[int]

    takes_newcomers: bool
    """Whether rows can join a batch that is being decoded."""
    equal_lengths: bool
    """Whether only prompts of one length are prefilled together."""

    def readers(self, rows: Sequence[int], prompts: Sequence[Sequence[int]]) -> list[int]:
        """Which of the rows reads each row's prompt, by index: itself, or one before it with an equal prompt."""

    @property
    def device(self) -> torch.device:
        """Device of the model's inputs."""

    def tokens_generated(self, number: int) -> None:
        """Tell that rows have got tokens."""

    def rows_begin_again(self, rows: Sequence[int]) -> None:
        """Tell that what was generated for these rows is thrown away."""

    def before_shared_prompts(self, rows: Tensor, readers: Tensor) -> None:
        """Tell the listeners of it."""

    def finish(self, row: int, token_ids: tuple[int, ...]) -> Completion:
        """The completion of a row, told to the listeners."""

    def new_cache(self) -> Any:
        """An empty cache for a batch of prompts."""

    def forward(self, rows: Tensor, ids: Tensor, mask: Tensor, positions: Tensor, cache: Cache) -> Tensor:
        """One forward pass; returns the logits of the last column, (batch, vocab)."""
