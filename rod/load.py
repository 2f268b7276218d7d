"""Load a trained module from its run folder, without a trainer."""

from pathlib import Path

import torch
import yaml
from lightning.pytorch import LightningModule

from datamodules.errors import InputError
from llm_modules.backbone.checkpoint import check_checkpoint, keys_file, read_checkpoint
from llm_modules.causal_lm import CausalLM
from rod import classes
from rod.parser import Parser
from rod.run_record import CONFIG


def load_module(config: Path, checkpoint: Path | None) -> CausalLM:
    """Build the module of a run's ``config.yaml``; load a checkpoint's trained parameters, or none, into it.

    InputError if a file is absent, is no configuration, or describes no language model, or the checkpoint is damaged.
    """
    if not config.is_file():
        raise InputError(f"--config: there is no file '{config}'; give the config.yaml of a run folder")
    if checkpoint is not None:
        check_checkpoint(checkpoint, "--checkpoint")
    settings = yaml.safe_load(config.read_text(encoding="utf-8"))
    if not isinstance(settings, dict) or "model" not in settings:
        raise InputError(f"--config: '{config}' has no 'model' section; give the config.yaml of a run folder")
    classes.load(classes.MODELS)
    parser = Parser()
    parser.add_subclass_arguments(LightningModule, "model", required=True)
    module = parser.instantiate_classes(parser.parse_object({"model": settings["model"]})).model
    if not isinstance(module, CausalLM):
        raise InputError(
            f"--config: '{config}' describes a {type(module).__name__}; only language models can be loaded"
        )
    module.configure_model()
    if checkpoint is not None:
        content = read_checkpoint(checkpoint)
        module.on_load_checkpoint(content)
        module.load_state_dict(content["state_dict"], strict=False)
    return module.eval()


def config_of(checkpoint: Path) -> Path:
    """The ``config.yaml`` of a checkpoint's run: the nearest one in the folders above it.

    InputError if there is none, or no checkpoint.
    """
    if not checkpoint.exists():
        raise InputError(f"--checkpoint: there is no file '{checkpoint}'")
    for folder in checkpoint.resolve().parents:
        if (folder / CONFIG).is_file():
            return folder / CONFIG
    check_checkpoint(checkpoint, "--checkpoint")
    raise InputError(f"--config: no {CONFIG} in the folders above '{checkpoint}'; name the run's configuration")


def steps_of(checkpoint: Path) -> int:
    """Optimiser steps of a checkpoint."""
    content = torch.load(keys_file(checkpoint), weights_only=True, map_location="cpu", mmap=True)
    return int(content.get("global_step", 0))
