"""The LightningModule of MoGU: trains the routers over two responders, and generates with the mixture."""

from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from peft import PeftConfig, PeftModel
from torch import Tensor, nn
from transformers import PreTrainedModel

from datamodules.batch import IGNORE_INDEX, PromptBatch
from datamodules.errors import InputError
from datamodules.mogu.batch import RouterBatch
from llm_modules.backbone.adapters import add_adapter
from llm_modules.backbone.architecture import decoder_of
from llm_modules.backbone.modes import evaluation_mode
from llm_modules.backbone.sharding import call_as_forward
from llm_modules.causal_lm import CausalLM
from llm_modules.generation import Completion
from llm_modules.generation.interface import ELSEWHERE
from llm_modules.loss import Loss, last_hidden, row_losses_of
from llm_modules.mogu.config import Mode, RouterConfig, check_mode
from llm_modules.mogu.decoding import MoGUGenerator
from llm_modules.mogu.folder import BACKBONE
from llm_modules.mogu.hand_off import HandOff
from llm_modules.mogu.losses import (
    Penalty,
    PenaltyMask,
    gate_goals,
    gate_means,
    gate_penalty,
    malicious_tokens,
    penalty_tokens,
)
from llm_modules.mogu.mixture import Guide
from llm_modules.mogu.model import MoGUModel
from llm_modules.mogu.parts import MoGUParts
from llm_modules.mogu.v2.joint import token_kl, train_jointly
from llm_modules.mogu.v2.probes import warm_start
from llm_modules.optim.schedules import ScheduleCallable, WarmupConstant


class MoGU(CausalLM):
    """Both responders in one model, and the routers that learn to weigh them (paper, sec. 3.3 and 3.4).

    ``fit`` takes ``RouterBatch`` and trains the routers only. ``test`` and ``predict`` generate with the first ``m``
    tokens from the mixture.
    """

    engines = ("slots", "vllm", "server")

    def __init__(
        self,
        glad: str | None = None,
        unwilling: str | None = None,
        folder: str | None = None,
        backbone: str = "miniature",
        schedule: ScheduleCallable = WarmupConstant,
        router: RouterConfig | None = None,
        penalty: Penalty = "mse",
        penalty_mask: PenaltyMask = "after_instruction",
        penalty_weight: float = 2.0,
        guided_steps: int = 0,
        mode: Mode = "first_m",
        m: int = 5,
        allow_other_base: bool = False,
        probes: Path | None = None,
        backbone_peft: PeftConfig | None = None,
        backbone_rate: float = 0.1,
        kl_weight: float = 1.0,
        **model: Any,
    ) -> None:
        """Describe the model.

        Args:
            glad: PEFT folder of the glad responder.
            unwilling: PEFT folder of the unwilling responder.
            folder: A MoGU folder in place of both, to measure it or to train its routers further.
            backbone: Hub id, folder, or ``miniature`` (embedded).
            schedule: Made from the optimiser and the number of optimiser steps (paper: constant).
            router: Shape of the routers.
            penalty: ``mse`` (the authors' code) or ``l1`` (the paper's equation).
            penalty_mask: Tokens whose gates are pulled; see ``PenaltyMask``.
            penalty_weight: lambda (paper: 2); 0 trains by cross-entropy alone.
            guided_steps: For so many optimiser steps the penalty alone trains the routers, each layer by its own gates
                (ours; paper: 0). A step takes a forward pass of the backbone. At first the mixtures run with the gates
                that they should have, so that no layer learns from the errors of those before it; the share of requests
                that run with the routers' own gates grows to 1, because those are the states that they will meet.
            mode: Which generated tokens come from the mixture.
            m: Tokens from the mixture (paper: 5).
            allow_other_base: Accept responders or a folder that were trained on another model.
            probes: File of probes that the routers start from (MoGUv2, reconstructed); needs folded routers with bias.
            backbone_peft: An adapter on backbone modules that is trained with the routers (MoGUv2). Without it the
                backbone is frozen (paper).
            backbone_rate: Learning rate of that adapter, as a share of the routers' rate (ours).
            kl_weight: Weight of the KL divergence from the untouched base on benign responses (ours).
            model: As in `CausalLM`, but for ``peft`` and ``adapter``. ``dtype`` is the type of the base weights;
                responders and routers are float32.
        """
        check_mode(mode, m)
        if not penalty_weight >= 0:
            raise InputError(f"model.penalty_weight: must be 0 or more, is {penalty_weight:g}")
        if guided_steps < 0 or (guided_steps > 0 and (penalty_weight == 0 or backbone_peft is not None)):
            raise InputError(
                f"model.guided_steps: is {guided_steps}; it must be 0 or more, and 0 without a penalty or with "
                "model.backbone_peft, which the penalty does not train"
            )
        if backbone_peft is not None and folder is not None:
            raise InputError("model.backbone_peft: routers of a saved MoGU are trained without it; give its parts")
        if not (backbone_rate > 0 and kl_weight >= 0):
            raise InputError("model: backbone_rate must be above 0 and kl_weight 0 or more")
        super().__init__(backbone=backbone, schedule=schedule, **model)
        if self.peft is not None:
            raise InputError("model.peft: a MoGU trains routers; to train an adapter as well, set model.backbone_peft")
        if self.adapter is not None:
            raise InputError("model.adapter: a MoGU has two; set model.glad and model.unwilling, or model.folder")
        if self.generation.engine in ELSEWHERE and mode != "first_m":
            raise InputError(
                f"model.generation.engine: {self.generation.engine} writes what comes after the first m tokens; with "
                f"model.mode {mode} all of them come from here, so use slots"
            )
        self.parts = MoGUParts(glad, unwilling, folder, probes, allow_other_base)
        self.router = router or RouterConfig()
        self.penalty: Penalty = penalty
        self.penalty_mask: PenaltyMask = penalty_mask
        self.penalty_weight = penalty_weight
        self.guided_steps = guided_steps
        self.mode: Mode = mode
        self.m = m
        self.backbone_peft, self.backbone_rate, self.kl_weight = backbone_peft, backbone_rate, kl_weight
        self._mogu: list[MoGUModel] = []

    @property
    def mogu(self) -> MoGUModel:
        """The mixtures; RuntimeError before ``configure_model``."""
        if not self._mogu:
            raise RuntimeError("the model is not loaded yet: call configure_model first")
        return self._mogu[0]

    @cached_property
    def generator(self) -> MoGUGenerator | HandOff:
        """The engine that generates, with the first tokens of each row from the mixture."""
        first = MoGUGenerator(
            self.mogu,
            self.generation,
            pad_id=self.pad_id,
            eos_ids=self.eos_ids,
            synced=self.device_mesh is not None,
            mode=self.mode,
            m=self.m,
        )
        if self.engine not in ELSEWHERE:
            return first
        if self._trainer is None or self.trainer.state.fn == "fit":
            raise InputError(
                f"model.generation.engine: {self.engine} generates in predict, test and validate; use slots"
            )
        return HandOff(first, self.remote_engine(self.as_remote(self._tuned_backbone())))

    def is_elsewhere(self) -> bool:
        """The mixture needs the weights in this process, whatever engine writes the rest."""
        return False

    def _tuned_backbone(self) -> str | None:
        """The folder of the backbone's adapter, if there is one; InputError if it is in a checkpoint only."""
        if self.mogu.adapted is None:
            return None
        if self.parts.folder is None:
            raise InputError(
                f"model.generation.engine: {self.engine} loads the backbone's adapter from a folder; 'rod export' "
                "writes one for model.folder"
            )
        return str(Path(self.parts.folder) / BACKBONE)

    def generation_identity(self) -> dict[str, Any]:
        """Mode, m and the parts."""
        return {"mode": self.mode, "m": self.m} | self.parts.identity()

    def loss(self, batch: RouterBatch) -> Loss:
        """Each request's cross-entropy and gate penalty, with divergence from the base; InputError without gradient.

        In the first ``guided_steps`` the gate penalty alone.
        """
        if self.global_step < self.guided_steps:
            return self._guided_loss(batch)
        return self._loss_and_gates(batch)[0]

    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> Any:
        """As in `CausalLM`; of a ``RouterBatch`` also the gates, (layers, batch, seq, 2), which the figures show."""
        if not isinstance(batch, RouterBatch):
            return super().validation_step(batch, batch_idx, dataloader_idx)
        loss, gates = self._loss_and_gates(batch)
        loss.log(self.log, "val")
        return {"loss": loss.mean(), "gates": gates}

    def _loss_and_gates(self, batch: RouterBatch) -> tuple[Loss, Tensor]:
        model, rows = self.language_model, batch.rows

        def forward() -> tuple[Tensor, Tensor]:
            hidden = last_hidden(decoder_of(model), rows)
            return hidden, row_losses_of(hidden, rows, self.head)

        with self.mogu.recording() as record:
            hidden, cross_entropy = call_as_forward(model, forward)
        gates = record.stacked()
        if torch.is_grad_enabled() and (cut := record.without_gradient()):
            raise InputError(
                f"the gates of layers {cut} carry no gradient, so the gate penalty would have no effect there: "
                "re-entrant activation checkpointing cuts the gradient off; use model.activation_checkpointing, which "
                "is not re-entrant"
            )
        tokens = self._penalty_tokens(batch, self.penalty_mask)
        classes = malicious_tokens(self.penalty_mask, batch.malicious, batch.starts, tokens.shape[1])
        logged = {"ce": cross_entropy, "penalty": gate_penalty(gates, classes, tokens, self.penalty)}
        losses = cross_entropy + self.penalty_weight * logged["penalty"]
        if self.backbone_peft is not None:
            logged["kl"] = self._divergence(batch, hidden)
            losses = losses + self.kl_weight * logged["kl"]
        local = self._gate_means(batch, gates)
        return Loss(losses, per_batch=batch.mean_items, logged=logged, local=local), gates

    def _guided_loss(self, batch: RouterBatch) -> Loss:
        model, rows = self.language_model, batch.rows
        tokens = self._penalty_tokens(batch, self.penalty_mask)
        classes = malicious_tokens(self.penalty_mask, batch.malicious, batch.starts, tokens.shape[1])
        seed = 1_000_003 * self.global_step + int(rows.input_ids.sum())  # also of the micro-batch and the process
        draw = torch.rand(batch.items, generator=torch.Generator().manual_seed(seed))
        guided = (draw >= self.global_step / self.guided_steps).to(tokens.device)
        guide = Guide(gate_goals(classes), tokens & guided[:, None])
        # Without recomputation, which would come after the guide is gone, and in the states of inference.
        with self.mogu.recording(guide=guide) as record, evaluation_mode(model):
            call_as_forward(model, lambda: last_hidden(decoder_of(model), rows))
        gates = record.stacked()
        penalty = gate_penalty(gates, classes, tokens, self.penalty)
        return Loss(
            self.penalty_weight * penalty,
            per_batch=batch.mean_items,
            logged={"penalty": penalty},
            local=self._gate_means(batch, gates),
            name="guided_loss",
        )

    def _gate_means(self, batch: RouterBatch, gates: Tensor) -> dict[str, Tensor]:
        # Gates before the instruction have one goal with `all_by_place`, and would blur the means of both classes.
        mask = "post_instruction" if self.penalty_mask == "all_by_place" else self.penalty_mask
        return gate_means(gates.detach(), batch.malicious, self._penalty_tokens(batch, mask))

    def _divergence(self, batch: RouterBatch, hidden: Tensor) -> Tensor:
        """KL(base || model), mean over the response to each benign request, (batch,); 0 for malicious ones."""
        divergence = hidden.new_zeros(batch.items, dtype=torch.float32)
        if self.kl_weight == 0:
            return divergence
        model, rows = self.language_model, batch.rows
        with torch.no_grad(), self.mogu.base():
            base = call_as_forward(model, lambda: last_hidden(decoder_of(model), rows))
        chosen = (rows.labels[:, 1:] != IGNORE_INDEX) & ~batch.malicious[:, None]
        by_token = token_kl(hidden[:, :-1][chosen], base[:, :-1][chosen], self.head, self.head.vocab_size)
        return divergence.index_add(0, chosen.nonzero()[:, 0], by_token) / chosen.sum(dim=1).clamp(min=1)

    def _penalty_tokens(self, batch: RouterBatch, mask: PenaltyMask) -> Tensor:
        assert batch.rows.attention_mask is not None
        is_response = batch.rows.labels != IGNORE_INDEX
        return penalty_tokens(mask, batch.rows.attention_mask, batch.starts, batch.ends, is_response)

    def part_of(self) -> Callable[[nn.Parameter], str]:
        """``routers`` and ``backbone`` if both are trained; with ``learning_rates`` the backbone has its parts."""
        of_backbone = super().part_of()
        if self.backbone_peft is None and self.learning_rates is None:
            return of_backbone
        routers = {id(parameter) for parameter in self.mogu.router_parameters()}
        return lambda parameter: "routers" if id(parameter) in routers else of_backbone(parameter) or "backbone"

    def rate_of_part(self, part: str) -> float:
        """``backbone_rate`` for all parts of a backbone that is trained."""
        return 1.0 if self.backbone_peft is None or part == "routers" else self.backbone_rate

    def configure_model(self) -> None:
        """As in `CausalLM`; the parts are read and checked before any weights of the backbone are loaded."""
        if self.model is None:
            if self.engine in ELSEWHERE and self._trainer is not None and self.trainer.state.fn != "fit":
                self.as_remote(None)
            self.parts.read(self.backbone)
        super().configure_model()

    def _with_adapter(self, model: PreTrainedModel) -> PreTrainedModel | PeftModel:
        adapted: PeftModel | None = None
        if self.parts.folder is not None:
            mogu = MoGUModel.from_pretrained(self.parts.folder, model)
            model.train()
            for mixture in mogu.mixtures.values():
                mixture.unjoin()
                mixture.routers.requires_grad_(True)
        else:
            if self.backbone_peft is not None:
                adapted = add_adapter(model, self.backbone_peft, "model.backbone_peft")
            glad, unwilling = self.parts.adapters
            mogu = MoGUModel(model, glad, unwilling, self.router, adapted)
            if self.parts.layer_probes is not None:
                warm_start(mogu, self.parts.layer_probes)
            if adapted is not None:
                train_jointly(adapted, mogu)
        mogu.mode, mogu.m = self.mode, self.m
        # In a list: as an attribute of its own the model would be registered twice.
        self._mogu = [mogu]
        return adapted if adapted is not None else model

    def save(self, folder: Path, folded: bool = True) -> Path:
        """Write the MoGU as one folder; see `llm_modules.mogu.model.MoGUModel.save_pretrained`."""
        training = {
            "penalty": self.penalty,
            "penalty_mask": self.penalty_mask,
            "penalty_weight": self.penalty_weight,
            "d_router": self.mogu.config.d_router,
        }
        return self.mogu.save_pretrained(
            folder, base=self.model_id, revision=self.revision, training=training, folded=folded
        )

    def complete(self, batch: PromptBatch) -> list[Completion]:
        """One completion per row of the batch; the routers run folded."""
        if self.device_mesh is not None:
            return super().complete(batch)
        with self.mogu.joined():
            return super().complete(batch)
