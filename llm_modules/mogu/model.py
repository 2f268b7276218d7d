"""A MoGU without Lightning: mixtures put into a Hugging Face model, generation, saving and loading."""

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor, nn
from transformers import PreTrainedModel

from datamodules.errors import InputError
from llm_modules.backbone.adapters import without_adapter
from llm_modules.generation import GenerationSettings
from llm_modules.mogu.adapters import Responder
from llm_modules.mogu.config import Mode, RouterConfig
from llm_modules.mogu.decoding import MoGUGenerator
from llm_modules.mogu.mixture import MERGE_REFUSED, SAVE_REFUSED, GateRecord, Mixture, MixtureControl
from llm_modules.mogu.router import RouterPair
from llm_modules.mogu.target import choose_layers, output_projections


class MoGUModel:
    """Two responders and their routers inside of a causal language model (paper, sec. 3).

    The model itself is the caller's, with mixtures in place of its output projections; no weight of it changes, and
    there is one copy of them. All parameters but those of the routers are frozen.

    Example:
        mogu = MoGUModel(model, read_responder("glad", "glad"), read_responder("unwilling", "unwilling"))
        with mogu.recording() as record:
            model(**inputs)
        gates = record.stacked()  # (layers, batch, seq, 2)

    Attributes:
        model: The Hugging Face model.
        adapted: The model inside of the adapter that its backbone was trained with (MoGUv2); None without one.
        mixtures: By decoder layer.
        control: What the mixtures do in the coming pass.
        mode: How `generate` uses the mixture if it is not told.
        m: Tokens that `generate` takes from the mixture if it is not told.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        glad: Responder,
        unwilling: Responder,
        config: RouterConfig | None = None,
        adapted: PeftModel | None = None,
    ) -> None:
        """Put the mixtures in.

        Args:
            model: A causal language model of any family; changed in place.
            glad: The glad responder.
            unwilling: The unwilling responder; its rank may be another.
            config: Shape of the routers.
            adapted: The model inside of an adapter of its backbone (MoGUv2).

        Raises:
            InputError: A responder does not fit the model, or a layer or module does not exist.
        """
        self.model, self.glad, self.unwilling, self.adapted = model, glad, unwilling, adapted
        self.config = config or RouterConfig()
        self.control = MixtureControl()
        self.mode: Mode = "first_m"
        self.m = 5
        everywhere = output_projections(model, self.config.target)
        self.projections = choose_layers(everywhere, self.config.layers, "model.router.layers")
        for projection in self.projections:
            if isinstance(projection.module, Mixture):
                raise InputError("model: it holds mixtures already; load the base model again")
        # Both are checked, for every layer, before the first one changes.
        deltas = [(glad.of(p, "model.glad"), unwilling.of(p, "model.unwilling")) for p in self.projections]
        for responder, key in ((glad, "model.glad"), (unwilling, "model.unwilling")):
            responder.check_places(everywhere, key)
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

    @classmethod
    def from_pretrained(cls, folder: Path | str, model: PreTrainedModel | None = None, **options: Any) -> "MoGUModel":
        """A MoGU from its folder; arguments and errors as in `llm_modules.mogu.save.load_mogu`."""
        from llm_modules.mogu.save import load_mogu

        return load_mogu(folder, model, **options)[0]

    @property
    def layers(self) -> tuple[int, ...]:
        """Decoder layers with a mixture."""
        return tuple(self.mixtures)

    def router_parameters(self) -> list[nn.Parameter]:
        """What is trained."""
        return [p for mixture in self.mixtures.values() for p in mixture.routers.parameters()]

    @contextmanager
    def recording(self, **settings: Any) -> Iterator[GateRecord]:
        """Collect the gates of the forward passes within the block; ``settings`` as in `MixtureControl.set`."""
        record = GateRecord()
        with self.control.set(record=record, **settings):
            yield record

    @contextmanager
    def base(self) -> Iterator[None]:
        """A block within which the model is its base, bit for bit: without an adapter of its backbone, too."""
        with self.control.set(active=False), without_adapter(self.adapted) if self.adapted else nullcontext():
            yield

    def fold(self) -> None:
        """Run every router as one logistic unit, in one product with the deltas; for inference."""
        for mixture in self.mixtures.values():
            mixture.fold()

    @contextmanager
    def joined(self) -> Iterator[None]:
        """A block within which every router runs folded; afterwards those that were not can be trained as before."""
        loose = [mixture for mixture in self.mixtures.values() if not mixture.is_joined]
        try:
            for mixture in loose:
                mixture.join()
            yield
        finally:
            for mixture in loose:
                mixture.unjoin()

    def unload(self) -> PreTrainedModel:
        """Take the mixtures and an adapter of the backbone out; the model is its base again."""
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
        """Refuse: there is nothing to merge.

        Raises:
            InputError: Always.
        """
        raise InputError(f"merge: {MERGE_REFUSED}")

    merge_and_unload = merge

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        settings: GenerationSettings | None = None,
        *,
        mode: Mode | None = None,
        m: int | None = None,
        eos_ids: Collection[int] | None = None,
        seeds: Sequence[int] | None = None,
        gates: bool = False,
    ) -> Any:
        """Complete prompts.

        Args:
            prompts: Token ids.
            settings: How to sample; greedy by default.
            mode: See ``Mode``; the model's own by default.
            m: Tokens from the mixture; the model's own by default.
            eos_ids: Tokens that end a completion; the model's own by default.
            seeds: One a row.
            gates: Also give the gates.

        Returns:
            One ``Completion`` a prompt; with ``gates``, a pair of these and, by row, (tokens, layers, 2).
        """
        generator = self.generator(settings or GenerationSettings(), mode=mode, m=m, eos_ids=eos_ids)
        generator.keep_gates = gates
        completions = generator.generate(prompts, seeds)
        return (completions, generator.gates) if gates else completions

    def generator(
        self,
        settings: GenerationSettings,
        *,
        mode: Mode | None = None,
        m: int | None = None,
        eos_ids: Collection[int] | None = None,
        pad_id: int = 0,
    ) -> MoGUGenerator:
        """The engine that `generate` uses, which also streams; arguments as there."""
        if eos_ids is None:
            own = self.model.generation_config.eos_token_id
            eos_ids = own if isinstance(own, list) else [own] if own is not None else []
        mode, m = mode if mode is not None else self.mode, m if m is not None else self.m
        return MoGUGenerator(self, settings, pad_id=pad_id, eos_ids=eos_ids, mode=mode, m=m)

    @torch.no_grad()
    def gates(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Gates of a batch of sequences in one pass, (layers, batch, seq, 2); what stands at padding means nothing."""
        with self.recording() as record:
            self.model.get_decoder()(input_ids=input_ids, attention_mask=attention_mask, use_cache=False)
        return record.stacked()


def _device_of(module: nn.Module, model: PreTrainedModel) -> torch.device:
    parameter = next(module.parameters(), None)
    return parameter.device if parameter is not None else model.device


def _refuse_to_save(*_args: Any, **_options: Any) -> None:
    raise InputError(f"save_pretrained: {SAVE_REFUSED}")
