"""The LightningModule that computes the states on which probes are fitted."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from datamodules.batch import IGNORE_INDEX
from datamodules.mogu.batch import RouterBatch
from llm_modules.causal_lm import CausalLM
from llm_modules.mogu.probes import capture_inputs
from llm_modules.mogu.target import output_projections


@dataclass
class ProbeStates:
    """Inputs of the output projections of some decoder layers, at the last token of each prompt."""

    inputs: Tensor  # (batch, layers, in), float32
    malicious: Tensor  # (batch,) bool
    layers: tuple[int, ...]


class MoGUProbe(CausalLM):
    """A base model whose ``predict`` gives ``ProbeStates`` for each ``RouterBatch``."""

    def predict_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> Any:
        """States for requests, completions for other batches."""
        if not isinstance(batch, RouterBatch):
            return super().predict_step(batch, batch_idx, dataloader_idx)
        projections = output_projections(self.language_model)
        first_target = (batch.rows.labels != IGNORE_INDEX).int().argmax(dim=1)
        with torch.no_grad():
            inputs = capture_inputs(
                self.language_model, projections, batch.rows.input_ids, batch.rows.attention_mask, first_target - 1
            )
        return ProbeStates(inputs, batch.malicious, tuple(projection.layer for projection in projections))
