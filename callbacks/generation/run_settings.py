"""Settings that completions depend on; recorded beside them and compared before a run resumes."""

import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lightning.pytorch import Trainer

from callbacks.generation.steering import SteeringIdentity, steering_of
from callbacks.trainer_parts import datamodule_of
from datamodules.prompts import ChatTemplate
from llm_modules.backbone.checksums import fingerprint
from llm_modules.causal_lm import CausalLM
from llm_modules.generation.engine import engine_version, weights_type
from llm_modules.generation.vllm_engine import engine_options

RECORDED = {"engine_version", "chat_template_kwargs"}
"""Settings that are recorded and not compared when a run resumes; of a template, the prompts are compared."""
FINGERPRINT = "_fingerprint"
"""End of the name of a fingerprint, which older records lack."""
_PATHS = ("model", "adapter", "checkpoint", "glad", "unwilling", "folder", "direction", "probes")
"""Settings that may be paths, those of methods too; what else is written like one is a text."""
FORMERLY = {"engine": "slots", "engine_options": None}
"""Values of settings that older records lack."""


def generation_settings(trainer: Trainer, module: CausalLM) -> dict[str, Any]:
    """Every setting that the completion of a given prompt depends on, as plain values; not slots and processes."""
    steering = steering_of(trainer)
    generation = asdict(module.generation)
    for name in ("slots", "engine", "vllm", "server"):
        generation.pop(name)
    return {
        "model": module.model_id,
        "revision": module.revision,
        "dtype": weights_type(module.engine, module.generation, module.weights_dtype),
        "adapter": str(Path(module.adapter).resolve()) if module.adapter else None,
        "checkpoint": str(Path(trainer.ckpt_path).resolve()) if trainer.ckpt_path else None,
        "precision": str(trainer.precision),
        "generation": generation,
        "engine": module.engine,
        "engine_version": engine_version(module.engine, module.generation),
        "engine_options": (engine_options(module.generation) or None) if module.engine == "vllm" else None,
        "chat_template_kwargs": dict(getattr(datamodule_of(trainer), "chat_template", ChatTemplate()).kwargs),
        "method": module.generation_identity() or None,
        **asdict(steering.identity() if steering else SteeringIdentity()),
        "seed": getattr(datamodule_of(trainer), "seed", None),
    }


def fingerprints(settings: Mapping[str, Any]) -> dict[str, str]:
    """Those of the folders and files that settings name, to be recorded beside them."""
    named = {**settings, **(settings["method"] or {})}
    paths = {name: Path(named[name]) for name in _PATHS if os.path.isabs(named.get(name) or "")}
    return {name + FINGERPRINT: fingerprint(path) for name, path in paths.items() if path.exists()}
