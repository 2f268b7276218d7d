"""The LightningModule that every method extends."""

from collections.abc import Callable
from functools import cached_property
from typing import Any

import torch
from lightning.pytorch.cli import OptimizerCallable
from peft import PeftConfig, PeftModel
from torch import Tensor, nn
from transformers import PreTrainedModel

from datamodules.batch import IGNORE_INDEX, PromptBatch, ResponseBatch
from datamodules.errors import InputError
from llm_modules.backbone import loading
from llm_modules.backbone.adapters import add_adapter, load_adapter
from llm_modules.backbone.architecture import decoder_of
from llm_modules.backbone.head import OutputHead
from llm_modules.backbone.origin import check_origin, origin_of
from llm_modules.backbone.quantization import Quantization
from llm_modules.backbone.sharding import call_as_forward, data_mesh, shard
from llm_modules.backbone.stored_type import type_to_load, widen
from llm_modules.backbone.vocabulary import check_vocabulary
from llm_modules.generating import Generating
from llm_modules.generation import GenerationSettings
from llm_modules.loss import Likelihood, Loss, completion_loss, likelihoods
from llm_modules.optim.learning_rates import LearningRates, print_groups
from llm_modules.optim.parameter_groups import (
    ParameterGroup,
    arrange_checkpoint,
    group_rows,
    named_groups,
)
from llm_modules.optim.schedules import ScheduleCallable, WarmupCosine
from llm_modules.packing import keeps_documents_apart


class CausalLM(Generating):
    """Fine-tunes any Hugging Face causal language model and generates with it.

    ``fit`` takes ``SupervisedBatch``. ``validate``, ``test`` and ``predict`` take ``PromptBatch`` and return one
    ``Completion`` per row; ``validate`` logs the loss of any other batch. Callbacks take part in generation as
    ``generator.listeners``.

    A method is a subclass that overrides `loss`, which returns a `Loss`, and if need be `configure_model`, `part_of`
    and `rate_of_part` (parts with a learning rate of their own), or `predict_step`.
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
        quantization: Quantization | None = None,
        peft: PeftConfig | None = None,
        adapter: str | None = None,
        activation_checkpointing: bool = False,
        optimizer: OptimizerCallable = torch.optim.AdamW,
        schedule: ScheduleCallable = WarmupCosine,
        generation: GenerationSettings | None = None,
        learning_rates: LearningRates | None = None,
    ) -> None:
        """Keep the settings; ``configure_model`` loads the weights.

        Args:
            backbone: Hub id, folder, GGUF file, or ``miniature`` (embedded).
            revision: Branch, tag or commit of a hub id.
            tokenizer: Hub id or folder of a tokenizer; the backbone's own by default.
            random_weights: Build the model from its configuration, with random weights.
            dtype: Type of the weights. To train in bf16, keep float32 here and set ``trainer.precision``.
            attn_implementation: ``sdpa``, ``eager``, ``flash_attention_2``; transformers chooses by default.
            trust_remote_code: Run code that comes with the checkpoint.
            quantization: ``4bit``, ``8bit``, or a quantisation configuration of transformers; an adapter is trained.
            peft: Any PEFT configuration: trains an adapter and freezes the backbone. All weights are trained without.
            adapter: Folder of a PEFT adapter, to evaluate or to train further.
            activation_checkpointing: Recompute activations in the backward pass; less memory, about a third slower.
            optimizer: Called with the named parameter groups.
            schedule: Called with the optimiser and the number of optimiser steps; stepped at each of them.
            generation: Settings of the generation.
            learning_rates: Learning rates by module; one rate for all modules without it.
        """
        super().__init__(
            backbone=backbone,
            revision=revision,
            tokenizer=tokenizer,
            random_weights=random_weights,
            dtype=dtype,
            attn_implementation=attn_implementation,
            trust_remote_code=trust_remote_code,
            quantization=quantization,
            peft=peft,
            adapter=adapter,
            generation=generation,
        )
        for name, value in {"optimizer": optimizer, "schedule": schedule}.items():
            if not callable(value):
                raise InputError(f"model.{name}: is {value}; name a class, or leave it out for the default")
        self.activation_checkpointing = activation_checkpointing
        self.optimizer = optimizer
        self.schedule = schedule
        self.learning_rates = learning_rates
        if learning_rates is not None:
            learning_rates.check_model(self.model_id)

    @cached_property
    def head(self) -> OutputHead:
        """The output head: last hidden states to logits."""
        return OutputHead(self.language_model)

    def configure_model(self) -> None:
        """Load the backbone, add the adapter, shard. Lightning calls this in every entry point; works once.

        With the engines ``vllm`` and ``server``, runs that only generate load nothing here.
        """
        if self.model is not None or self.is_elsewhere():
            return
        mesh = None if self.device_mesh is None else data_mesh(self.device_mesh)
        dtype = self.weights_dtype
        if mesh is not None and not (self._adds_parts() or self.random_weights or self.quantization):
            dtype = type_to_load(self.backbone, dtype, self.revision, self.trust_remote_code)
        model = loading.load_model(
            self.backbone,
            revision=self.revision,
            dtype=dtype,
            attn_implementation=self.attn_implementation,
            trust_remote_code=self.trust_remote_code,
            random_weights=self.random_weights,
            quantization=self.quantization,
        )
        if self.activation_checkpointing:
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        self.model = self._with_adapter(model)
        check_vocabulary(model, self.tokenizer, self.backbone, self.tokenizer_name)
        self.head.check()
        if self.learning_rates is not None:
            self.learning_rates.freeze(self.model, self.model_id, self.part_of())
        if mesh is not None:
            shard(self.language_model, mesh)
        if dtype != self.weights_dtype:
            widen(self.language_model, torch.float32)

    def on_fit_start(self) -> None:
        """Refuse packed data if the model would let the documents of a row see each other; see the base class."""
        super().on_fit_start()
        if not getattr(getattr(self.trainer, "datamodule", None), "packing", False):
            return
        model = self.language_model
        with self.trainer.precision_plugin.forward_context():
            if not keeps_documents_apart(model):
                raise InputError(
                    f"data.packing: documents of a row would see each other in a model of type "
                    f"{model.config.model_type}; leave packing out (data.max_tokens alone bounds a batch, too)"
                )

    def loss(self, batch: Any) -> Loss:
        """The loss of a training batch: the hook that a method overrides.

        Here it is the cross-entropy of the completion tokens of a ``SupervisedBatch``. A method with one loss per
        request returns ``Loss(losses, per_batch=batch.mean_items)``. The weight of the batch in its epoch and the log
        (``train/<name>``, ``val/<name>``) are the business of `training_step` and `validation_step`.
        """
        model = self.language_model
        decoder = decoder_of(model)
        mean = call_as_forward(model, lambda: completion_loss(decoder, self.head, batch))
        return Loss(mean, (batch.labels[:, 1:] != IGNORE_INDEX).sum(), batch.mean_targets)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Log the batch's `loss` and return its share of the epoch's mean."""
        loss = self.loss(batch)
        loss.log(self.log, "train")
        if loss.tokens is not None:
            self.log("train/tokens", loss.tokens.float(), reduce_fx="sum", on_step=True, on_epoch=False)
        return loss.to_minimise()

    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> Any:
        """Generate for prompts; log the `loss` of any other batch."""
        if isinstance(batch, PromptBatch):
            return self.complete(batch)
        loss = self.loss(batch)
        loss.log(self.log, "val")
        return loss.mean()

    def test_step(self, batch: PromptBatch | ResponseBatch, batch_idx: int, dataloader_idx: int = 0) -> Any:
        """Generate one completion per row; for given responses, return the ``Likelihood`` of each."""
        return self.complete(batch) if isinstance(batch, PromptBatch) else self.likelihoods(batch)

    @torch.no_grad()
    def likelihoods(self, batch: ResponseBatch) -> list[Likelihood]:
        """Likelihoods of the given responses, in order."""
        model = self.language_model
        decoder = decoder_of(model)
        return call_as_forward(model, lambda: likelihoods(decoder, self.head, batch.batch))

    def part_of(self) -> Callable[[nn.Parameter], str]:
        """A function from a trainable parameter to its part; parts may have different learning rates.

        With ``learning_rates`` the parts are ``robust`` and ``rest``; otherwise there is one, ``""``. A method with
        parts of its own overrides this, and `rate_of_part` to scale their rates.
        """
        if self.learning_rates is None:
            return lambda _: ""
        assert self.model is not None
        return self.learning_rates.parts(self.model, self.model_id).of

    def rate_of_part(self, part: str) -> float:
        """Factor of the optimiser's rate for a part; the schedule and ``learning_rates`` multiply the product."""
        return 1.0

    def parameter_groups(self) -> list[ParameterGroup]:
        """The trainable parameters in named groups, one per part and kind of parameter."""
        return named_groups(self.named_parameters(), self.part_of())

    def configure_optimizers(self) -> Any:
        """The optimiser over named groups, and its schedule, multiplied by the factors of ``learning_rates``."""
        groups = self.parameter_groups()
        if not groups:
            raise InputError("model: no weight is trained; give model.peft, which a quantised backbone needs")
        optimizer = self.optimizer(groups)
        for group in optimizer.param_groups:
            group["lr"] *= self.rate_of_part(group["part"])
        steps = int(self.trainer.estimated_stepping_batches)
        rates = self.learning_rates
        make = self.schedule
        schedule = make(optimizer, steps) if rates is None else rates.schedule(make, optimizer, steps)
        if rates is not None and self.trainer.is_global_zero:
            print_groups(optimizer, rates, steps, frozen=[p for p in self.parameters() if not p.requires_grad])
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep what is trained, on what, and a table of its parameter groups."""
        super().on_save_checkpoint(checkpoint)
        checkpoint.update(origin_of(self.model, self.model_id))
        if self.learning_rates is not None and self.trainer.optimizers:
            checkpoint["parameter_groups"] = group_rows(self.trainer.optimizers[0].param_groups)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Check the checkpoint; if training resumes, arrange the optimiser's state by the names of its groups.

        InputError if it holds other parameters, or its adapter was trained with other settings.
        """
        super().on_load_checkpoint(checkpoint)
        check_origin(checkpoint, self.model, self.model_id)
        resumes = self._trainer is not None and self.trainer.state.fn == "fit"
        # Sharded strategies find each parameter's state by its name themselves.
        if resumes and checkpoint.get("optimizer_states") and self.device_mesh is None and self.model is not None:
            arrange_checkpoint(checkpoint, self.parameter_groups())

    def _adds_parts(self) -> bool:
        """Whether `_with_adapter` adds parameters, in a type that follows that of the backbone's weights."""
        return self.adapter is not None or self.peft is not None

    def _with_adapter(self, model: PreTrainedModel) -> PreTrainedModel | PeftModel:
        if self.adapter is not None:
            return load_adapter(model, self.adapter, self.backbone)
        return add_adapter(model, self.peft, "model.peft") if self.peft is not None else model
