"""A rival: steering towards refusal where a probe of the prompt says malicious (conditional activation steering)."""

from pathlib import Path
from typing import Any

import torch

from datamodules.batch import PromptBatch
from datamodules.errors import InputError
from llm_modules.backbone.architecture import hidden_size, num_layers
from llm_modules.backbone.modes import evaluation_mode
from llm_modules.causal_lm import CausalLM
from llm_modules.generation import Completion
from llm_modules.mogu.target import output_projections
from llm_modules.mogu.v2.probes import Probe, capture_inputs, choose_probes, read_probes
from llm_modules.s3cot.formats import read_direction
from llm_modules.s3cot.layers import layer_indicator
from llm_modules.s3cot.steering import Positions, Steering


class ConditionalSteering(CausalLM):
    """A model that adds a refusal direction to its layers, in rows whose prompt a probe takes for malicious.

    The direction is one of ``DirectionWriter``: states of malicious requests minus those of benign ones. The rule is
    applied once a prompt; other rows are the base model's, bit for bit.
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
        """Describe the model; it is not trained here.

        Args:
            direction: File of the refusal direction.
            probes: File of probes; that with the least held-out cross-entropy decides.
            backbone: Hub id, folder, or ``miniature`` (embedded).
            alpha: Strength; positive points to refusal.
            layers: Layer set to steer, such as ``all`` or ``3,5-8``.
            positions: Tokens to steer.
            threshold: Probability of malicious above which a row is steered.
            model: As for `CausalLM`.
        """
        if not 0 <= threshold <= 1:
            raise InputError(f"model.threshold: is a probability from 0 to 1, not {threshold:g}")
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

    def complete(self, batch: PromptBatch) -> list[Completion]:
        """One completion for each row, steered where the probe says so."""
        model = self.language_model
        direction = read_direction(self.direction_file, num_layers(model))
        direction.check(
            model_id=self.model_id, layers=num_layers(model), hidden=hidden_size(model), allow_other_model=False
        )
        if not batch.rows:
            return super().complete(batch)
        strengths = self.alpha * self.malicious(batch).float()
        sets = [self.layer_set if strength else "" for strength in strengths.tolist()]
        with Steering(model, direction.vectors, self.positions) as steering:
            steering.set_strengths(strengths[:, None] * layer_indicator(sets, direction))
            self.generator.listeners.append(steering)
            try:
                return super().complete(batch)
            finally:
                self.generator.listeners.remove(steering)

    @torch.no_grad()
    def malicious(self, batch: PromptBatch) -> torch.Tensor:
        """Which prompts the probe takes for malicious, (rows,) bool on the CPU."""
        (probe,) = choose_probes(read_probes(self.probes_file), 1)
        size = self.generation.slots
        verdicts = [
            self._verdicts([row.token_ids for row in batch.rows[start : start + size]], probe)
            for start in range(0, len(batch.rows), size)
        ]
        return torch.cat(verdicts).cpu()

    def _verdicts(self, prompts: list[tuple[int, ...]], probe: Probe) -> torch.Tensor:
        model = self.language_model
        lengths = torch.tensor([len(prompt) for prompt in prompts], device=model.device)
        ids = torch.full((len(prompts), int(lengths.max())), self._pad_id(), device=model.device)
        for line, prompt in zip(ids, prompts, strict=True):
            line[: len(prompt)] = torch.tensor(prompt)
        mask = torch.arange(ids.shape[1], device=model.device) < lengths[:, None]
        projections = [p for p in output_projections(model) if p.layer == probe.layer]
        if not projections:
            raise InputError(f"model.probes: the model has no output projection in layer {probe.layer}")
        with evaluation_mode(model):
            inputs = capture_inputs(model, projections, ids, mask.long(), lengths - 1)[:, 0]
        logits = inputs @ probe.weight.to(inputs.device) + probe.bias.to(inputs.device)
        return logits.sigmoid() > self.threshold
