"""The LightningModule of S³-CoT."""

from typing import Any

import torch

from datamodules.batch import ContrastBatch
from llm_modules.backbone.states import ContrastStates, capture_last_token
from llm_modules.causal_lm import CausalLM


class S3CoT(CausalLM):
    """A causal language model that can also show the states that the variable-length direction is made of.

    ``predict`` on pairs of prompts (``ContrastBatch``) gives their last-token states in every layer; on prompts it
    generates, steered by the ``Steer`` callback; ``fit`` on ``CurriculumData`` is the progressive compression.
    """

    def predict_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> Any:
        """States of contrast pairs (paper, sec. VL-D), completions of anything else."""
        if isinstance(batch, ContrastBatch):
            return self.contrast(batch)
        return super().predict_step(batch, batch_idx, dataloader_idx)

    @torch.no_grad()
    def contrast(self, batch: ContrastBatch) -> ContrastStates:
        """The residual stream after every decoder layer at the last token of each prompt, (batch, layers, hidden)."""
        model = self.language_model
        return ContrastStates(
            positive=capture_last_token(model, batch.positive_ids, batch.positive_mask),
            negative=capture_last_token(model, batch.negative_ids, batch.negative_mask),
        )
