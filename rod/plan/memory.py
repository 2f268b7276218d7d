"""The memory of one device, by part, under each strategy."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from peft import PeftConfig
from torch import nn
from torch.optim import Optimizer
from transformers import PreTrainedConfig

from llm_modules.backbone.architecture import decoder_layers
from llm_modules.generation.decoding import PREFILL_TOKENS
from llm_modules.loss import LOGITS_BYTES
from llm_modules.optim.parameter_groups import named_groups
from rod.plan.counting import Model, Pass, build, bytes_of, cache_bytes, count_pass, state_bytes

Strategy = Literal["one device", "trainer/ddp", "trainer/fsdp"]
USABLE = 0.9
"""Share of a device's memory to plan with (ours): the rest is for the driver and for gaps between blocks."""


@dataclass(frozen=True)
class Parts:
    """Bytes on one device."""

    weights: float
    gradients: float = 0.0
    optimizer: float = 0.0
    activations: float = 0.0
    keys_and_values: float = 0.0
    buffers: float = 0.0
    """Chunks of logits; gathered layers or buckets of gradients of a strategy."""

    @property
    def total(self) -> float:
        """Their sum."""
        kept = self.weights + self.gradients + self.optimizer + self.activations
        return kept + self.keys_and_values + self.buffers


@dataclass(frozen=True)
class Fit:
    """A fit on devices, of batches (rows, length) on each.

    Attributes:
        config: Configuration of the backbone.
        optimizer: As the modules have it.
        dtype: Type of the weights.
        mixed: Computes in bfloat16 with weights of another type (``trainer.precision: bf16-mixed``).
        recomputes: ``model.activation_checkpointing``.
    """

    config: PreTrainedConfig
    optimizer: Callable[[Any], Optimizer]
    rows: int
    length: int
    dtype: str = "float32"
    mixed: bool = False
    peft: PeftConfig | None = None
    recomputes: bool = False

    def counted(self) -> "CountedFit":
        """Build the model without storage and count."""
        model = build(self.config, self.dtype, self.peft)
        weights, trained = bytes_of(model), bytes_of(model, trained=True)
        state = state_bytes(self.optimizer(named_groups(model.named_parameters(), lambda _: "")))
        layer = max(bytes_of(layer) for layer in decoder_layers(model))
        cast = sum(m.weight.numel() * 2 for m in model.modules() if isinstance(m, nn.Linear)) if self.mixed else 0
        if self.mixed:
            nn.Module.to(model, torch.bfloat16)
        step = count_pass(model, 1, self.length)
        return CountedFit(self, weights, trained, state, layer, cast, step, *_head(model))


@dataclass(frozen=True)
class CountedFit:
    """A `Fit` and its sizes in bytes; ``step`` is a pass over one row."""

    fit: Fit
    weights: int
    trained: int
    state: int
    layer: int
    cast: int
    step: Pass
    vocabulary: int
    hidden: int
    head_bytes: int

    def parts(self, strategy: Strategy, devices: int, rows: int | None = None) -> Parts:
        """The memory of one device at its highest: the end of a forward pass after the first step."""
        rows = self.fit.rows if rows is None else rows
        shards = devices if strategy == "trainer/fsdp" else 1
        buffers = float(self.logits(rows))
        if strategy == "trainer/fsdp":
            buffers += 2 * max(self.layer, self.head_bytes)  # one layer in use, the next on its way
        if strategy == "trainer/ddp":
            buffers += self.trained  # buckets
        return Parts(
            self.weights / shards, self.trained / shards, self.state / shards, self.activations(rows), buffers=buffers
        )

    def activations(self, rows: int) -> float:
        """Bytes kept for the backward pass; recomputed ones are those of one layer and every layer's input."""
        saved = float(self.step.saved)
        width = 2 if self.fit.mixed or self.fit.dtype in ("bfloat16", "float16") else 4
        if self.fit.recomputes:
            layers = self.step.saved // max(1, self.step.layer_saved)
            saved = self.step.layer_saved + layers * self.fit.length * self.hidden * width
        cast = self.cast / (1 if not self.fit.recomputes else max(1, self.step.saved // max(1, self.step.layer_saved)))
        return rows * saved + cast

    def logits(self, rows: int) -> int:
        """Bytes of a chunk of logits, its probabilities and gradient, and of the head's own gradient if trained."""
        tokens = min(rows * self.fit.length, max(1, LOGITS_BYTES // (4 * self.vocabulary)))
        head = 0 if self.fit.peft is not None else 2 * 4 * self.vocabulary * self.hidden
        return 3 * 4 * tokens * self.vocabulary + (head if tokens < rows * self.fit.length else 0)

    def operations(self) -> int:
        """Operations of one row in a step, with the output head."""
        products = 2 * self.fit.length * self.vocabulary * self.hidden
        again = self.step.forward if self.fit.recomputes else 0
        return self.step.forward + self.step.backward + again + products * (2 if self.fit.peft is not None else 3)

    def most_rows(self, strategy: Strategy, devices: int, memory: float) -> int:
        """Rows of the largest batch that fits on each device; 0 if none does."""
        low, high = 0, 2**20
        while low < high:
            middle = (low + high + 1) // 2
            fits = self.parts(strategy, devices, middle).total <= USABLE * memory
            low, high = (middle, high) if fits else (low, middle - 1)
        return low


def choose(fit: Fit, devices: int, memory: float) -> tuple[CountedFit, Strategy, list[str]]:
    """The first way in which a fit fits, and the fragments and options to add; the last way if none does."""
    ways: list[tuple[Fit, list[str]]] = [(fit, [])]
    if not fit.recomputes:
        ways.append((replace(fit, recomputes=True), ["--model.activation_checkpointing true"]))
    strategies: list[Strategy] = ["one device"] if devices == 1 else ["trainer/ddp", "trainer/fsdp"]
    counted = fit.counted()
    found = [(replace(counted, fit=variant), s, options) for variant, options in ways for s in strategies]
    fitting = (way for way in found if way[0].parts(way[1], devices).total <= USABLE * memory)
    return next(fitting, found[-1])


@dataclass(frozen=True)
class Generation:
    """Generation in slots on one device; lengths in tokens, sizes in bytes."""

    weights: int
    per_token: int
    prompt: int
    new: int
    prefill: float
    operations: float
    """Of a token of a row, without attention."""

    def parts(self, slots: int) -> Parts:
        """The memory when all slots are full; columns are reserved a quarter ahead."""
        columns = 1.25 * (self.prompt + self.new)
        return Parts(self.weights, keys_and_values=slots * columns * self.per_token, buffers=self.prefill)

    def most_slots(self, memory: float) -> int:
        """Slots that fit."""
        free = USABLE * memory - self.parts(0).total
        return max(0, int(free / (self.parts(1).total - self.parts(0).total)))

    def tokens_per_second(self, slots: int, bandwidth: float, rate: float) -> float:
        """At the ceilings: each pass reads the weights and half of the full keys and values."""
        read = self.weights + slots * (self.prompt + self.new / 2) * self.per_token
        return slots / max(read / bandwidth, slots * self.operations / rate)


def count_generation(config: PreTrainedConfig, dtype: str, prompt: int, new: int) -> Generation:
    """Count what generation takes."""
    model = build(config, dtype).eval()
    _, hidden, _ = _head(model)
    weights = bytes_of(model)
    parameters = sum(p.numel() for p in model.parameters())
    text = config.get_text_config()
    width = next(model.parameters()).element_size()
    inner = getattr(text, "intermediate_size", None) or 4 * hidden
    prefill = PREFILL_TOKENS * (3 * inner + 4 * hidden) * width
    return Generation(weights, cache_bytes(model), prompt, new, prefill, 2.0 * parameters)


def _head(model: Model) -> tuple[int, int, int]:
    """Vocabulary, width and bytes of the output head."""
    weight: Any = model.get_output_embeddings().weight
    return weight.shape[0], weight.shape[1], weight.numel() * weight.element_size()
