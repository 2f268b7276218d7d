"""Baseline: conditional activation steering. A refusal direction is added if a probe calls the prompt malicious."""

from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from datamodules.batch import PromptBatch
from datamodules.errors import InputError
from datamodules.padding import pad_prompts
from llm_modules.backbone import loading
from llm_modules.backbone.modes import evaluation_mode
from llm_modules.causal_lm import CausalLM
from llm_modules.generation import Completion
from llm_modules.mogu.probes import LayerProbe, capture_inputs, choose_probes, read_probes
from llm_modules.mogu.target import Projection, output_projections
from llm_modules.s3cot.direction import Direction
from llm_modules.s3cot.formats import read_direction
from llm_modules.s3cot.layers import layer_indicator, select_layers
from llm_modules.s3cot.steering import Positions, Steering


class ConditionalSteering(CausalLM):
    """A base model that adds a refusal direction in the rows whose prompt a probe calls malicious.

    The direction comes from ``DirectionWriter``: states of malicious requests minus states of benign ones. All other
    rows are the base model's, bit for bit.
    """

    def __init__(
        self,
        direction: Path,
        probes: Path,
        backbone: str = "miniature",
        alpha: float = 1.0,
        layers: str = "all",
        positions: Positions = "all",
        threshold: float = 0.5,
        **model: Any,
    ) -> None:
        """Describe the model; it is not trained.

        Args:
            direction: File of the refusal direction.
            probes: File of probes; the one with the least held-out cross-entropy decides.
            backbone: Hub id, folder, or ``miniature`` (embedded).
            alpha: Strength; positive points to refusal.
            layers: Layer set to steer, such as ``all`` or ``3,5-8``.
            positions: Tokens to steer.
            threshold: A row is steered if the probability of malicious is above it.
            model: As in `CausalLM`.
        """
        if not 0 <= threshold <= 1:
            raise InputError(f"model.threshold: must be a probability from 0 to 1, is {threshold:g}")
        super().__init__(backbone=backbone, **model)
        self.direction_file, self.probes_file = direction, probes
        self.alpha, self.layer_set, self.positions, self.threshold = alpha, layers, positions, threshold

    def generation_identity(self) -> dict[str, Any]:
        """Direction, condition and strength."""
        return {
            "direction": str(self.direction_file.resolve()),
            "probes": str(self.probes_file.resolve()),
            "alpha": self.alpha,
            "layers": self.layer_set,
            "positions": self.positions,
            "threshold": self.threshold,
        }

    @cached_property
    def direction(self) -> Direction:
        """The refusal direction, read once; InputError if the file is broken or belongs to another model."""
        config = loading.read_config(self.backbone, self.revision, self.trust_remote_code).get_text_config()
        layers: int = config.num_hidden_layers
        try:
            direction = read_direction(self.direction_file, layers)
            direction.check(model_id=self.model_id, layers=layers, hidden=config.hidden_size)
        except InputError as error:
            raise InputError(f"model.direction: {error}") from error
        try:
            select_layers(self.layer_set, direction)
        except InputError as error:
            raise InputError(f"model.{error}") from error
        return direction

    @cached_property
    def probe(self) -> LayerProbe:
        """The probe that decides, read once; InputError if the file is broken."""
        return choose_probes(read_probes(self.probes_file, "model.probes"), 1)[0]

    def configure_model(self) -> None:
        """As in `CausalLM`; both files are read and checked before any weights are loaded."""
        _ = self.direction, self.probe
        super().configure_model()
        _ = self.projection

    @cached_property
    def projection(self) -> Projection:
        """The output projection that the probe reads; InputError if the model has none of this layer and width."""
        probe = self.probe
        for projection in output_projections(self.language_model):
            if (projection.layer, projection.in_features) == (probe.layer, len(probe.weight)):
                return projection
        raise InputError(
            f"model.probes: the best probe in '{self.probes_file}' is for layer {probe.layer} with {len(probe.weight)} "
            "features, which this model does not have; fit probes on this model (rod predict --config mogu/v2/1_probe)"
        )

    def complete(self, batch: PromptBatch) -> list[Completion]:
        """One completion for each row, steered if the probe says so."""
        if not batch.rows:
            return super().complete(batch)
        strengths = self.alpha * self.malicious(batch).float()
        sets = [self.layer_set if strength else "" for strength in strengths.tolist()]
        with Steering(self.language_model, self.direction.vectors, self.positions) as steering:
            steering.set_strengths(strengths[:, None] * layer_indicator(sets, self.direction))
            self.generator.listeners.append(steering)
            try:
                return super().complete(batch)
            finally:
                self.generator.listeners.remove(steering)

    @torch.no_grad()
    def malicious(self, batch: PromptBatch) -> torch.Tensor:
        """Whether the probe calls each prompt malicious, (rows,) bool on the CPU."""
        size = self.generation.slots
        verdicts = [
            self._verdicts([row.token_ids for row in batch.rows[start : start + size]])
            for start in range(0, len(batch.rows), size)
        ]
        return torch.cat(verdicts).cpu()

    def _verdicts(self, prompts: list[tuple[int, ...]]) -> torch.Tensor:
        model, probe = self.language_model, self.probe
        ids, mask = (tensor.to(model.device) for tensor in pad_prompts(prompts, self.pad_id))
        with evaluation_mode(model):
            inputs = capture_inputs(model, [self.projection], ids, mask, mask.sum(dim=1) - 1)[:, 0]
        logits = inputs @ probe.weight.to(inputs.device) + probe.bias.to(inputs.device)
        return logits.sigmoid() > self.threshold
