"""A callback that computes the direction from a ``predict`` run over contrast pairs."""

import csv
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info

from callbacks.s3cot.figures import plot_direction
from callbacks.trainer_parts import datamodule_of, language_model, log_figure
from datamodules.errors import InputError
from datamodules.prompts.contrast_data import ContrastData
from llm_modules.backbone.architecture import hidden_size, layer_path, num_layers
from llm_modules.backbone.states import ContrastStates
from llm_modules.causal_lm import CausalLM
from llm_modules.s3cot import Direction, DirectionAccumulator


class DirectionWriter(Callback):
    """Writes ``direction.safetensors``, ``.csv`` and ``.png`` from the states of contrast pairs (paper, sec. VL-D).

    One pass over the pairs; memory holds their sums only. Several processes share the pairs.
    """

    def __init__(
        self, output: Path | None = None, consistency: float = 0.9, spool_dir: Path | None = None, notes: str = ""
    ) -> None:
        """Set where the direction goes.

        Args:
            output: The safetensors file; ``direction.safetensors`` in the run folder by default. Table and figure go
                beside it.
            consistency: The anchor is the first layer from which the mean cosine stays above this share of the best
                layer's (ours).
            spool_dir: Folder for single differences during the run; the system's temporary folder by default.
            notes: Text to keep in the file.
        """
        if not 0 < consistency <= 1:
            raise InputError(f"DirectionWriter.consistency: must be above 0 and at most 1, not {consistency}")
        self.output = output
        self.consistency = consistency
        self.spool_dir = spool_dir
        self.notes = notes
        self.direction: Direction | None = None
        self._accumulator: DirectionAccumulator | None = None

    def file(self, trainer: Trainer) -> Path:
        """Return the path of the safetensors file."""
        return self.output or Path(trainer.default_root_dir) / "direction.safetensors"

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Check model and output before any weights are loaded; raise InputError."""
        if stage != "predict":
            return
        language_model(pl_module)
        if self.output is not None and self.output.exists():
            raise InputError(f"DirectionWriter.output: '{self.output}' exists; remove it or name another file")
        if self.spool_dir is not None and not self.spool_dir.is_dir():
            raise InputError(f"DirectionWriter.spool_dir: there is no folder '{self.spool_dir}'")

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start with empty sums."""
        model = language_model(pl_module).language_model
        self._close()
        self._accumulator = DirectionAccumulator(num_layers(model), hidden_size(model), self.spool_dir)

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Add the states of a batch; raise InputError if one is not finite."""
        if not isinstance(outputs, ContrastStates):
            raise InputError(
                "data: DirectionWriter needs contrast pairs of prompts; use ContrastData with the model S3CoT"
            )
        assert self._accumulator is not None
        self._accumulator.update(outputs.positive, outputs.negative)

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the files on process 0."""
        assert self._accumulator is not None
        try:
            direction = self._accumulator.finish(self.consistency, **self._origin(trainer, language_model(pl_module)))
        finally:
            self._close()
        self.direction = direction
        path = self.file(trainer)
        figure = path.with_suffix(".png")
        if trainer.is_global_zero:
            direction.save(path)
            _write_table(direction, path.with_suffix(".csv"))
            plot_direction(direction, figure)
        trainer.strategy.barrier("the direction is written")
        log_figure(trainer, "direction", figure)
        rank_zero_info(f"direction of {direction.n} pairs, anchor layer {direction.anchor}: {path}")

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Free the temporary file."""
        self._close()

    def _close(self) -> None:
        if self._accumulator is not None:
            self._accumulator.close()
        self._accumulator = None

    def _origin(self, trainer: Trainer, module: CausalLM) -> dict[str, Any]:
        """Return the fields of `Direction` that record its origin."""
        model = module.language_model
        positive = negative = ""
        data = datamodule_of(trainer)
        if isinstance(data, ContrastData):
            from_file = data.contrast_file
            positive = f"'positive' in {from_file.name}" if from_file else data.positive
            negative = f"'negative' in {from_file.name}" if from_file else data.negative
        definition = (
            "mean over pairs of h(positive) - h(negative), after each decoder layer, at the prompt's last token"
        )
        return {
            "model": module.model_id,
            "revision": getattr(model.config, "_commit_hash", None) or module.revision,
            "model_type": model.config.model_type,
            "layer_path": layer_path(model),
            "positive": positive,
            "negative": negative,
            "notes": "; ".join(
                part for part in (definition, f"anchor consistency {self.consistency:g}", self.notes) if part
            ),
        }


def _write_table(direction: Direction, path: Path) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["layer", "separation", "cosine", "cosine_variance", "anchor"])
        rows = zip(direction.separation, direction.cosine, direction.cosine_variance, strict=True)
        for layer, (separation, cosine, variance) in enumerate(rows):
            anchor = int(layer == direction.anchor)
            writer.writerow([layer, f"{separation:.6g}", f"{cosine:.6f}", f"{variance:.6g}", anchor])
