"""The LightningModule of MoGU: routers over two responders."""

from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.cli import OptimizerCallable
from peft import PeftConfig, PeftModel
from torch import Tensor
from transformers import PreTrainedModel

from datamodules.batch import IGNORE_INDEX, PromptBatch
from datamodules.errors import InputError
from datamodules.mogu.batch import RouterBatch
from llm_modules.backbone import loading
from llm_modules.backbone.adapters import add_adapter
from llm_modules.backbone.sharding import call_as_forward
from llm_modules.causal_lm import CausalLM
from llm_modules.generation import Completion, GenerationSettings
from llm_modules.loss import last_hidden, row_losses_of
from llm_modules.mogu.config import Mode, RouterConfig, check_mode
from llm_modules.mogu.decoding import MoGUGenerator
from llm_modules.mogu.losses import Penalty, PenaltyMask, gate_means, gate_penalty, penalty_tokens
from llm_modules.mogu.model import MoGUModel
from llm_modules.mogu.parts import MoGUParts
from llm_modules.mogu.save import load_mogu, save_mogu
from llm_modules.mogu.v2.joint import joint_groups, token_kl, train_jointly
from llm_modules.mogu.v2.probes import warm_start
from llm_modules.optim.parameter_groups import ParameterGroup
from llm_modules.optim.schedules import ScheduleCallable, WarmupConstant


class MoGU(CausalLM):
    """Both responders in one model, and the routers that are trained to weigh them (paper, sec. 3.3 and 3.4).

    ``fit`` takes ``RouterBatch`` and trains the routers alone; ``test`` and ``predict`` generate with the first ``m``
    tokens from the mixture.
    """

    def __init__(
        self,
        glad: str | None = None,
        unwilling: str | None = None,
        folder: str | None = None,
        backbone: str = "miniature",
        revision: str | None = None,
        tokenizer: str | None = None,
        random_weights: bool = False,
        dtype: loading.DType = "float32",
        attn_implementation: str | None = None,
        trust_remote_code: bool = False,
        activation_checkpointing: bool = False,
        optimizer: OptimizerCallable = torch.optim.AdamW,
        schedule: ScheduleCallable = WarmupConstant,
        generation: GenerationSettings | None = None,
        router: RouterConfig | None = None,
        penalty: Penalty = "mse",
        penalty_mask: PenaltyMask = "after_instruction",
        penalty_weight: float = 2.0,
        mode: Mode = "first_m",
        m: int = 5,
        allow_other_base: bool = False,
        probes: Path | None = None,
        backbone_peft: PeftConfig | None = None,
        backbone_rate: float = 0.1,
        kl_weight: float = 1.0,
    ) -> None:
        """Describe the model; those of the arguments that `CausalLM` has are described there.

        Args:
            glad: PEFT folder of the glad responder.
            unwilling: PEFT folder of the unwilling responder.
            folder: A MoGU folder in place of both, to measure it or to train its routers further.
            backbone: Hub id, folder, or ``miniature`` (embedded).
            revision: Branch, tag or commit of a hub id.
            tokenizer: Hub id or folder of another tokenizer; the backbone's own by default.
            random_weights: Start from the backbone's configuration with random weights.
            dtype: Of the base weights; responders and routers are float32.
            attn_implementation: ``sdpa``, ``eager``, ``flash_attention_2``; transformers chooses by default.
            trust_remote_code: Run code that comes with the checkpoint.
            activation_checkpointing: Recompute activations in the backward pass.
            optimizer: Made from the named parameter groups.
            schedule: Made from the optimiser and the number of optimiser steps (paper: constant).
            generation: How completions are generated.
            router: Shape of the routers.
            penalty: ``mse`` (the authors' code) or ``l1`` (the paper's equation).
            penalty_mask: Tokens whose gates are pulled; see ``PenaltyMask``.
            penalty_weight: lambda (paper: 2); 0 trains by cross-entropy alone.
            mode: How the mixture takes part in generation.
            m: Tokens from the mixture (paper: 5).
            allow_other_base: Take responders or a folder that say they were trained on another model.
            probes: Probes that the routers start from (MoGUv2, reconstructed); routers then are folded, with a bias.
            backbone_peft: An adapter on modules of the backbone that is trained with the routers (MoGUv2); they are
                frozen without it (paper).
            backbone_rate: Its learning rate, as a share of the routers' (ours).
            kl_weight: Weight of the KL divergence from the untouched base on benign responses (ours).
        """
        check_mode(mode, m)
        if not penalty_weight >= 0:
            raise InputError(f"model.penalty_weight: must be 0 or more, is {penalty_weight:g}")
        super().__init__(
            backbone=backbone,
            revision=revision,
            tokenizer=tokenizer,
            random_weights=random_weights,
            dtype=dtype,
            attn_implementation=attn_implementation,
            trust_remote_code=trust_remote_code,
            activation_checkpointing=activation_checkpointing,
            optimizer=optimizer,
            schedule=schedule,
            generation=generation,
        )
        self.parts = MoGUParts(glad, unwilling, folder, probes, allow_other_base)
        self.router = router or RouterConfig()
        self.penalty: Penalty = penalty
        self.penalty_mask: PenaltyMask = penalty_mask
        self.penalty_weight = penalty_weight
        self.mode: Mode = mode
        self.m = m
        if backbone_peft is not None and folder is not None:
            raise InputError("model.backbone_peft: routers of a saved MoGU are trained without it; give its parts")
        if not (backbone_rate > 0 and kl_weight >= 0):
            raise InputError("model: backbone_rate must be above 0 and kl_weight 0 or more")
        self.backbone_peft, self.backbone_rate, self.kl_weight = backbone_peft, backbone_rate, kl_weight
        self._mogu: list[MoGUModel] = []

    @property
    def mogu(self) -> MoGUModel:
        """The mixtures.

        Raises:
            RuntimeError: ``configure_model`` has not run.
        """
        if not self._mogu:
            raise RuntimeError("the model is not loaded yet: call configure_model first")
        return self._mogu[0]

    @cached_property
    def generator(self) -> MoGUGenerator:
        """The engine that generates, with the first tokens of each row from the mixture."""
        return MoGUGenerator(
            self.mogu,
            self.generation,
            pad_id=self._pad_id(),
            eos_ids=self._eos_ids(),
            synced=self.device_mesh is not None,
            mode=self.mode,
            m=self.m,
        )

    def generation_identity(self) -> dict[str, Any]:
        """Mode, m and the parts."""
        return {"mode": self.mode, "m": self.m} | self.parts.identity()

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Cross-entropy of the right response and penalty on the gates; every request of the epoch weighs the same.

        Raises:
            InputError: The gates of a layer carry no gradient.
        """
        cross_entropy, penalty, gates, drift = self._losses(batch)
        losses = cross_entropy + self.penalty_weight * penalty + self.kl_weight * drift
        self._log("train", batch, {"loss": losses, "ce": cross_entropy, "penalty": penalty, "kl": drift}, gates)
        return losses.sum() / (batch.mean_items or batch.items)

    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> Any:
        """Generate for prompts; for requests with their responses, log the loss and the gates."""
        if not isinstance(batch, RouterBatch):
            return super().validation_step(batch, batch_idx, dataloader_idx)
        cross_entropy, penalty, gates, drift = self._losses(batch)
        losses = cross_entropy + self.penalty_weight * penalty + self.kl_weight * drift
        self._log("val", batch, {"loss": losses, "ce": cross_entropy, "penalty": penalty, "kl": drift}, gates)
        return losses.mean()

    def _losses(self, batch: RouterBatch) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Cross-entropy, gate penalty, gates (layers, batch, seq, 2) and KL from the base; others (batch,)."""
        model, rows = self.language_model, batch.rows

        def forward() -> tuple[Tensor, Tensor]:
            hidden = last_hidden(model.get_decoder(), rows)
            return hidden, row_losses_of(hidden, rows, self.head)

        with self.mogu.recording() as record:
            hidden, cross_entropy = call_as_forward(model, forward)
        gates = record.stacked()
        if torch.is_grad_enabled() and (cut := record.without_gradient()):
            raise InputError(
                f"the gates of layers {cut} carry no gradient, so that the gate penalty would be without effect there: "
                "re-entrant activation checkpointing cuts them off; use model.activation_checkpointing, which is not "
                "re-entrant"
            )
        penalty = gate_penalty(gates, batch.malicious, self._penalty_tokens(batch), self.penalty)
        return cross_entropy, penalty, gates, self._drift(batch, hidden)

    def _drift(self, batch: RouterBatch, hidden: Tensor) -> Tensor:
        """KL(base || model) over the response to each benign request, mean over its tokens; 0 for malicious ones."""
        drift = hidden.new_zeros(batch.items, dtype=torch.float32)
        if not isinstance(self.model, PeftModel) or self.kl_weight == 0:
            return drift
        model, rows = self.language_model, batch.rows
        with torch.no_grad(), self.mogu.base():
            base = call_as_forward(model, lambda: last_hidden(model.get_decoder(), rows))
        chosen = (rows.labels[:, 1:] != IGNORE_INDEX) & ~batch.malicious[:, None]
        divergence = token_kl(hidden[:, :-1][chosen], base[:, :-1][chosen], self.head, self.head.vocab_size)
        return drift.index_add(0, chosen.nonzero()[:, 0], divergence) / chosen.sum(dim=1).clamp(min=1)

    def _penalty_tokens(self, batch: RouterBatch) -> Tensor:
        assert batch.rows.attention_mask is not None
        is_response = batch.rows.labels != IGNORE_INDEX
        return penalty_tokens(self.penalty_mask, batch.rows.attention_mask, batch.starts, batch.ends, is_response)

    def _log(self, part: str, batch: RouterBatch, losses: dict[str, Tensor], gates: Tensor) -> None:
        values = {name: value.mean() for name, value in losses.items() if name != "kl" or self.backbone_peft}
        alike = set(values)
        values |= gate_means(gates.detach(), batch.malicious, self._penalty_tokens(batch))
        for name, value in values.items():
            self.log(
                f"{part}/{name}",
                value.detach(),
                prog_bar=name == "loss",
                batch_size=batch.items,
                # What a batch of one class does not have, other processes would wait for.
                sync_dist=part == "val" and name in alike,
                add_dataloader_idx=False,
            )

    def parameter_groups(self) -> list[ParameterGroup]:
        """Those of `CausalLM`; with a backbone that learns, the routers and the backbone."""
        if not isinstance(self.model, PeftModel):
            return super().parameter_groups()
        return joint_groups(self.named_parameters())

    def configure_optimizers(self) -> Any:
        """The optimiser over the routers and, at a lower rate, what is trained of the backbone."""
        if not isinstance(self.model, PeftModel):
            return super().configure_optimizers()
        optimizer = self.optimizer(self.parameter_groups())
        optimizer.param_groups[1]["lr"] *= self.backbone_rate
        steps = int(self.trainer.estimated_stepping_batches)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": self.schedule(optimizer, steps), "interval": "step"},
        }

    def configure_model(self) -> None:
        """As that of `CausalLM`; what the mixture is made of is read and checked before any weights of the backbone."""
        if self.model is None:
            self.parts.read(self.backbone)
        super().configure_model()

    def _with_adapter(self, model: PreTrainedModel) -> PreTrainedModel | PeftModel:
        adapted: PeftModel | None = None
        if self.parts.folder is not None:
            mogu, _ = load_mogu(self.parts.folder, model)
            model.train()
            for mixture in mogu.mixtures.values():
                mixture.unjoin()
                mixture.routers.requires_grad_(True)
        else:
            if self.backbone_peft is not None:
                adapted = add_adapter(model, self.backbone_peft, "model.backbone_peft")
            glad, unwilling = self.parts.responders
            mogu = MoGUModel(model, glad, unwilling, self.router, adapted)
            if self.parts.layer_probes is not None:
                warm_start(mogu, self.parts.layer_probes)
            if adapted is not None:
                train_jointly(adapted, mogu)
        mogu.mode, mogu.m = self.mode, self.m
        # In a list: the model is registered as `self.model`, and must not be a second time.
        self._mogu = [mogu]
        return adapted if adapted is not None else model

    def save(self, folder: Path, folded: bool = True) -> Path:
        """Write the MoGU as one folder; see `llm_modules.mogu.save.save_mogu`."""
        training = {
            "penalty": self.penalty,
            "penalty_mask": self.penalty_mask,
            "penalty_weight": self.penalty_weight,
            "d_router": self.mogu.config.d_router,
        }
        return save_mogu(
            self.mogu, folder, base=self.model_id, revision=self.revision, training=training, folded=folded
        )

    def complete(self, batch: PromptBatch) -> list[Completion]:
        """One completion for each row of the batch; the routers run folded."""
        if self.device_mesh is not None:
            return super().complete(batch)
        with self.mogu.joined():
            return super().complete(batch)
