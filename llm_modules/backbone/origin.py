"""What a checkpoint says of the model that it was trained on: the backbone, and the settings of its adapter."""

import json
import warnings
from typing import Any

from peft import PeftModel
from torch import nn

from datamodules.errors import InputError
from llm_modules.backbone.loading import same_checkpoint

_NO_SETTINGS = {
    "auto_mapping",
    "base_model_name_or_path",
    "inference_mode",
    "lora_dropout",
    "peft_version",
    "revision",
    "runtime_config",
    "task_type",
}
"""Keys of a PEFT configuration that change nothing of a trained adapter."""


def origin_of(model: nn.Module | None, backbone: str) -> dict[str, Any]:
    """The entries of a checkpoint, as plain values."""
    adapter = {"adapter": adapter_settings(model)} if isinstance(model, PeftModel) else {}
    return {"backbone": backbone, **adapter}


def check_origin(checkpoint: dict[str, Any], model: nn.Module | None, backbone: str) -> None:
    """Hold a checkpoint against the model that it is loaded into; warn of another backbone.

    InputError if its adapter was trained with other settings than it would run with.
    """
    own = origin_of(model, backbone)
    check_settings(checkpoint.get("adapter", {}), own.get("adapter", {}))
    trained_on = checkpoint.get("backbone", backbone)
    if not same_checkpoint(trained_on, backbone):
        warnings.warn(
            f"ckpt_path: the checkpoint was trained on '{trained_on}', and is loaded on '{backbone}'", stacklevel=2
        )


def adapter_settings(adapted: PeftModel) -> dict[str, Any]:
    """What an adapter computes with, beside its weights: its configuration as plain values, without those of PEFT."""
    values = adapted.active_peft_config.to_dict()
    return json.loads(json.dumps({key: values[key] for key in sorted(values.keys() - _NO_SETTINGS)}, default=_plain))


def check_settings(trained: dict[str, Any], own: dict[str, Any]) -> None:
    """Raise ``InputError`` if an adapter of a checkpoint was trained with other settings than it would run with."""
    for key in sorted(trained.keys() & own.keys()):
        if trained[key] != own[key]:
            raise InputError(
                f"ckpt_path: the checkpoint was trained with model.peft.{key} {trained[key]}, and the configuration "
                f"says {own[key]}; use the configuration that it was trained with"
            )


def _plain(value: Any) -> Any:
    return sorted(value) if isinstance(value, set) else str(value)
