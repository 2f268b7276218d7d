"""The LightningModule that every method extends."""

from collections.abc import Callable
from functools import cached_property
from typing import Any, ClassVar, cast

import torch
from lightning.pytorch.cli import OptimizerCallable
from peft import PeftConfig, PeftModel
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from datamodules.batch import IGNORE_INDEX, PromptBatch, ResponseBatch
from datamodules.errors import InputError
from llm_modules.backbone import loading
from llm_modules.backbone.adapters import add_adapter, load_adapter
from llm_modules.backbone.architecture import decoder_of
from llm_modules.backbone.checkpoint import TrainableCheckpoint
from llm_modules.backbone.head import OutputHead
from llm_modules.backbone.origin import check_origin, origin_of
from llm_modules.backbone.quantization import Quantization
from llm_modules.backbone.sharding import call_as_forward, data_mesh, shard
from llm_modules.backbone.vocabulary import check_vocabulary, padding_id, required_end_ids
from llm_modules.generation import Completion, EngineName, GenerationEngine, GenerationSettings
from llm_modules.generation.choice import check_engine, fitting_engine, make_engine
from llm_modules.generation.vllm_engine import VllmGenerator
from llm_modules.generation.vllm_model import VllmModel, vllm_model
from llm_modules.loss import Likelihood, Loss, completion_loss, likelihoods
from llm_modules.optim.learning_rates import LearningRates, print_groups
from llm_modules.optim.parameter_groups import (
    ParameterGroup,
    arrange_checkpoint,
    group_rows,
    named_groups,
)
from llm_modules.optim.schedules import ScheduleCallable, WarmupCosine


class CausalLM(TrainableCheckpoint):
    """Fine-tunes any Hugging Face causal language model and generates with it.

    ``fit`` takes ``SupervisedBatch``. ``validate``, ``test`` and ``predict`` take ``PromptBatch`` and return one
    ``Completion`` per row; ``validate`` logs the loss of any other batch. Callbacks take part in generation as
    ``generator.listeners``.

    A method is a subclass that overrides `loss`, which returns a `Loss`, and if need be `configure_model`, `part_of`
    and `rate_of_part` (parts with a learning rate of their own), or `predict_step`.

    Attributes:
        engines: The engines that can generate for the class.
    """

    engines: ClassVar[tuple[EngineName, ...]] = ("slots", "transformers", "vllm")

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
        super().__init__()
        if peft is not None and adapter is not None:
            raise InputError("model.peft and model.adapter: give one, a new adapter to train or a folder with one")
        self.backbone = backbone
        self.revision = revision
        self.tokenizer_name = tokenizer or backbone
        self.random_weights = random_weights
        self.weights_dtype = dtype
        self.attn_implementation = attn_implementation
        self.trust_remote_code = trust_remote_code
        self.quantization = quantization
        self.peft = peft
        self.adapter = adapter
        self.activation_checkpointing = activation_checkpointing
        self.optimizer = optimizer
        self.schedule = schedule
        self.generation = generation or GenerationSettings()
        check_engine(self.generation.engine, self.engines, type(self).__name__)
        self.learning_rates = learning_rates
        if learning_rates is not None:
            learning_rates.check_model(self.model_id)
        self.model: PreTrainedModel | PeftModel | None = None
        self.vllm_model: VllmModel | None = None

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The tokenizer; needs no weights, so a DataModule can check its input first."""
        return loading.load_tokenizer(self.tokenizer_name, self.revision, self.trust_remote_code)

    @cached_property
    def max_positions(self) -> int | None:
        """Longest input in tokens; needs no weights, so prompts can be checked first."""
        return loading.max_positions(self.backbone, self.revision, self.trust_remote_code)

    @property
    def model_id(self) -> str:
        """Name of the backbone in records and files."""
        return loading.model_id(self.backbone)

    @property
    def language_model(self) -> PreTrainedModel:
        """The Hugging Face model inside any adapter wrapper. RuntimeError if ``configure_model`` has not run.

        InputError if its weights are in a process of vLLM.
        """
        if self.vllm_model is not None:
            raise InputError(
                "model.generation.engine: vllm holds the weights in a process of its own, and this run needs more of "
                "the model than its completions; use slots"
            )
        if self.model is None:
            raise RuntimeError("the model is not loaded yet: call configure_model first")
        inner = self.model.get_base_model() if isinstance(self.model, PeftModel) else self.model
        return cast(PreTrainedModel, inner)

    @property
    def outline(self) -> PreTrainedModel:
        """The language model, to read its shape; where vLLM holds the weights, the same modules without them."""
        return self.language_model if self.vllm_model is None else self._without_weights

    @cached_property
    def _without_weights(self) -> PreTrainedModel:
        return loading.without_weights(self.backbone, self.revision, self.trust_remote_code)

    @cached_property
    def eos_ids(self) -> set[int]:
        """Ids of the tokens that end a completion."""
        return required_end_ids(self.outline, self.tokenizer, self.tokenizer_name)

    @property
    def pad_id(self) -> int:
        """Id of the token that fills up prompts."""
        return padding_id(self.outline, self.tokenizer)

    @cached_property
    def head(self) -> OutputHead:
        """The output head: last hidden states to logits."""
        return OutputHead(self.language_model)

    @cached_property
    def engine(self) -> EngineName:
        """The engine that generates: that of the settings, or ``transformers`` for a family that takes no cache.

        Needs no weights, so records of settings can name it. InputError if the class cannot generate with it.
        """
        if self.generation.engine != "slots":
            return self.generation.engine
        family = loading.read_config(self.backbone, self.revision, self.trust_remote_code).model_type
        return fitting_engine(family, self.engines, type(self).__name__)

    @cached_property
    def generator(self) -> GenerationEngine:
        """The generation engine; one for the life of the module, so that listeners are added once."""
        if self.vllm_model is not None:
            return VllmGenerator(
                self.vllm_model,
                self.outline,
                self.generation,
                pad_id=self.pad_id,
                eos_ids=self.eos_ids,
                device=self.device,
            )
        return make_engine(
            self.engine,
            self.language_model,
            self.generation,
            pad_id=self.pad_id,
            eos_ids=self.eos_ids,
            synced=self.device_mesh is not None,
        )

    def configure_model(self) -> None:
        """Load the backbone, add the adapter, shard. Lightning calls this in every entry point; works once.

        With the engine ``vllm``, runs that only generate load nothing here: vLLM does, once there is a prompt.
        """
        if self.model is not None or self.vllm_model is not None:
            return
        if self.engine == "vllm" and self._trainer is not None and self.trainer.state.fn != "fit":
            self.vllm_model = self._for_vllm()
            check_vocabulary(self.outline, self.tokenizer, self.backbone, self.tokenizer_name)
            return
        mesh = None if self.device_mesh is None else data_mesh(self.device_mesh)
        model = loading.load_model(
            self.backbone,
            revision=self.revision,
            dtype=self.weights_dtype,
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

    def predict_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> Any:
        """Generate one completion per row."""
        return self.complete(batch)

    def complete(self, batch: PromptBatch) -> list[Completion]:
        """Completions of the rows of the batch, in order; each row samples with its own seed."""
        budget = self.generator.settings.max_new_tokens
        return self.generator.generate(
            [row.token_ids for row in batch.rows],
            [row.seed for row in batch.rows],
            [row.max_new_tokens or budget for row in batch.rows],
        )

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

    def generation_identity(self) -> dict[str, Any]:
        """Further settings that completions depend on, besides model, adapter and generation; plain values."""
        return {}

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

    def teardown(self, stage: str) -> None:
        """End vLLM, if it runs."""
        generator = self.__dict__.get("generator")
        if isinstance(generator, GenerationEngine):
            generator.close()

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

    def _for_vllm(self) -> VllmModel:
        refused = {
            "model.random_weights: vLLM loads weights from files": self.random_weights,
            "model.quantization: vLLM has its own, model.generation.vllm.options.quantization": self.quantization,
            "model.peft: an adapter that is not trained; leave it out": self.peft,
            "model.attn_implementation: vLLM has its own; leave it out": self.attn_implementation,
            "ckpt_path: vLLM loads folders; 'rod export' writes one for model.backbone": self.trainer.ckpt_path,
            "trainer.precision: vLLM computes in model.dtype; set that one": self.trainer.precision != "32-true",
            "trainer.strategy: vLLM loads the whole model in each process; use ddp": self.device_mesh is not None,
        }
        return vllm_model(
            self.backbone,
            loading.read_config(self.backbone, self.revision, self.trust_remote_code),
            revision=self.revision,
            dtype=self.weights_dtype,
            trust_remote_code=self.trust_remote_code,
            adapter=self.adapter,
            refused=[reason for reason, given in refused.items() if given],
        )

    def _with_adapter(self, model: PreTrainedModel) -> PreTrainedModel | PeftModel:
        if self.adapter is not None:
            return load_adapter(model, self.adapter, self.backbone)
        return add_adapter(model, self.peft, "model.peft") if self.peft is not None else model
