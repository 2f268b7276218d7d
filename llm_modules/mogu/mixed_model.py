"""A Hugging Face model with mixtures in place of its output projections."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor, nn
from transformers import PreTrainedModel

from datamodules.errors import InputError
from llm_modules.backbone.adapters import without_adapter
from llm_modules.backbone.architecture import decoder_of
from llm_modules.mogu.adapters import LoRAAdapter
from llm_modules.mogu.config import RouterConfig, check_shift
from llm_modules.mogu.mixture import MERGE_REFUSED, SAVE_REFUSED, GateRecord, Mixture, MixtureControl
from llm_modules.mogu.router import RouterPair
from llm_modules.mogu.target import choose_layers, output_projections


class MixedModel:
    """Two responders and their routers inside of a causal language model (paper, sec. 3).

    The caller's model is changed in place: each output projection becomes a mixture around it. No weight of the model
    changes and none is copied. Only the routers can be trained; all other parameters are frozen.

    Attributes:
        adapted: The model inside of an adapter of its backbone (MoGUv2); None without one.
        mixtures: By decoder layer.
        control: Settings of the next forward pass.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        glad: LoRAAdapter,
        unwilling: LoRAAdapter,
        config: RouterConfig | None = None,
        adapted: PeftModel | None = None,
    ) -> None:
        """Put the mixtures in; InputError if a responder does not fit the model, or a layer does not exist."""
        self.model, self.glad, self.unwilling, self.adapted = model, glad, unwilling, adapted
        self.config = config or RouterConfig()
        self.control = MixtureControl()
        everywhere = output_projections(model, self.config.target)
        self.projections = choose_layers(everywhere, self.config.layers, "model.router.layers")
        for projection in self.projections:
            if isinstance(projection.module, Mixture):
                raise InputError("model: it holds mixtures already; load the base model again")
        # Both responders are checked for every layer before the first layer changes.
        deltas = [(glad.of(p, "model.glad"), unwilling.of(p, "model.unwilling")) for p in self.projections]
        for adapter, key in ((glad, "model.glad"), (unwilling, "model.unwilling")):
            adapter.check_places(everywhere, key)
        model.requires_grad_(False)
        self.mixtures: dict[int, Mixture] = {}
        for projection, (its_glad, its_unwilling) in zip(self.projections, deltas, strict=True):
            base = projection.module
            routers = RouterPair(projection.in_features, self.config.d_router, self.config.bias)
            mixture = Mixture(base, projection.layer, its_glad, its_unwilling, routers, self.control)
            mixture.to(_device_of(base, model)).train(model.training)
            setattr(projection.parent, projection.name, mixture)
            self.mixtures[projection.layer] = mixture
        vars(model)["save_pretrained"] = _refuse_to_save

    @property
    def layers(self) -> tuple[int, ...]:
        """Decoder layers with a mixture."""
        return tuple(self.mixtures)

    def router_parameters(self) -> list[nn.Parameter]:
        """The parameters that are trained."""
        return [p for mixture in self.mixtures.values() for p in mixture.routers.parameters()]

    @contextmanager
    def recording(self, **settings: Any) -> Iterator[GateRecord]:
        """Collect the gates of the forward passes within the block; ``settings`` as in `MixtureControl.set`."""
        record = GateRecord()
        with self.control.set(record=record, **settings):
            yield record

    @contextmanager
    def base(self) -> Iterator[None]:
        """Within the block the model is its base, bit for bit: an adapter of its backbone is off, too."""
        with self.control.set(active=False), without_adapter(self.adapted) if self.adapted else nullcontext():
            yield

    def fold(self) -> None:
        """Run every router as one logistic unit, in one product with the adapters; for inference."""
        for mixture in self.mixtures.values():
            mixture.fold()

    def shift_gates(self, by: float) -> None:
        """Add ``by`` to the logits of the unwilling gates and take it from those of the glad ones (ours).

        Above 0 the model refuses more. A saved folder holds it as the bias of its routers. InputError if ``by`` is no
        finite number.
        """
        check_shift(by, "shift_gates")
        for mixture in self.mixtures.values():
            mixture.routers.shift += by
            if mixture.is_joined:
                mixture.join()

    @contextmanager
    def joined(self) -> Iterator[None]:
        """Run every router folded within the block; afterwards routers can be trained as before."""
        loose = [mixture for mixture in self.mixtures.values() if not mixture.is_joined]
        try:
            for mixture in loose:
                mixture.join()
            yield
        finally:
            for mixture in loose:
                mixture.unjoin()

    def unload(self) -> PreTrainedModel:
        """Take out the mixtures and an adapter of the backbone; the model is its base again."""
        for projection in self.projections:
            mixture = projection.module
            assert isinstance(mixture, Mixture)
            setattr(projection.parent, projection.name, mixture.base)
        self.mixtures.clear()
        if self.adapted is not None:
            self.adapted.unload()
            self.adapted = None
        vars(self.model).pop("save_pretrained", None)
        return self.model

    def merge(self) -> None:
        """Raise InputError: the weights of a mixture differ for every token."""
        raise InputError(f"merge: {MERGE_REFUSED}")

    merge_and_unload = merge

    @torch.no_grad()
    def gates(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Gates of a batch of sequences, (layers, batch, seq, 2), glad first; values at padding have no meaning."""
        with self.recording() as record:
            decoder_of(self.model)(input_ids=input_ids, attention_mask=attention_mask, use_cache=False)
        return record.stacked()


def _device_of(module: nn.Module, model: PreTrainedModel) -> torch.device:
    parameter = next(module.parameters(), None)
    return parameter.device if parameter is not None else model.device


def _refuse_to_save(*_args: Any, **_options: Any) -> None:
    raise InputError(f"save_pretrained: {SAVE_REFUSED}")
