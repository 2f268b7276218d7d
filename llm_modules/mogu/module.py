"""The LightningModule of MoGU: trains the routers over two responders, and generates with the mixture."""

from collections.abc import Callable
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from peft import PeftConfig, PeftModel
from rich.console import Console
from rich.progress import track
from torch import nn
from transformers import PreTrainedModel

from datamodules.batch import PromptBatch
from datamodules.errors import InputError
from datamodules.mogu.batch import RouterBatch
from datamodules.mogu.response_data import RouterData
from llm_modules.backbone.adapters import add_adapter
from llm_modules.causal_lm import CausalLM
from llm_modules.generation import Completion
from llm_modules.generation.interface import ELSEWHERE
from llm_modules.loss import Loss
from llm_modules.mogu.config import Mode, RouterConfig, check_mode, check_shift
from llm_modules.mogu.decoding import MoGUGenerator
from llm_modules.mogu.folder import BACKBONE
from llm_modules.mogu.hand_off import HandOff
from llm_modules.mogu.layerwise import fit_by_layers
from llm_modules.mogu.losses import (
    Penalty,
    PenaltyMask,
)
from llm_modules.mogu.model import MoGUModel
from llm_modules.mogu.objective import RouterObjective
from llm_modules.mogu.parts import MoGUParts
from llm_modules.mogu.probes import warm_start
from llm_modules.mogu.v2.joint import train_jointly
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
        fit_by_layers: bool = False,
        mode: Mode = "first_m",
        m: int = 5,
        gate_shift: float = 0.0,
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
            fit_by_layers: Before the first step, fit the routers of one layer after the other to the training pairs by
                logistic regression (ours; paper: random); see `llm_modules.mogu.layerwise.fit_by_layers`. Needs folded
                routers with bias. Every process fits them on all pairs.
            mode: Which generated tokens come from the mixture.
            m: Tokens from the mixture (paper: 5).
            gate_shift: Added to the logits of the unwilling gates and taken from those of the glad ones, not while the
                routers are trained (ours). Above 0 the model refuses more.
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
        check_shift(gate_shift, "model.gate_shift")
        if backbone_peft is not None and folder is not None:
            raise InputError("model.backbone_peft: routers of a saved MoGU are trained without it; give its parts")
        if not (backbone_rate > 0 and kl_weight >= 0):
            raise InputError("model: backbone_rate must be above 0 and kl_weight 0 or more")
        divergence = None if backbone_peft is None else kl_weight
        objective = RouterObjective(penalty, penalty_mask, penalty_weight, divergence)
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
        router = router or RouterConfig()
        if fit_by_layers and (router.d_router != 0 or not router.bias or probes or folder):
            raise InputError(
                "model.fit_by_layers: only folded routers with a bias are fitted by layers, and neither those of "
                "model.folder nor of model.probes; set model.router: {d_router: 0, bias: true}"
            )
        self.parts = MoGUParts(glad, unwilling, folder, probes, allow_other_base)
        self.router, self.fit_by_layers = router, fit_by_layers
        self.objective = objective
        self.mode: Mode = mode
        self.m = m
        self.gate_shift = gate_shift
        self.backbone_peft, self.backbone_rate = backbone_peft, backbone_rate
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
        """Mode, m, the shift of the gates if there is one, and the parts."""
        shift = {"gate_shift": self.gate_shift} if self.gate_shift else {}
        return {"mode": self.mode, "m": self.m} | shift | self.parts.identity()

    def loss(self, batch: RouterBatch) -> Loss:
        """Each request's cross-entropy and gate penalty, with divergence from the base; InputError without gradient."""
        return self.objective.losses(self.mogu, self.head, batch)[0]

    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> Any:
        """As in `CausalLM`; of a ``RouterBatch`` also the gates, (layers, batch, seq, 2), which the figures show."""
        if not isinstance(batch, RouterBatch):
            return super().validation_step(batch, batch_idx, dataloader_idx)
        loss, gates = self.objective.losses(self.mogu, self.head, batch)
        loss.log(self.log, "val")
        return {"loss": loss.mean(), "gates": gates}

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
            if self.gate_shift and self._trainer is not None and self.trainer.state.fn == "fit":
                raise InputError("model.gate_shift: routers are trained without it; set it for tests")
            if self.fit_by_layers and self.device_mesh is not None:
                raise InputError("model.fit_by_layers: a sharded model has no whole layers; use strategy auto or ddp")
            if self.engine in ELSEWHERE and self._trainer is not None and self.trainer.state.fn != "fit":
                self.as_remote(None)
            self.parts.read(self.backbone)
        super().configure_model()

    def on_fit_start(self) -> None:
        """Fit the routers by layers, if asked for and the fit does not go on from a checkpoint."""
        super().on_fit_start()
        if not self.fit_by_layers or self.trainer.ckpt_path is not None:
            return
        data = getattr(self.trainer, "datamodule", None)
        if not isinstance(data, RouterData):
            raise InputError("model.fit_by_layers: needs data: RouterData")
        batches = [batch.to(self.device) for batch in data.predict_dataloader()]
        shown = partial(
            track,
            description="Fitting routers by layers",
            console=Console(stderr=True),
            disable=not self.trainer.is_global_zero,
        )
        with self.trainer.precision_plugin.forward_context():
            mixed = None if self.mode == "always" else max(self.m, 1)
            fit_by_layers(self.mogu, batches, self.objective.penalty_mask, mixed, track=shown)
        for parameter in self.mogu.router_parameters():  # devices may differ in the last bit, and routers must not
            parameter.data.copy_(self.trainer.strategy.broadcast(parameter.data.cpu()))

    def _adds_parts(self) -> bool:
        return True

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
        mogu.shift_gates(self.gate_shift)
        # In a list: as an attribute of its own the model would be registered twice.
        self._mogu = [mogu]
        return adapted if adapted is not None else model

    def save(self, folder: Path, folded: bool = True) -> Path:
        """Write the MoGU as one folder; see `llm_modules.mogu.model.MoGUModel.save_pretrained`."""
        training = {
            "penalty": self.objective.penalty,
            "penalty_mask": self.objective.penalty_mask,
            "penalty_weight": self.objective.penalty_weight,
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
