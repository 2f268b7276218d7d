"""Parts of a Hugging Face causal language model of any family, bare or wrapped."""

from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import nn
from torch.distributed.fsdp import FullyShardedDataParallel
from torch.nn.parallel import DistributedDataParallel
from transformers.pytorch_utils import Conv1D

from datamodules.errors import InputError

_LAYER_LISTS = ("layers", "h")
"""Names of the list of decoder layers in the decoder."""


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


def inner_decoder(model: nn.Module) -> nn.Module:
    """The model without its output head: embeddings, decoder layers and final norm."""
    inner = unwrap(model)
    return unwrap(inner.get_decoder()) if hasattr(inner, "get_decoder") else inner


def decoder_layers(model: nn.Module) -> nn.ModuleList:
    """The decoder layers of a bare or wrapped model; raises ``InputError`` if the family keeps them elsewhere."""
    decoder = inner_decoder(model)
    for name in _LAYER_LISTS:
        layers = getattr(decoder, name, None)
        if isinstance(layers, nn.ModuleList):
            return layers
    inner = unwrap(model)
    found = [
        f"'{path}' ({len(module)} x {type(module[0]).__name__})"
        for path, module in inner.named_modules()
        if isinstance(module, nn.ModuleList) and len(module)
    ]
    raise InputError(
        f"model: {type(inner).__name__} has no decoder layers where they are looked for, in a list named "
        f"{' or '.join(_LAYER_LISTS)} of its {type(decoder).__name__}; lists in it: {', '.join(found) or 'none'}"
    )


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
