"""What the routers are trained by: cross-entropy of the mixture, a penalty on the gates, divergence from the base."""

from dataclasses import dataclass

import torch
from torch import Tensor

from datamodules.batch import IGNORE_INDEX
from datamodules.errors import InputError
from datamodules.mogu.batch import RouterBatch
from llm_modules.backbone.architecture import decoder_of
from llm_modules.backbone.head import OutputHead
from llm_modules.backbone.sharding import call_as_forward
from llm_modules.loss import Loss, last_hidden, row_losses_of
from llm_modules.mogu.losses import (
    Penalty,
    PenaltyMask,
    gate_means,
    gate_penalty,
    penalised,
)
from llm_modules.mogu.mixed_model import MixedModel
from llm_modules.mogu.v2.joint import token_kl


@dataclass(frozen=True)
class RouterObjective:
    """The losses of a ``RouterBatch``.

    Attributes:
        penalty, penalty_mask, penalty_weight: As in `llm_modules.mogu.module.MoGU`.
        kl_weight: Weight of the KL divergence from the base on benign responses; None if the backbone is frozen.
    """

    penalty: Penalty
    penalty_mask: PenaltyMask
    penalty_weight: float
    kl_weight: float | None

    def __post_init__(self) -> None:
        if not self.penalty_weight >= 0:
            raise InputError(f"model.penalty_weight: must be 0 or more, is {self.penalty_weight:g}")

    def losses(self, mogu: MixedModel, head: OutputHead, batch: RouterBatch) -> tuple[Loss, Tensor]:
        """Each request's cross-entropy, gate penalty and divergence; and the gates, (layers, batch, seq, 2).

        InputError if gates carry no gradient.
        """
        rows = batch.rows

        def forward() -> tuple[Tensor, Tensor]:
            hidden = last_hidden(decoder_of(mogu.model), rows)
            return hidden, row_losses_of(hidden, rows, head)

        with mogu.recording() as record:
            hidden, cross_entropy = call_as_forward(mogu.model, forward)
        gates = record.stacked()
        if torch.is_grad_enabled() and (cut := record.without_gradient()):
            raise InputError(
                f"the gates of layers {cut} carry no gradient, so the gate penalty would have no effect there: "
                "re-entrant activation checkpointing cuts the gradient off; use model.activation_checkpointing, which "
                "is not re-entrant"
            )
        tokens, classes = penalised(self.penalty_mask, batch)
        logged = {"ce": cross_entropy, "penalty": gate_penalty(gates, classes, tokens, self.penalty)}
        losses = cross_entropy + self.penalty_weight * logged["penalty"]
        if self.kl_weight is not None:
            logged["kl"] = self._divergence(mogu, head, batch, hidden)
            losses = losses + self.kl_weight * logged["kl"]
        local = self._gate_means(batch, gates)
        return Loss(losses, per_batch=batch.mean_items, logged=logged, local=local), gates

    def _gate_means(self, batch: RouterBatch, gates: Tensor) -> dict[str, Tensor]:
        # Gates before the instruction have one goal with `all_by_place`, and would blur the means of both classes.
        mask = "post_instruction" if self.penalty_mask == "all_by_place" else self.penalty_mask
        return gate_means(gates.detach(), batch.malicious, penalised(mask, batch)[0])

    def _divergence(self, mogu: MixedModel, head: OutputHead, batch: RouterBatch, hidden: Tensor) -> Tensor:
        """KL(base || model), mean over the response to each benign request, (batch,); 0 for malicious ones."""
        divergence = hidden.new_zeros(batch.items, dtype=torch.float32)
        if self.kl_weight == 0:
            return divergence
        rows = batch.rows
        with torch.no_grad(), mogu.base():
            base = call_as_forward(mogu.model, lambda: last_hidden(decoder_of(mogu.model), rows))
        chosen = (rows.labels[:, 1:] != IGNORE_INDEX) & ~batch.malicious[:, None]
        by_token = token_kl(hidden[:, :-1][chosen], base[:, :-1][chosen], head, head.vocab_size)
        return divergence.index_add(0, chosen.nonzero()[:, 0], by_token) / chosen.sum(dim=1).clamp(min=1)
