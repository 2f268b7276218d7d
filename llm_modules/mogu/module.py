"""The LightningModules of MoGU: one for each responder, one for the routers."""

from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.cli import OptimizerCallable
from peft import LoraConfig, PeftConfig, PeftModel
from torch import Tensor, nn
from transformers import PreTrainedModel

from datamodules.batch import IGNORE_INDEX, ResponderBatch, RouterBatch
from datamodules.errors import InputError
from llm_modules import backbone as loading
from llm_modules.causal_lm import CausalLM
from llm_modules.generation import GenerationSettings
from llm_modules.loss import row_losses
from llm_modules.mogu.adapters import read_responder
from llm_modules.mogu.config import Mode, RouterConfig, check_m
from llm_modules.mogu.decoding import MoGUGenerator
from llm_modules.mogu.losses import (
    Penalty,
    PenaltyMask,
    RatioForm,
    gate_penalty,
    penalty_tokens,
    responder_loss,
)
from llm_modules.mogu.model import MoGUModel
from llm_modules.mogu.save import load_mogu, save_mogu
from llm_modules.mogu.target import projection_pattern
from llm_modules.schedules import ScheduleCallable, WarmupConstant
from llm_modules.sharding import call_as_forward


class Responder(CausalLM):
    """One of the two responders: a LoRA adapter that learns a response and unlearns its opposite (paper, sec. 3.2).

    ``fit`` takes ``ResponderBatch``. Everything else is a ``CausalLM``: it generates, and ``rod export --format peft``
    writes an ordinary adapter folder.
    """

    def __init__(
        self,
        backbone: str = "miniature",
        revision: str | None = None,
        tokenizer: str | None = None,
        random_weights: bool = False,
        dtype: loading.DType = "float32",
        attn_implementation: str | None = None,
        trust_remote_code: bool = False,
        peft: PeftConfig | None = None,
        adapter: str | None = None,
        activation_checkpointing: bool = False,
        optimizer: OptimizerCallable = torch.optim.AdamW,
        schedule: ScheduleCallable = WarmupConstant,
        generation: GenerationSettings | None = None,
        loss: RatioForm = "ratio",
        floor: float = 0.1,
        cap: float = 10.0,
        enough: float = 0.0,
    ) -> None:
        """Describe the model; the first arguments are those of `CausalLM`.

        Args:
            backbone: Hub id, folder, or ``miniature`` (embedded).
            revision: Branch, tag or commit of a hub id.
            tokenizer: Hub id or folder of another tokenizer; the backbone's own by default.
            random_weights: Start from the backbone's configuration with random weights.
            dtype: Of the weights.
            attn_implementation: ``sdpa``, ``eager``, ``flash_attention_2``; transformers chooses by default.
            trust_remote_code: Run code that comes with the checkpoint.
            peft: A LoRA configuration; without ``target_modules`` it adapts the attention output projections (paper).
            adapter: A PEFT folder to train further, or to evaluate.
            activation_checkpointing: Recompute activations in the backward pass.
            optimizer: Made from the named parameter groups.
            schedule: Made from the optimiser and the number of optimiser steps (paper: constant).
            generation: How completions are generated.
            loss: ``ratio`` (paper), ``log_ratio`` (ours), or ``wanted``: plain cross-entropy, without contrast.
            floor: Least value of the loss's denominator (ours).
            cap: The ratio's gradient never counts for more than that of this value (ours).
            enough: Requests whose ratio is below it are learnt (ours).
        """
        super().__init__(
            backbone=backbone,
            revision=revision,
            tokenizer=tokenizer,
            random_weights=random_weights,
            dtype=dtype,
            attn_implementation=attn_implementation,
            trust_remote_code=trust_remote_code,
            peft=peft,
            adapter=adapter,
            activation_checkpointing=activation_checkpointing,
            optimizer=optimizer,
            schedule=schedule,
            generation=generation,
        )
        for name, value, least in (("floor", floor, 1e-6), ("cap", cap, 1e-6), ("enough", enough, 0.0)):
            if not value >= least:
                raise InputError(f"model.{name}: must be {least:g} or more, is {value:g}")
        self.ratio_form: RatioForm = loss
        self.floor, self.cap, self.enough = floor, cap, enough

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Mean loss over the requests of the batch, each of which weighs the same as any other of the epoch."""
        wanted, unwanted = self._cross_entropies(batch)
        losses = self._item_losses(wanted, unwanted)
        self._log("train", batch, losses, wanted, unwanted)
        return losses.sum() / (batch.mean_items or batch.items)

    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> Any:
        """Generate for prompts; for pairs of responses, log the loss and both cross-entropies."""
        if not isinstance(batch, ResponderBatch):
            return super().validation_step(batch, batch_idx, dataloader_idx)
        wanted, unwanted = self._cross_entropies(batch)
        losses = self._item_losses(wanted, unwanted)
        self._log("val", batch, losses, wanted, unwanted)
        return losses.mean()

    def _cross_entropies(self, batch: ResponderBatch) -> tuple[Tensor, Tensor]:
        model = self.language_model
        decoder: nn.Module = model.get_decoder()
        both = call_as_forward(model, lambda: row_losses(decoder, self.head, batch.rows))
        return both[: batch.items], both[batch.items :]

    def _item_losses(self, wanted: Tensor, unwanted: Tensor) -> Tensor:
        return responder_loss(wanted, unwanted, self.ratio_form, self.floor, self.cap, self.enough)

    def _log(self, part: str, batch: ResponderBatch, losses: Tensor, wanted: Tensor, unwanted: Tensor) -> None:
        values = {"loss": losses, "ce_wanted": wanted, "ce_unwanted": unwanted}
        for name, value in values.items():
            self.log(
                f"{part}/{name}",
                value.detach().mean(),
                prog_bar=name == "loss",
                batch_size=batch.items,
                sync_dist=part == "val",
                add_dataloader_idx=False,
            )

    def _with_adapter(self, model: PreTrainedModel) -> PreTrainedModel | PeftModel:
        if isinstance(self.peft, LoraConfig) and not self.peft.target_modules:
            self.peft.target_modules = projection_pattern(model)
        return super()._with_adapter(model)


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
        penalty_mask: PenaltyMask = "post_instruction",
        penalty_weight: float = 2.0,
        mode: Mode = "first_m",
        m: int = 5,
        allow_other_base: bool = False,
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
            allow_other_base: Take responders that say they were trained on another model.
        """
        check_m(mode, m)
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
        if (folder is None) != (glad is not None and unwilling is not None):
            raise InputError("model: give model.glad and model.unwilling, two PEFT folders, or model.folder, a MoGU")
        self.glad, self.unwilling, self.folder, self.router = glad, unwilling, folder, router or RouterConfig()
        self.penalty: Penalty = penalty
        self.penalty_mask: PenaltyMask = penalty_mask
        self.penalty_weight = penalty_weight
        self.mode: Mode = mode
        self.m = m
        self.allow_other_base = allow_other_base
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

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Cross-entropy of the right response and penalty on the gates; every request of the epoch weighs the same.

        Raises:
            InputError: The gates carry no gradient.
        """
        cross_entropy, penalty, gates = self._losses(batch)
        if not gates.requires_grad:
            raise InputError(
                "the gates carry no gradient, so that the gate penalty would be without effect: re-entrant activation "
                "checkpointing cuts them off; use model.activation_checkpointing, which is not re-entrant"
            )
        self._log("train", batch, cross_entropy, penalty, gates)
        return (cross_entropy + self.penalty_weight * penalty).sum() / (batch.mean_items or batch.items)

    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> Any:
        """Generate for prompts; for requests with their responses, log the loss and the gates."""
        if not isinstance(batch, RouterBatch):
            return super().validation_step(batch, batch_idx, dataloader_idx)
        cross_entropy, penalty, gates = self._losses(batch)
        self._log("val", batch, cross_entropy, penalty, gates)
        return (cross_entropy + self.penalty_weight * penalty).mean()

    def _losses(self, batch: RouterBatch) -> tuple[Tensor, Tensor, Tensor]:
        """Cross-entropy (batch,), gate penalty (batch,), gates (layers, batch, seq, 2)."""
        model, rows = self.language_model, batch.rows
        decoder: nn.Module = model.get_decoder()
        with self.mogu.recording() as record:
            cross_entropy = call_as_forward(model, lambda: row_losses(decoder, self.head, rows))
        gates = record.stacked()
        tokens = self._penalty_tokens(batch)
        return cross_entropy, gate_penalty(gates, batch.malicious, tokens, self.penalty), gates

    def _penalty_tokens(self, batch: RouterBatch) -> Tensor:
        assert batch.rows.attention_mask is not None
        is_response = batch.rows.labels != IGNORE_INDEX
        return penalty_tokens(self.penalty_mask, batch.rows.attention_mask, batch.starts, batch.ends, is_response)

    def _log(self, part: str, batch: RouterBatch, cross_entropy: Tensor, penalty: Tensor, gates: Tensor) -> None:
        loss = cross_entropy + self.penalty_weight * penalty
        values = {"loss": loss.mean(), "ce": cross_entropy.mean(), "penalty": penalty.mean()}
        tokens = self._penalty_tokens(batch)
        per_row = (gates.detach() * tokens[None, :, :, None]).sum(2).mean(0) / tokens.sum(1, keepdim=True).clamp(min=1)
        for name, kind in (("benign", ~batch.malicious), ("malicious", batch.malicious)):
            if kind.any():
                glad, unwilling = per_row[kind].mean(dim=0)
                values |= {f"glad_on_{name}": glad, f"unwilling_on_{name}": unwilling}
        for name, value in values.items():
            self.log(
                f"{part}/{name}",
                value.detach(),
                prog_bar=name == "loss",
                batch_size=batch.items,
                # What a batch of one class does not have, other processes would wait for.
                sync_dist=part == "val" and name in ("loss", "ce", "penalty"),
                add_dataloader_idx=False,
            )

    def _with_adapter(self, model: PreTrainedModel) -> PreTrainedModel:
        if self.folder is not None:
            mogu, _ = load_mogu(self.folder, model)
            model.train()
            for mixture in mogu.mixtures.values():
                mixture.unjoin()
                mixture.routers.requires_grad_(True)
        else:
            responders = {}
            for key in ("glad", "unwilling"):
                responder = read_responder(str(getattr(self, key)), f"model.{key}")
                self._check_base(key, responder.base)
                responders[key] = responder
            mogu = MoGUModel(model, responders["glad"], responders["unwilling"], self.router)
        mogu.mode, mogu.m = self.mode, self.m
        # In a list: the model is registered as `self.model`, and must not be a second time.
        self._mogu = [mogu]
        return model

    def save(self, folder: Path, folded: bool = True) -> Path:
        """Write the MoGU as one folder; see `llm_modules.mogu.save.save_mogu`."""
        training = {
            "penalty": self.penalty,
            "penalty_mask": self.penalty_mask,
            "penalty_weight": self.penalty_weight,
            "d_router": self.router.d_router,
        }
        return save_mogu(
            self.mogu, folder, base=self.model_id, revision=self.revision, training=training, folded=folded
        )

    def _check_base(self, key: str, base: str) -> None:
        """A responder that names another base is refused; folders may have moved, so that their names are compared."""
        own = {self.backbone, self.model_id, loading.resolve(self.backbone)}
        if self.allow_other_base or not base or base in own or Path(base).name in {Path(name).name for name in own}:
            return
        raise InputError(
            f"model.{key}: the adapter '{getattr(self, key)}' was trained on '{base}', not on '{self.backbone}'; "
            "give the responders' own base, or set model.allow_other_base: true if they are the same weights"
        )

    def on_test_start(self) -> None:
        """Run the routers folded."""
        self._fold()

    def on_predict_start(self) -> None:
        """Run the routers folded."""
        self._fold()

    def _fold(self) -> None:
        if self.device_mesh is None:
            for mixture in self.mogu.mixtures.values():
                mixture.join()

    def on_test_end(self) -> None:
        """Compute gates from the routers again."""
        self._unfold()

    def on_predict_end(self) -> None:
        """Compute gates from the routers again."""
        self._unfold()

    def _unfold(self) -> None:
        for mixture in self.mogu.mixtures.values():
            mixture.unjoin()
