"""What decides on the text of completions, and who made them: for the records beside generated files."""

import hashlib
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from lightning.pytorch import Trainer

from callbacks.s3cot.steer import Steer
from callbacks.trainer_parts import callbacks_of, datamodule_of
from llm_modules.causal_lm import CausalLM


def generation_settings(trainer: Trainer, module: CausalLM) -> dict[str, Any]:
    """Everything on which completions of the same prompt depend, as plain values.

    How many rows are decoded together is not among it, nor the number of processes.
    """
    steer = steering_of(trainer)
    generation = asdict(module.generation)
    generation.pop("slots", None)
    return {
        "model": module.model_id,
        "revision": module.revision,
        "dtype": module.weights_dtype,
        "adapter": str(Path(module.adapter).resolve()) if module.adapter else None,
        "checkpoint": str(Path(trainer.ckpt_path).resolve()) if trainer.ckpt_path else None,
        "precision": str(trainer.precision),
        "generation": generation,
        "method": module.generation_identity() or None,
        "direction": _sha256(steer.direction_file) if steer else None,
        "positions": steer.positions if steer else None,
        "layers": steer.default_layers if steer else None,
        "random_direction": steer.random if steer else None,
        "seed": getattr(datamodule_of(trainer), "seed", None),
    }


def steering_of(trainer: Trainer) -> Steer | None:
    """The callback that steers this run, if there is one."""
    return next((callback for callback in callbacks_of(trainer) if isinstance(callback, Steer)), None)


def library_versions() -> dict[str, str]:
    """Versions of what the numbers come from."""
    return {name: version(name) for name in ("torch", "lightning", "transformers", "peft")}


def _sha256(path: Path) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()
