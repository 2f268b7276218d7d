"""PEFT adapters on a model: put on with errors that name the option, and taken off for a while without a trace."""

from collections.abc import Iterator
from contextlib import contextmanager

from peft import PeftConfig, PeftModel, get_peft_model
from transformers import PreTrainedModel

from datamodules.errors import InputError
from llm_modules.backbone.architecture import linear_names


def add_adapter(model: PreTrainedModel, config: PeftConfig, key: str) -> PeftModel:
    """A model with a new adapter, which alone can be trained.

    Args:
        model: Changed in place.
        config: Of any kind that adapts weights.
        key: The option that it comes from, for errors.

    Raises:
        InputError: The adapter is of a kind that works outside of the layers, or names modules that are not there.
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


@contextmanager
def without_adapter(adapted: PeftModel) -> Iterator[None]:
    """A block without the adapter. PEFT turns ``requires_grad`` on where it enables one again: flags are put back."""
    flags = [(parameter, parameter.requires_grad) for parameter in adapted.parameters()]
    try:
        with adapted.disable_adapter():
            yield
    finally:
        for parameter, flag in flags:
            parameter.requires_grad_(flag)
