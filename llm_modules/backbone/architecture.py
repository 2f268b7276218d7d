"""Parts of a Hugging Face causal language model of any family, bare or wrapped."""

from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FullyShardedDataParallel
from torch.nn.parallel import DistributedDataParallel
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from datamodules.errors import InputError

_LAYER_LISTS = ("layers", "h")
"""Usual names of the list of decoder layers in the decoder."""


def unwrap(model: nn.Module) -> Any:
    """The model inside PEFT, ``torch.compile``, DDP and FSDP1 wrappers (FSDP2 has none)."""
    inner: Any = model
    while True:
        if hasattr(inner, "get_base_model"):
            inner = inner.get_base_model()
        elif "_orig_mod" in inner._modules:
            inner = inner._orig_mod
        elif isinstance(inner, DistributedDataParallel | FullyShardedDataParallel):
            inner = inner.module
        else:
            return inner


def decoder_of(model: nn.Module) -> nn.Module:
    """The model without its output head, as it is wrapped: embeddings, decoder layers and final norm."""
    inner = unwrap(model)
    if not hasattr(inner, "get_decoder"):
        return inner
    # In some families `get_decoder` returns the whole model, or the head.
    parts = [inner.get_decoder(), *inner.children()]
    found = (part for part in parts if part is not inner and isinstance(unwrap(part), PreTrainedModel))
    return next(found, parts[0])


def inner_decoder(model: nn.Module) -> nn.Module:
    """`decoder_of` without its wrappers."""
    return unwrap(decoder_of(model))


def decoder_layers(model: nn.Module) -> nn.ModuleList:
    """The decoder layers of a bare or wrapped model: the list named as usual, else the one list of their number.

    InputError if no list, or several lists, could be the decoder layers.
    """
    decoder = inner_decoder(model)
    for name in _LAYER_LISTS:
        layers = getattr(decoder, name, None)
        if isinstance(layers, nn.ModuleList):
            return layers
    inner = unwrap(model)
    lists = [module for module in decoder.modules() if isinstance(module, nn.ModuleList) and len(module)]
    number = getattr(inner.config.get_text_config(), "num_hidden_layers", None) if hasattr(inner, "config") else None
    fitting = [layers for layers in lists if len(layers) == number]
    if len(fitting) == 1:
        return fitting[0]
    found = [
        f"'{path}' ({len(module)} x {type(module[0]).__name__})"
        for path, module in inner.named_modules()
        if isinstance(module, nn.ModuleList) and len(module)
    ]
    raise InputError(
        f"model: the decoder layers of {type(inner).__name__} are not known: no list of its {type(decoder).__name__} "
        f"is named {' or '.join(_LAYER_LISTS)}, and not exactly one has {number} modules; lists in it: "
        f"{', '.join(found) or 'none'}"
    )


def residual_of(output: Any) -> Any:
    """The residual stream in a decoder layer's output: the output itself, or the first of a tuple or list."""
    return output[0] if isinstance(output, tuple | list) else output


def with_residual(output: Any, residual: Any) -> Any:
    """A decoder layer's output with another residual stream."""
    return type(output)([residual, *output[1:]]) if isinstance(output, tuple | list) else residual


def layer_path(model: nn.Module) -> str:
    """Path of the decoder layers from the model's ``base_model``, such as ``layers``, ``h`` or ``decoder.layers``."""
    layers = decoder_layers(model)
    base = unwrap(model).base_model
    return next(name for name, module in base.named_modules() if module is layers).replace("_orig_mod.", "")


def num_layers(model: nn.Module) -> int:
    """Number of decoder layers."""
    return len(decoder_layers(model))


def hidden_size(model: nn.Module) -> int:
    """Width of the residual stream: the last dimension of a decoder layer's output."""
    return int(unwrap(model).config.get_text_config().hidden_size)


def check_vectors(model: nn.Module, vectors: Tensor) -> None:
    """Raise InputError unless ``vectors`` are one for each decoder layer, (layers, hidden)."""
    shape = (len(decoder_layers(model)), hidden_size(model))
    if tuple(vectors.shape) != shape:
        raise InputError(f"direction: vectors {tuple(vectors.shape)} do not fit a model of {shape} (layers, hidden)")


def embedding_rows(model: nn.Module) -> int:
    """Number of token ids that the model has an embedding for; wrappers of PEFT around the table do not matter."""
    return int(unwrap(model).get_input_embeddings().weight.shape[0])


def linear_sizes(module: Any) -> tuple[int, int] | None:
    """Input and output sizes of a linear module (also quantised, adapted, Conv1D); None for other modules."""
    if isinstance(module, Conv1D):
        inputs, outputs = module.weight.shape
        return inputs, outputs
    sizes = getattr(module, "in_features", None), getattr(module, "out_features", None)
    return (sizes[0], sizes[1]) if isinstance(sizes[0], int) and isinstance(sizes[1], int) else None


def linear_names(model: nn.Module) -> list[str]:
    """Names of the linear modules of a decoder layer, such as ``self_attn.q_proj``."""
    return [name for name, module in decoder_layers(model)[0].named_modules() if linear_sizes(module) is not None]


def uncompiled() -> AbstractContextManager[None]:
    """A context in which compiled code runs eagerly.

    Dynamo reads a module's hooks when it compiles: it ignores hooks that are added later, and keeps hooks that are
    removed later.
    """
    return torch.compiler.set_stance("force_eager")
