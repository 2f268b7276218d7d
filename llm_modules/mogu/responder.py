"""The LightningModule that trains a responder."""

from functools import cached_property
from typing import Any

from peft import LoraConfig, PeftModel
from torch import Tensor
from transformers import PreTrainedModel

from datamodules.errors import InputError
from datamodules.mogu.batch import ResponderBatch
from llm_modules.backbone.architecture import decoder_of
from llm_modules.backbone.sharding import call_as_forward
from llm_modules.causal_lm import CausalLM
from llm_modules.loss import Loss, row_losses
from llm_modules.mogu.branches import branch_losses, fits_window, takes_branches
from llm_modules.mogu.losses import RatioForm, responder_loss
from llm_modules.mogu.target import projection_pattern
from llm_modules.optim.schedules import ScheduleCallable, WarmupConstant


class Responder(CausalLM):
    """One of the two responders: a LoRA adapter that learns a response and unlearns its opposite (paper, sec. 3.2).

    ``fit`` takes ``ResponderBatch``; all else is as in `CausalLM`. ``rod export --format peft`` writes an ordinary
    adapter folder.
    """

    def __init__(
        self,
        backbone: str = "miniature",
        layers: list[int] | None = None,
        loss: RatioForm = "ratio",
        floor: float = 0.1,
        cap: float = 10.0,
        enough: float = 0.0,
        schedule: ScheduleCallable = WarmupConstant,
        **model: Any,
    ) -> None:
        """Describe the model.

        Args:
            backbone: Hub id, folder, or ``miniature`` (embedded).
            layers: Decoder layers whose output projections are adapted; all by default (paper).
            loss: ``ratio`` (paper), ``log_ratio`` (ours), or ``wanted``: plain cross-entropy, without contrast.
            floor: Least value of the loss's denominator (ours).
            cap: The gradient of a larger ratio counts like that of this one (ours).
            enough: Requests with a lower ratio have no gradient: they are learnt (ours).
            schedule: Made from the optimiser and the number of optimiser steps (paper: constant).
            model: As in `CausalLM`. A ``peft`` without ``target_modules`` adapts the attention output projections
                (paper).
        """
        super().__init__(backbone=backbone, schedule=schedule, **model)
        for name, value, least in (("floor", floor, 1e-6), ("cap", cap, 1e-6), ("enough", enough, 0.0)):
            if not value >= least:
                raise InputError(f"model.{name}: must be {least:g} or more, is {value:g}")
        self.layers = layers
        self.ratio_form: RatioForm = loss
        self.floor, self.cap, self.enough = floor, cap, enough

    def loss(self, batch: ResponderBatch) -> Loss:
        """The contrastive loss of each request, with both cross-entropies."""
        wanted, unwanted = self._cross_entropies(batch)
        losses = responder_loss(wanted, unwanted, self.ratio_form, self.floor, self.cap, self.enough)
        return Loss(losses, per_batch=batch.mean_items, logged={"ce_wanted": wanted, "ce_unwanted": unwanted})

    def _cross_entropies(self, batch: ResponderBatch) -> tuple[Tensor, Tensor]:
        model = self.language_model
        decoder = decoder_of(model)
        if self._takes_branches and fits_window(self.head, batch.branched):
            both = call_as_forward(model, lambda: branch_losses(decoder, self.head, batch.branched))
        else:
            both = call_as_forward(model, lambda: row_losses(decoder, self.head, batch.rows))
        return both[: batch.items], both[batch.items :]

    @cached_property
    def _takes_branches(self) -> bool:
        """Whether the model can read the prompt of both responses once."""
        model = self.language_model
        decoder = decoder_of(model)
        return call_as_forward(model, lambda: takes_branches(decoder, self.head))

    def _with_adapter(self, model: PreTrainedModel) -> PreTrainedModel | PeftModel:
        if isinstance(self.peft, LoraConfig) and not self.peft.target_modules:
            self.peft.target_modules = projection_pattern(model, layers=self.layers)
        elif self.layers is not None:
            raise InputError("model.layers: model.peft names its target_modules itself; give one of the two")
        return super()._with_adapter(model)
