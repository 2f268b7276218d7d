"""PEFT adapters: add, load and switch off."""

from collections.abc import Iterator
from contextlib import contextmanager

from peft import PeftConfig, PeftModel, get_peft_model
from transformers import PreTrainedModel

from datamodules.errors import InputError
from llm_modules.backbone.architecture import linear_names


def add_adapter(model: PreTrainedModel, config: PeftConfig, key: str) -> PeftModel:
    """Add a new adapter to a model, in place; all other weights are frozen. ``key`` is its option, for messages.

    Raises:
        InputError: The method does not adapt weights (prompt learning), or a target module does not exist.
    """
    if config.is_prompt_learning:
        kind = type(config).__name__
        raise InputError(
            f"{key}: {kind} works outside of the layers; use a method that adapts weights, such as LoraConfig"
        )
    config.task_type = "CAUSAL_LM"
    try:
        adapted = get_peft_model(model, config)
    except ValueError as error:
        raise InputError(
            f"{key}: {error} The linear modules of a layer are {', '.join(linear_names(model))}."
        ) from error
    assert isinstance(adapted, PeftModel)
    return adapted


def load_adapter(model: PreTrainedModel, folder: str, backbone: str) -> PeftModel:
    """Add the adapter of a PEFT folder; raises ``InputError`` if it does not fit the model, named ``backbone``."""
    try:
        return PeftModel.from_pretrained(model, folder, is_trainable=True)
    except (OSError, ValueError, RuntimeError) as error:
        raise InputError(f"model.adapter: '{folder}' does not fit '{backbone}': {error}") from error


@contextmanager
def without_adapter(adapted: PeftModel) -> Iterator[None]:
    """Switch the adapter off within a block; ``requires_grad``, which PEFT changes, is as before afterwards."""
    flags = [(parameter, parameter.requires_grad) for parameter in adapted.parameters()]
    try:
        with adapted.disable_adapter():
            yield
    finally:
        for parameter, flag in flags:
            parameter.requires_grad_(flag)
