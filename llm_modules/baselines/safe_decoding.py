"""Baseline: SafeDecoding (Xu et al., ACL 2024), with any adapter that refuses as its expert."""

from collections.abc import Collection, Sequence
from functools import cached_property
from typing import Any, cast

import torch
from peft import PeftModel
from torch import Tensor
from transformers import Cache, PreTrainedModel

from datamodules.errors import InputError
from llm_modules.backbone.adapters import without_adapter
from llm_modules.causal_lm import CausalLM
from llm_modules.generation import Completion, GenerationSettings, Generator
from llm_modules.generation.prefill import is_empty


def mix_distributions(base: Tensor, expert: Tensor, alpha: float, candidates: int) -> Tensor:
    """``p + alpha (p_expert - p)`` over the tokens that both models find likely, as logits (rows, vocab).

    The candidates are the tokens among the first k of both models' rankings, with the least k that gives ``candidates``
    of them. The difference of the probabilities can be negative; such tokens are as good as excluded.

    >>> base, expert = torch.tensor([[0.6, 0.3, 0.1]]).log(), torch.tensor([[0.2, 0.7, 0.1]]).log()
    >>> mix_distributions(base, expert, alpha=1.0, candidates=2).exp()  # the expert's, among the two tokens
    tensor([[0.2000, 0.7000, 0.0000]])

    ``base`` and ``expert`` are logits (rows, vocab).
    """
    probabilities, expert_probabilities = base.float().softmax(-1), expert.float().softmax(-1)
    ranks = [logits.argsort(dim=-1, descending=True, stable=True).argsort(dim=-1) for logits in (base, expert)]
    worst = torch.maximum(*ranks)
    limit = worst.kthvalue(min(candidates, worst.shape[-1]), dim=-1, keepdim=True).values
    mixed = probabilities + alpha * (expert_probabilities - probabilities)
    return mixed.clamp(min=1e-12).log().masked_fill(worst > limit, float("-inf"))


class SafeDecodingGenerator(Generator):
    """A `Generator` whose first ``m`` tokens come from base and expert together.

    Both models prefill the row for each of these tokens: a second cache for two tokens would not pay.
    """

    def __init__(
        self,
        adapted: PeftModel,
        settings: GenerationSettings,
        *,
        pad_id: int,
        eos_ids: Collection[int],
        m: int,
        alpha: float,
        candidates: int,
    ) -> None:
        super().__init__(cast(PreTrainedModel, adapted.get_base_model()), settings, pad_id=pad_id, eos_ids=eos_ids)
        self._tuner: Any = adapted.base_model
        self.adapted, self.alpha, self.candidates = adapted, alpha, candidates
        self.reprefill_at = frozenset(range(1, m))
        self.shares_prompts = False  # the expert has no cache to read a prompt's last token with

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        seeds: Sequence[int] | None = None,
        max_new_tokens: Sequence[int] | None = None,
    ) -> list[Completion]:
        """As `Generator.generate`; the expert is on in its own passes only."""
        with without_adapter(self.adapted):
            return super().generate(prompts, seeds, max_new_tokens)

    def forward(self, rows: Tensor, ids: Tensor, mask: Tensor, positions: Tensor, cache: Cache) -> Tensor:
        """One pass of the base; if it is a prefill, one of the expert, too."""
        prefill = is_empty(cache)
        logits = super().forward(rows, ids, mask, positions, cache)
        if not prefill:
            return logits
        self._tuner.enable_adapter_layers()
        try:
            expert = super().forward(rows, ids, mask, positions, self.new_cache())
        finally:
            self._tuner.disable_adapter_layers()
        return mix_distributions(logits, expert, self.alpha, self.candidates)


class SafeDecoding(CausalLM):
    """A base model that decodes its first tokens with an expert, an adapter that has learnt to refuse.

    MoGU's unwilling responder can be the expert.
    """

    engines = ("slots",)

    def __init__(
        self,
        adapter: str,
        backbone: str = "miniature",
        m: int = 2,
        alpha: float = 3.0,
        candidates: int = 5,
        **model: Any,
    ) -> None:
        """Describe the model; it is not trained.

        Args:
            adapter: PEFT folder of the expert.
            backbone: Hub id, folder, or ``miniature`` (embedded).
            m: Tokens that base and expert decode together (its paper: 2).
            alpha: Weight of the expert (its paper: 3).
            candidates: Least number of tokens to choose from (its paper: 5).
            model: As in `CausalLM`.
        """
        for name, value in (("m", m), ("alpha", alpha), ("candidates", candidates)):
            if not value > 0:
                raise InputError(f"model.{name}: must be above 0, is {value:g}")
        super().__init__(backbone=backbone, adapter=adapter, **model)
        self.m, self.alpha, self.candidates = m, alpha, candidates

    def generation_identity(self) -> dict[str, Any]:
        """The settings of the decoding."""
        return {"m": self.m, "alpha": self.alpha, "candidates": self.candidates}

    @cached_property
    def generator(self) -> Any:
        """The engine that generates, with the expert in the first tokens; InputError if the model is sharded."""
        if self.device_mesh is not None:
            raise InputError("trainer.strategy: SafeDecoding runs two models in turn and cannot be sharded; use ddp")
        assert isinstance(self.model, PeftModel)
        return SafeDecodingGenerator(
            self.model,
            self.generation,
            pad_id=self.pad_id,
            eos_ids=self.eos_ids,
            m=self.m,
            alpha=self.alpha,
            candidates=self.candidates,
        )
