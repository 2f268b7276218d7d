"""Generation for many ragged prompts at once, in which finished rows never idle.

`model.generate` decodes a batch until its longest row ends. Here a fixed number of slots is decoded together; a row
that ends leaves at once, and waiting prompts are prefilled in a small batch of their own and take the free slots.
A loop of our own, because rows need what no other engine gives them: seeds of their own, a steering strength of their
own (the listeners), any decoder-only model, on any device.
"""

import inspect
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor, nn
from transformers import Cache, PreTrainedModel

from datamodules.errors import InputError
from llm_modules.generation.decoding import Decoding
from llm_modules.generation.interface import Completion, GenerationListener, GenerationSettings

__all__ = ["Completion", "GenerationListener", "GenerationSettings", "Generator"]


class Generator:
    """Generates completions with a decoder-only model.

    Attributes:
        listeners: told of each forward pass and of each finished row. An exception of theirs ends the call.
        tokens_generated: so far, in all calls.
        rows_finished: so far, in all calls.
        reprefill_at: numbers of generated tokens after which a row gives its cache up and is prefilled again, prompt
            and tokens together: what comes next depends on nothing that the passes before have computed.
    """

    def __init__(
        self,
        model: PreTrainedModel | PeftModel,
        settings: GenerationSettings,
        *,
        pad_id: int,
        eos_ids: Collection[int],
        synced: bool = False,
    ) -> None:
        """Take a model.

        Args:
            model: any causal language model of Hugging Face transformers with a key-value cache.
            settings: may be replaced between calls.
            pad_id: any token of the vocabulary; what stands there is masked.
            eos_ids: tokens that end a completion; empty if only its length ends it.
            synced: the model is sharded over the ranks, which must do equally many forward passes. Every rank then has
                to take part in every call, if only with no prompts.

        Raises:
            InputError: if the model is of another kind.
        """
        base: Any = model.get_base_model() if isinstance(model, PeftModel) else model
        if base.config.is_encoder_decoder or getattr(base, "_is_stateful", False):
            raise InputError(f"{type(base).__name__} is no decoder-only model with a key-value cache: cannot generate.")
        if isinstance(model, PeftModel) and model.active_peft_config.is_prompt_learning:
            raise InputError(
                f"The adapter's kind, {model.active_peft_config.peft_type}, puts virtual tokens before each forward "
                "pass: cannot generate with it. Use an adapter that changes weights, such as LoRA."
            )
        self.model = model
        self.settings = settings
        self.pad_id = pad_id
        self.eos_ids = tuple(eos_ids)
        self.synced = synced
        self.listeners: list[GenerationListener] = []
        self.tokens_generated = 0
        self.rows_finished = 0
        self.reprefill_at: frozenset[int] = frozenset()
        self._takes = inspect.signature(base.forward).parameters.keys() & {"position_ids", "logits_to_keep"}
        config = base.config.get_text_config()
        self._max_positions: int | None = getattr(config, "max_position_embeddings", None)
        self._positions_end = any(
            isinstance(module, nn.Embedding) and (name.endswith("wpe") or "position" in name)
            for name, module in base.named_modules()
        )

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        seeds: Sequence[int] | None = None,
        max_new_tokens: Sequence[int] | None = None,
    ) -> list[Completion]:
        """Complete every prompt.

        A row's completion depends on its prompt, seed and limit and on the settings, not on what else is in the batch
        (but for the rounding of the model itself, which differs with the shape of a batch).

        Args:
            prompts: token ids, at least one each.
            seeds: one a row, used when sampling; by default the row's number.
            max_new_tokens: one a row, in place of the setting.

        Returns:
            One completion a prompt, in order.

        Raises:
            InputError: if a prompt is empty or longer than the model's positions, or a limit is below 1.
        """
        limits = self._limits(prompts, max_new_tokens)
        with torch.no_grad(), _evaluating(self.model):
            return Decoding(self, prompts, seeds if seeds is not None else range(len(prompts)), limits).finish()

    def stream(
        self,
        prompts: Sequence[Sequence[int]],
        seeds: Sequence[int] | None = None,
        max_new_tokens: Sequence[int] | None = None,
    ) -> Iterator[tuple[int, int]]:
        """As `generate`, but gives each token as it comes: (row, token id), the end-of-sequence token included.

        The prompts are read with the first token that is asked for; nothing else may run on the model in between.
        """
        limits = self._limits(prompts, max_new_tokens)
        decoding = Decoding(self, prompts, seeds if seeds is not None else range(len(prompts)), limits)
        told = [0] * len(prompts)
        more = True
        while more:
            # Not across a yield: both would hold for whoever takes the tokens, too.
            with torch.no_grad(), _evaluating(self.model):
                more = decoding.turn()
                so_far = decoding.so_far()
            for row, ids in sorted(so_far.items()):
                yield from ((row, token) for token in ids[told[row] :])
                told[row] = len(ids)

    def _limits(self, prompts: Sequence[Sequence[int]], max_new_tokens: Sequence[int] | None) -> list[int]:
        """Tokens that each row may generate, with what the prompts must be checked."""
        limits = list(max_new_tokens) if max_new_tokens is not None else [self.settings.max_new_tokens] * len(prompts)
        if min(limits, default=1) < 1:
            raise InputError(f"Row {limits.index(min(limits))} may generate {min(limits)} tokens: allow at least one.")
        for row, prompt in enumerate(prompts):
            if not prompt:
                raise InputError(f"Prompt {row} of the batch has no tokens: give it at least one (a BOS, say).")
            if self._max_positions is not None and len(prompt) > self._max_positions:
                raise InputError(
                    f"Prompt {row} of the batch has {len(prompt)} tokens, the model {self._max_positions} positions: "
                    "shorten or drop it, or use a model with a longer context."
                )
            if self._max_positions is not None and self._positions_end:
                # The last token is generated but never read, so it needs no position.
                limits[row] = min(limits[row], self._max_positions - len(prompt) + 1)
        return limits

    def forward(self, rows: Tensor, ids: Tensor, mask: Tensor, positions: Tensor, cache: Cache) -> Tensor:
        """One forward pass, announced to the listeners; returns the logits of the last column, (batch, vocab)."""
        for listener in self.listeners:
            listener.before_forward(rows)
        inputs: dict[str, Any] = {"input_ids": ids, "attention_mask": mask, "past_key_values": cache, "use_cache": True}
        if "position_ids" in self._takes:
            inputs["position_ids"] = positions
        if "logits_to_keep" in self._takes:
            inputs["logits_to_keep"] = 1
        return self.model(**inputs).logits[:, -1]


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode; afterwards every module is in the mode that it was in."""
    training = [module for module in model.modules() if module.training]
    # Most often it is there already, and a stream asks for it at every token.
    for module in training:
        module.training = False
    try:
        yield
    finally:
        for module in training:
            module.training = True
