"""The LightningModule that every method builds on: a causal language model, its loss, its generation, its optimiser."""

from collections.abc import Callable
from functools import cached_property
from typing import Any, Literal, cast

import torch
from lightning.pytorch.cli import OptimizerCallable
from peft import PeftConfig, PeftModel
from rich.console import Console
from torch import Tensor, nn
from torch.optim import Optimizer
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from datamodules.batch import IGNORE_INDEX, PromptBatch, ResponseBatch
from datamodules.errors import InputError
from llm_modules.backbone import loading
from llm_modules.backbone.adapters import add_adapter
from llm_modules.backbone.checkpoint import TrainableCheckpoint
from llm_modules.backbone.head import OutputHead
from llm_modules.backbone.sharding import call_as_forward, shard
from llm_modules.generation import Completion, GenerationSettings, Generator
from llm_modules.loss import Likelihood, Loss, completion_loss, row_losses
from llm_modules.optim.learning_rates import LearningRates, multiplier
from llm_modules.optim.parameter_groups import (
    ParameterGroup,
    arranged_by_name,
    group_rows,
    group_table,
    named_groups,
    stored_order,
)
from llm_modules.optim.schedules import Multiplied, ScheduleCallable, WarmupCosine, arranged_schedule


class CausalLM(TrainableCheckpoint):
    """Supervised fine-tuning of, and batched generation by, any Hugging Face causal language model.

    ``fit`` takes ``SupervisedBatch``; ``validate``, ``test`` and ``predict`` take ``PromptBatch`` and give one
    ``Completion`` a row (a ``SupervisedBatch`` in validation gives the loss). Callbacks follow generation through
    ``generator.listeners``.
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
        schedule: ScheduleCallable = WarmupCosine,
        generation: GenerationSettings | None = None,
        learning_rates: LearningRates | None = None,
    ) -> None:
        """Describe the model; weights are loaded in ``configure_model``.

        Args:
            backbone: Hub id, folder, or ``miniature`` (embedded).
            revision: Branch, tag or commit of a hub id.
            tokenizer: Hub id or folder of another tokenizer; the backbone's own by default.
            random_weights: Start from the backbone's configuration with random weights.
            dtype: Of the weights. Keep float32 for what is trained and set ``trainer.precision``.
            attn_implementation: ``sdpa``, ``eager``, ``flash_attention_2``; transformers chooses by default.
            trust_remote_code: Run code that comes with the checkpoint.
            peft: Any PEFT configuration; the backbone is then frozen and the adapter trained. Full tuning without it.
            adapter: A PEFT folder to put on the backbone: evaluated, or trained further.
            activation_checkpointing: Recompute activations in the backward pass; less memory, about a third slower.
            optimizer: Made from the named parameter groups.
            schedule: Made from the optimiser and the number of optimiser steps; stepped each step.
            generation: How completions are generated.
            learning_rates: Shares of the rate for different modules (ML-LR); one rate for all without it.
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
        self.peft = peft
        self.adapter = adapter
        self.activation_checkpointing = activation_checkpointing
        self.optimizer = optimizer
        self.schedule = schedule
        self.generation = generation or GenerationSettings()
        self.learning_rates = learning_rates
        if learning_rates is not None:
            learning_rates.check_model(self.model_id)
        self.model: PreTrainedModel | PeftModel | None = None

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The tokenizer; loads without the weights, so that a DataModule can check its input first."""
        return loading.load_tokenizer(self.tokenizer_name, self.revision, self.trust_remote_code)

    @cached_property
    def max_positions(self) -> int | None:
        """Tokens that the model can take; known without the weights, so that prompts can be checked first."""
        return loading.max_positions(self.backbone, self.revision, self.trust_remote_code)

    @property
    def model_id(self) -> str:
        """Name of the backbone in records and files."""
        return loading.model_id(self.backbone)

    @property
    def language_model(self) -> PreTrainedModel:
        """The Hugging Face model itself, inside of any adapter wrapper.

        Raises:
            RuntimeError: ``configure_model`` has not run.
        """
        if self.model is None:
            raise RuntimeError("the model is not loaded yet: call configure_model first")
        inner = self.model.get_base_model() if isinstance(self.model, PeftModel) else self.model
        return cast(PreTrainedModel, inner)

    @cached_property
    def head(self) -> OutputHead:
        """From last hidden states to logits."""
        return OutputHead(self.language_model)

    @cached_property
    def generator(self) -> Generator:
        """The engine that generates; lives as long as the module, so that listeners can be added once."""
        return Generator(
            self.language_model,
            self.generation,
            pad_id=self._pad_id(),
            eos_ids=self._eos_ids(),
            synced=self.device_mesh is not None,
        )

    def configure_model(self) -> None:
        """Load the backbone, put the adapter on, shard. Called by Lightning for every entry point; works once."""
        if self.model is not None:
            return
        model = loading.load_model(
            self.backbone,
            revision=self.revision,
            dtype=self.weights_dtype,
            attn_implementation=self.attn_implementation,
            trust_remote_code=self.trust_remote_code,
            random_weights=self.random_weights,
        )
        self._check_vocabulary(model)
        if self.activation_checkpointing:
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        self.model = self._with_adapter(model)
        self.head.check()
        if self.learning_rates is not None:
            self.learning_rates.freeze(self.model, self.model_id)
        if self.device_mesh is not None:
            shard(self.language_model, self.device_mesh["data_parallel"])

    def loss(self, batch: Any) -> Loss:
        """The loss of a training batch: the hook that a method overrides.

        `training_step` and `validation_step` do the rest, once for all methods: the weight of the batch in its epoch,
        and the log, as ``train/<name>`` and ``val/<name>``. Here it is the cross-entropy of the completion tokens of a
        ``SupervisedBatch``. A method with one loss per request returns ``Loss(losses, per_batch=batch.mean_items)``.
        """
        model = self.language_model
        decoder: nn.Module = model.get_decoder()
        mean = call_as_forward(model, lambda: completion_loss(decoder, self.head, batch))
        return Loss(mean, (batch.labels[:, 1:] != IGNORE_INDEX).sum(), batch.mean_targets)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Log the batch's `loss` and return its share of the epoch's mean."""
        loss = self.loss(batch)
        self._log_loss("train", loss)
        if loss.tokens is not None:
            self.log("train/tokens", loss.tokens.float(), reduce_fx="sum", on_step=True, on_epoch=False)
        return loss.to_minimise()

    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> Any:
        """Generate for prompts; log the `loss` of any other batch."""
        if isinstance(batch, PromptBatch):
            return self.complete(batch)
        loss = self.loss(batch)
        self._log_loss("val", loss)
        return loss.mean()

    def test_step(self, batch: PromptBatch | ResponseBatch, batch_idx: int, dataloader_idx: int = 0) -> Any:
        """Generate one completion a row; of given responses, the ``Likelihood`` of each."""
        return self.complete(batch) if isinstance(batch, PromptBatch) else self.likelihoods(batch)

    def predict_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> Any:
        """Generate one completion a row."""
        return self.complete(batch)

    def complete(self, batch: PromptBatch) -> list[Completion]:
        """One completion for each row of the batch, in its order; each row samples with its own seed."""
        budget = self.generator.settings.max_new_tokens
        return self.generator.generate(
            [row.token_ids for row in batch.rows],
            [row.seed for row in batch.rows],
            [row.max_new_tokens or budget for row in batch.rows],
        )

    @torch.no_grad()
    def likelihoods(self, batch: ResponseBatch) -> list[Likelihood]:
        """How likely the model finds each given response, in the order of the batch."""
        model = self.language_model
        decoder: nn.Module = model.get_decoder()
        losses = call_as_forward(model, lambda: row_losses(decoder, self.head, batch.batch, reduction="sum"))
        tokens = (batch.batch.labels[:, 1:] != IGNORE_INDEX).sum(dim=1)
        return [Likelihood(nll=nll, n_tokens=n) for nll, n in zip(losses.tolist(), tokens.tolist(), strict=True)]

    def part_of(self) -> Callable[[nn.Parameter], str]:
        """What tells the part of a trainable parameter, the part being what has a learning rate of its own.

        With ``learning_rates`` parts are ``robust`` and ``rest``; otherwise there is one, ``""``. A method with parts
        of its own overrides this, and `rate_of_part` to scale their rates.
        """
        if self.learning_rates is None:
            return lambda _: ""
        assert self.model is not None
        return self.learning_rates.parts(self.model, self.model_id).of

    def rate_of_part(self, part: str) -> float:
        """What the optimiser's rate is multiplied by for a part, before any schedule and ``learning_rates``."""
        return 1.0

    def parameter_groups(self) -> list[ParameterGroup]:
        """The trainable parameters in named groups, one for each part and kind of parameter."""
        return named_groups(self.named_parameters(), self.part_of())

    def generation_identity(self) -> dict[str, Any]:
        """What completions depend on besides model, adapter and generation settings, as plain values for the record."""
        return {}

    def configure_optimizers(self) -> Any:
        """The optimiser over named groups, and the schedule stepped with it, multiplied for each group."""
        optimizer = self.optimizer(self.parameter_groups())
        for group in optimizer.param_groups:
            group["lr"] *= self.rate_of_part(group["part"])
        steps = int(self.trainer.estimated_stepping_batches)
        rates = self.learning_rates
        if rates is not None:
            rates.check_visible(optimizer)
        schedule = self.schedule(optimizer, steps)
        if rates is not None:
            self._show_groups(optimizer, rates, steps)
            schedule = Multiplied(schedule, multiplier(rates, steps))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """What is trained, and in which groups."""
        super().on_save_checkpoint(checkpoint)
        if self.learning_rates is not None and self.trainer.optimizers:
            checkpoint["parameter_groups"] = group_rows(self.trainer.optimizers[0].param_groups)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Check the checkpoint; where training goes on, arrange the optimiser's state by the names of its groups."""
        super().on_load_checkpoint(checkpoint)
        goes_on = self._trainer is not None and self.trainer.state.fn == "fit"
        # Sharded strategies find each parameter's state by its name themselves.
        if goes_on and checkpoint.get("optimizer_states") and self.device_mesh is None and self.model is not None:
            groups, (optimizer,) = self.parameter_groups(), checkpoint["optimizer_states"]
            order = stored_order(optimizer, groups)
            checkpoint["optimizer_states"] = [arranged_by_name(optimizer, groups)]
            checkpoint["lr_schedulers"] = [arranged_schedule(state, order) for state in checkpoint["lr_schedulers"]]

    def _show_groups(self, optimizer: Optimizer, rates: LearningRates, steps: int) -> None:
        assert self.model is not None
        shares = [[rates.lr_mult(g["part"], step, steps) for step in (0, steps)] for g in optimizer.param_groups]
        frozen = sum(p.numel() for p in self.model.parameters() if not p.requires_grad)
        if self.trainer.is_global_zero:
            rows = group_rows(optimizer.param_groups)
            Console(stderr=True).print(group_table(rows, [(first, last) for first, last in shares], frozen))

    def _log_loss(self, phase: Literal["train", "val"], loss: Loss) -> None:
        values = {"loss": loss.mean()} | {name: value.mean() for name, value in (loss.logged | loss.local).items()}
        for name, value in values.items():
            self.log(
                f"{phase}/{name}",
                value.detach(),
                prog_bar=name == "loss",
                # Logged at every step in training, where a batch's size does not matter and counting tokens would wait.
                batch_size=max(1, loss.count) if phase == "val" else 1,
                # Other processes would wait for a value that this batch lacks.
                sync_dist=phase == "val" and name not in loss.local,
                add_dataloader_idx=False,
            )

    def _with_adapter(self, model: PreTrainedModel) -> PreTrainedModel | PeftModel:
        if self.adapter is not None:
            try:
                return PeftModel.from_pretrained(model, self.adapter, is_trainable=True)
            except (OSError, ValueError, RuntimeError) as error:
                raise InputError(f"model.adapter: '{self.adapter}' does not fit '{self.backbone}': {error}") from error
        if self.peft is None:
            return model
        return add_adapter(model, self.peft, "model.peft")

    def _check_vocabulary(self, model: PreTrainedModel) -> None:
        rows = cast(nn.Embedding, model.get_input_embeddings()).num_embeddings
        token, top = max(self.tokenizer.get_vocab().items(), key=lambda item: item[1])
        if top >= rows:
            raise InputError(
                f"model.tokenizer: '{self.tokenizer_name}' has token {token!r} with id {top}, and the model "
                f"'{self.backbone}' knows ids below {rows}; use the tokenizer that came with the checkpoint"
            )

    def _eos_ids(self) -> set[int]:
        """All ids that end a completion: the generation config may know more than the tokenizer (Llama 3, Qwen)."""
        configured = self.language_model.generation_config.eos_token_id
        ids = set(configured if isinstance(configured, list) else [configured]) | {self.tokenizer.eos_token_id}
        ids.discard(None)
        if not ids:
            raise InputError(
                f"model.tokenizer: '{self.tokenizer_name}' has no end-of-sequence token, so no completion would end"
            )
        return ids

    def _pad_id(self) -> int:
        pad = self.tokenizer.pad_token_id
        return int(pad if pad is not None else min(self._eos_ids()))
