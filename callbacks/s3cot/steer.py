"""Steering as something that happens around a run: each row of a batch by its own strength, in its own layers."""

import math
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from transformers import PreTrainedModel

from datamodules.batch import PromptBatch, ResponseBatch
from datamodules.errors import InputError
from datamodules.prompts.prompt_data import GenerationData
from llm_modules.backbone.architecture import hidden_size, num_layers
from llm_modules.causal_lm import CausalLM
from llm_modules.s3cot.direction import Direction, random_like
from llm_modules.s3cot.formats import read_direction
from llm_modules.s3cot.layers import layer_indicator, select_layers
from llm_modules.s3cot.steering import Positions, Steering


class Steer(Callback):
    """Steers what ``predict``, ``validate`` and ``test`` generate (paper, "self-sampling").

    The strength ``alpha`` and the layer set are those of each row of a ``PromptBatch``; rows of one batch may differ in
    both, and a row of alpha 0 is the model's own answer, bit for bit. A direction points from short to long, so that a
    negative alpha shortens. The model is as it was when the run has ended, also by an exception.
    """

    def __init__(
        self,
        direction: Path,
        positions: Positions = "all",
        layers: str = "anchor:5",
        random: bool = False,
        allow_other_model: bool = False,
    ) -> None:
        """Say what to add, and where; the file is read in ``setup``.

        Args:
            direction: File of a direction: this project's, or one of ``direction.N`` vectors (safetensors, GGUF).
            positions: ``all`` (paper), or only those of the ``prompt``, its ``last`` token, or only ``generated`` ones.
            layers: The layer set of rows that name none, such as ``anchor:5``, ``separated:4``, ``all`` or ``3,5-8``.
            random: Steer by random vectors of the same length instead, drawn by ``data.seed``: the control.
            allow_other_model: Steer by a direction of another model of the same shape, such as its base.
        """
        self.direction_file = direction
        self.positions = positions
        self.default_layers = layers
        self.random = random
        self.allow_other_model = allow_other_model
        self.direction: Direction | None = None
        self._steering: Steering | None = None
        self._seed = 0
        self._stack = ExitStack()

    def layers_of(self, layer_set: str) -> tuple[int, ...]:
        """The layers that a row's layer set means; the callback's own for the empty string."""
        return select_layers(layer_set or self.default_layers, self._direction())

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Read the direction and compare it with the model's name, before any weights are loaded.

        Raises:
            InputError: The file is no direction, or another model's; a row's strength or layers are impossible.
        """
        data = getattr(trainer, "datamodule", None)
        self._seed = getattr(data, "seed", 0)
        direction = self._load(_language_model(pl_module))
        if getattr(data, "responses", ()) and self.positions != "all":
            raise InputError(
                f"positions: given responses have no positions '{self.positions}', those of the prompt and of the "
                "answer are read at once; leave suites of kind perplexity out, or steer all positions"
            )
        # A direction of this project has all of the model's layers, another file perhaps only the first of them.
        if direction.model and isinstance(data, GenerationData):
            for layer_set in {row.layer_set for row in data.rows if row.alpha != 0}:
                self.layers_of(layer_set)

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Attach to the model and its generator."""
        self._attach(_language_model(pl_module))

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """As ``on_predict_start``."""
        self._attach(_language_model(pl_module))

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """As ``on_predict_start``."""
        self._attach(_language_model(pl_module))

    def on_predict_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Give each row its strengths."""
        self._set_strengths(batch)

    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Give each row its strengths."""
        self._set_strengths(batch)

    def on_test_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Give each row its strengths."""
        self._set_strengths(batch)

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave the model as it was."""
        self._stack.close()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave the model as it was."""
        self._stack.close()

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave the model as it was."""
        self._stack.close()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Leave the model as it was."""
        self._stack.close()

    def _direction(self) -> Direction:
        if self.direction is None:
            raise RuntimeError("the direction is not read yet: setup has not run")
        return self.direction

    def _load(self, module: CausalLM, model: PreTrainedModel | None = None) -> Direction:
        """Read the direction and check it against the module, and against the model where that is there already."""
        layers, hidden = (num_layers(model), hidden_size(model)) if model is not None else (None, None)
        direction = read_direction(self.direction_file, layers)
        direction.check(
            model_id=module.model_id, layers=layers, hidden=hidden, allow_other_model=self.allow_other_model
        )
        self.direction = random_like(direction, self._seed) if self.random else direction
        return self.direction

    def _attach(self, module: CausalLM) -> None:
        self._stack.close()
        model = module.language_model
        direction = self._load(module, model)
        self._steering = self._stack.enter_context(Steering(model, direction.vectors, self.positions))
        listeners = module.generator.listeners
        listeners.append(self._steering)
        self._stack.callback(listeners.remove, self._steering)

    def _set_strengths(self, batch: Any) -> None:
        if isinstance(batch, PromptBatch):
            rows = [(row.id, row.alpha, row.layer_set) for row in batch.rows]
        elif isinstance(batch, ResponseBatch):
            rows = [(name, batch.alpha, batch.layer_set) for name in batch.ids]
        else:
            return
        if self._steering is None:
            return
        for name, alpha, _ in rows:
            if not math.isfinite(alpha):
                raise InputError(f"alpha: the strength of row '{name}' is {alpha}; give a finite number")
        sets = ["" if alpha == 0 else layer_set or self.default_layers for _, alpha, layer_set in rows]
        alphas = torch.tensor([alpha for _, alpha, _ in rows])
        self._steering.set_strengths(alphas[:, None] * layer_indicator(sets, self._direction()))


def _language_model(module: LightningModule) -> CausalLM:
    if not isinstance(module, CausalLM):
        raise InputError(f"model: {type(module).__name__} generates nothing that could be steered; use S3CoT")
    return module
