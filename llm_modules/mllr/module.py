"""The LightningModule of ML-LR."""

from typing import Any

import torch

from datamodules.batch import ContrastBatch
from llm_modules.backbone.states import ContrastStates
from llm_modules.causal_lm import CausalLM
from llm_modules.mllr.cached_forward import CachedForward


class MLLR(CausalLM):
    """A causal language model whose robust modules can be searched for.

    ``predict`` on malicious requests with benign twins (``ContrastBatch``) returns their last-layer features; the
    ``RobustModulesWriter`` callback fits the probe to them and searches. ``fit`` with ``learning_rates`` is the secure
    fine-tune. Learning rates by module belong to `CausalLM`, so every other method has them too.
    """

    def predict_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> Any:
        """Features of pairs (paper: the last layer's hidden state); completions of any other batch."""
        if isinstance(batch, ContrastBatch):
            return self.features(batch)
        return super().predict_step(batch, batch_idx, dataloader_idx)

    @torch.no_grad()
    def features(self, batch: ContrastBatch) -> ContrastStates:
        """Last-layer features at the last token of both prompts of each pair, (batch, 1, hidden) per side."""
        sides = []
        for ids, mask in ((batch.positive_ids, batch.positive_mask), (batch.negative_ids, batch.negative_mask)):
            forward = CachedForward(self.language_model, {"batch": rows_of(ids, mask)}, batch_size=len(ids))
            sides.append(forward.features("batch", forward.clean)[:, None])
        return ContrastStates(*sides)


def rows_of(ids: torch.Tensor, mask: torch.Tensor) -> list[list[int]]:
    """Token ids of each prompt of a padded batch, without padding."""
    return [row[kept.bool()].tolist() for row, kept in zip(ids, mask, strict=True)]
