"""The LightningModule of S³-CoT."""

from typing import Any

import torch

from datamodules.batch import ContrastBatch
from llm_modules.backbone.states import ContrastStates, capture_last_token
from llm_modules.causal_lm import CausalLM


class S3CoT(CausalLM):
    """A causal language model that also returns the hidden states from which a direction is computed.

    ``predict`` on a `ContrastBatch` (pairs of prompts) returns their last-token states in every layer. ``predict`` on
    prompts generates, steered by the `Steer` callback. ``fit`` on `CurriculumData` is the progressive compression.
    """

    def predict_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> Any:
        """Return the states of contrast pairs (paper, sec. VL-D), or completions of prompts."""
        if isinstance(batch, ContrastBatch):
            return self.contrast(batch)
        return super().predict_step(batch, batch_idx, dataloader_idx)

    @torch.no_grad()
    def contrast(self, batch: ContrastBatch) -> ContrastStates:
        """Return the residual stream after every decoder layer at each prompt's last token, (batch, layers, hidden)."""
        model = self.language_model
        return ContrastStates(
            positive=capture_last_token(model, batch.positive_ids, batch.positive_mask),
            negative=capture_last_token(model, batch.negative_ids, batch.negative_mask),
        )
