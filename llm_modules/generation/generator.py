"""Generation for many prompts of different lengths at once (continuous batching).

`model.generate` decodes a batch until its longest row ends. This loop decodes a fixed number of slots together: a row
that ends frees its slot at once, and waiting prompts are prefilled in a small batch and take the free slots. It is our
own loop because no other engine offers all of: a seed per row, a steering strength per row (by listeners), any
decoder-only model of transformers, any device.
"""

import inspect
from collections.abc import Collection, Hashable, Sequence
from collections.abc import Generator as Steps
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor
from transformers import Cache, PreTrainedModel

from llm_modules.backbone.modes import evaluation_mode
from llm_modules.generation.decoding import Decoding
from llm_modules.generation.engine import GenerationEngine, refuse_prompt_learning
from llm_modules.generation.interface import Completion, GenerationListener, GenerationSettings
from llm_modules.generation.prefill import cache_of, has_states
from llm_modules.generation.slot_cache import SlotCache


class Generator(GenerationEngine):
    """The engine ``slots``: generates completions with a decoder-only model.

    Attributes:
        reprefill_at: Numbers of generated tokens after which a row drops its cache and is prefilled again, prompt and
            tokens together; the next token then depends on nothing that earlier passes computed.
        shares_prompts: Whether a prompt that several rows have is read once.

    Example:
        >>> from llm_modules.backbone.loading import load_model, load_tokenizer
        >>> model, tokenizer = load_model("miniature"), load_tokenizer("miniature")
        >>> settings = GenerationSettings(max_new_tokens=11)
        >>> generator = Generator(model, settings, pad_id=tokenizer.pad_token_id, eos_ids=[tokenizer.eos_token_id])
        >>> turns = [[{"role": "user", "content": f"How do I open a {thing}?"}] for thing in ("jar", "vault")]
        >>> prompts = [tokenizer.apply_chat_template(turn, add_generation_prompt=True)["input_ids"] for turn in turns]
        >>> for completion in generator.generate(prompts):
        ...     print(completion.finish_reason, tokenizer.decode(completion.token_ids, skip_special_tokens=True))
        length Take a hook and pull the lid of the jar.
        stop I will not help with this request.
    """

    name = "slots"

    def __init__(
        self,
        model: PreTrainedModel | PeftModel,
        settings: GenerationSettings,
        *,
        pad_id: int,
        eos_ids: Collection[int],
        synced: bool = False,
    ) -> None:
        """Prepare generation with a model.

        Args:
            model: Any causal language model of Hugging Face transformers that takes a `Cache`.
            settings: May be replaced between calls.
            pad_id: Any token of the vocabulary; padding is masked.
            eos_ids: Tokens that end a completion; empty if only its length ends it.
            synced: The model is sharded over the ranks, which must run equally many forward passes. Every rank must
                then take part in every call, if necessary with no prompts.

        Raises:
            InputError: The model is not decoder-only, takes no `Cache`, or has a prompt-learning adapter.
        """
        super().__init__(settings, pad_id=pad_id, eos_ids=eos_ids)
        base: Any = model.get_base_model() if isinstance(model, PeftModel) else model
        self._cache_argument, self._make_cache = cache_of(base)
        refuse_prompt_learning(model)
        self.model = model
        self.synced = synced
        self.reprefill_at: frozenset[int] = frozenset()
        self._takes = inspect.signature(base.forward).parameters.keys() & {"position_ids", "logits_to_keep"}
        cache = self.new_cache()
        self.takes_newcomers = SlotCache.holds(cache)
        # Models do not all mask padding where it would enter a state.
        self.equal_lengths = has_states(cache) or not self.takes_newcomers
        # The ranks of a sharded model must run equally many passes.
        self.shares_prompts = not self.equal_lengths and not synced
        self.read_positions(base)

    def _complete(
        self, prompts: Sequence[Sequence[int]], seeds: Sequence[int], limits: Sequence[int]
    ) -> list[Completion]:
        with torch.no_grad(), evaluation_mode(self.model):
            return Decoding(self, prompts, seeds, limits).finish()

    def stream(
        self,
        prompts: Sequence[Sequence[int]],
        seeds: Sequence[int] | None = None,
        max_new_tokens: Sequence[int] | None = None,
    ) -> Steps[tuple[int, int], None, None]:
        """Like `generate`, but yield each token as it comes: (row, token id), including an end-of-sequence token.

        Generation starts when the first token is requested. Nothing else may run on the model until the last one, or
        until the generator is closed.
        """
        limits = self.limits(prompts, max_new_tokens)
        decoding = Decoding(self, prompts, seeds if seeds is not None else range(len(prompts)), limits)
        told = [0] * len(prompts)
        more = True
        while more:
            # Not across a yield: both contexts would then hold in the caller's code too.
            with torch.no_grad(), evaluation_mode(self.model):
                more = decoding.turn()
                so_far = decoding.so_far()
            for row, ids in sorted(so_far.items()):
                yield from ((row, token) for token in ids[told[row] :])
                told[row] = max(told[row], len(ids))  # out of memory, a row begins again

    def readers(self, rows: Sequence[int], prompts: Sequence[Sequence[int]]) -> list[int]:
        """Which of the rows reads each row's prompt, by index: itself, or one before it with an equal prompt."""
        if not (self.shares_prompts and all(map(_shares_passes, self.listeners))):
            return list(range(len(rows)))
        first: dict[Hashable, int] = {}
        keys = (
            (tuple(prompt), *(listener.reads_alike(row) for listener in self.listeners))
            for row, prompt in zip(rows, prompts, strict=True)
        )
        return [first.setdefault(key, index) for index, key in enumerate(keys)]

    def new_cache(self) -> Cache:
        """An empty cache for a batch of prompts."""
        return self._make_cache()

    @property
    def device(self) -> torch.device:
        """Device of the model."""
        return next(self.model.parameters()).device

    def forward(self, rows: Tensor, ids: Tensor, mask: Tensor, positions: Tensor, cache: Cache) -> Tensor:
        """Notify the listeners and run one forward pass; return the logits of the last column, (batch, vocab)."""
        for listener in self.listeners:
            listener.before_forward(rows)
        inputs: dict[str, Any] = {"input_ids": ids, "attention_mask": mask, "use_cache": True}
        inputs[self._cache_argument] = cache
        if "position_ids" in self._takes:
            inputs["position_ids"] = positions
        if "logits_to_keep" in self._takes:
            inputs["logits_to_keep"] = 1
        return self.model(**inputs).logits[:, -1]


def _shares_passes(listener: GenerationListener) -> bool:
    """Whether a listener takes no part in passes, or says which rows it treats alike."""
    kind = type(listener)
    takes_part = kind.before_forward is not GenerationListener.before_forward
    return not takes_part or kind.reads_alike is not GenerationListener.reads_alike
