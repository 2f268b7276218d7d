"""A callback that steers generation: each row of a batch by its own strength, in its own layers."""

import hashlib
import math
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn
from transformers import PreTrainedModel

from callbacks.generation.steering import SteeringCallback, SteeringIdentity
from callbacks.trainer_parts import datamodule_of, language_model
from datamodules.batch import PromptBatch, ResponseBatch
from datamodules.errors import InputError
from datamodules.prompts.prompt_data import GenerationData
from llm_modules.backbone.architecture import hidden_size, num_layers
from llm_modules.causal_lm import CausalLM
from llm_modules.s3cot import (
    Direction,
    Positions,
    RemoteSteering,
    Steering,
    layer_indicator,
    random_like,
    read_direction,
    select_layers,
)


class Steer(SteeringCallback):
    """Steers what ``predict``, ``validate`` and ``test`` generate (paper, "self-sampling").

    Each row of a `PromptBatch` has its own strength (``alpha``) and layer set. A row of alpha 0 is the model's own
    answer, bit for bit. A direction points from short to long answers, so a negative alpha shortens. When the run ends,
    also by an exception, the model is as it was before.
    """

    def __init__(
        self,
        direction: Path,
        positions: Positions = "all",
        layers: str = "anchor:5",
        random: bool = False,
        allow_other_model: bool = False,
    ) -> None:
        """Set what to add and where; the file is read in ``setup``.

        Args:
            direction: File of a direction: one of this project, or vectors named ``direction.N`` (safetensors, GGUF).
            positions: Tokens to steer: ``all`` (paper), those of the ``prompt``, its ``last`` one, or the ``generated``
                ones.
            layers: Layer set of rows that name none, such as ``anchor:5``, ``separated:4``, ``all`` or ``3,5-8``.
            random: Control: steer by random vectors of the same length, drawn with ``data.seed``.
            allow_other_model: Accept a direction of another model of the same shape, such as the base of a tuned one.
        """
        self.direction_file = direction
        self.positions = positions
        self.default_layers = layers
        self.random = random
        self.allow_other_model = allow_other_model
        self.direction: Direction | None = None
        self._steering: Steering | RemoteSteering | None = None
        self._seed = 0
        self._stack = ExitStack()

    def layers_of(self, layer_set: str) -> tuple[int, ...]:
        """Return the layers that a row's layer set stands for; the empty string means the callback's own set."""
        return select_layers(layer_set or self.default_layers, self._direction())

    def identity(self) -> SteeringIdentity:
        """Return the values recorded beside completions."""
        digest = hashlib.sha256(Path(self.direction_file).read_bytes()).hexdigest()
        return SteeringIdentity(digest, self.positions, self.default_layers, self.random)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Read the direction and check that it belongs to the model, before any weights are loaded.

        InputError if the file is no direction or belongs to another model, a row's layer set is impossible, or the data
        hold given responses and ``positions`` is not ``all``.
        """
        data = datamodule_of(trainer)
        self._seed = getattr(data, "seed", 0)
        direction = self._load(language_model(pl_module))
        if getattr(data, "responses", ()) and self.positions != "all":
            raise InputError(
                f"positions: given responses have no positions '{self.positions}': their prompt and answer are read in "
                "one pass; leave out suites of kind perplexity, or steer all positions"
            )
        if isinstance(data, GenerationData) and data.rows and not any(row.alpha for row in data.rows):
            key = "data.alphas" if stage == "predict" else "data.alpha"
            rank_zero_warn(f"steer: no row is steered, because {key} is 0; give a strength or no direction")
        # An imported file may hold only some of the layers, so its layer sets are checked against the model later.
        if direction.model and isinstance(data, GenerationData):
            for layer_set in {row.layer_set for row in data.rows if row.alpha != 0}:
                self.layers_of(layer_set)

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Attach to the model and its generator."""
        self._attach(language_model(pl_module))

    def on_predict_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Set the strengths of the rows of the batch."""
        self._set_strengths(batch)

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Remove the steering."""
        self._stack.close()

    on_validation_start = on_test_start = on_predict_start
    on_validation_batch_start = on_test_batch_start = on_predict_batch_start
    on_validation_end = on_test_end = on_predict_end

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Remove the steering."""
        self._stack.close()

    def _direction(self) -> Direction:
        if self.direction is None:
            raise RuntimeError("the direction is not loaded yet: setup has not run")
        return self.direction

    def _load(self, module: CausalLM, model: PreTrainedModel | None = None) -> Direction:
        """Read the direction; check the module's name, and the shape once the model is loaded."""
        layers, hidden = (num_layers(model), hidden_size(model)) if model is not None else (None, None)
        direction = read_direction(self.direction_file, layers)
        direction.check(
            model_id=module.model_id, layers=layers, hidden=hidden, allow_other_model=self.allow_other_model
        )
        self.direction = random_like(direction, self._seed) if self.random else direction
        return self.direction

    def _attach(self, module: CausalLM) -> None:
        self._stack.close()
        direction = self._load(module, module.outline)
        steering: Steering | RemoteSteering
        if module.remote_model is None:
            steering = Steering(module.outline, direction.vectors, self.positions)
        else:
            steering = RemoteSteering(module.outline, direction.vectors, self.positions)
        self._stack.enter_context(steering)
        listeners = module.generator.listeners
        listeners.append(steering)
        self._stack.callback(listeners.remove, steering)
        self._steering = steering

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
