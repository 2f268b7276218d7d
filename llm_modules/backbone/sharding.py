"""Fully sharded data parallelism (FSDP2) for Hugging Face models."""

from collections.abc import Callable
from typing import TypeVar, cast

from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from datamodules.errors import InputError
from llm_modules.backbone.architecture import decoder_layers

Result = TypeVar("Result")


def data_mesh(mesh: DeviceMesh) -> DeviceMesh:
    """The dimension of Lightning's mesh that a model is sharded over. InputError if layers are to be split, too."""
    if mesh["tensor_parallel"].size() > 1:
        raise InputError(
            "trainer.strategy.tensor_parallel_size: must be 1: steering, adapters, routers and learning rates by "
            "module act on whole layers; raise data_parallel_size in its place (FSDP2)"
        )
    return mesh["data_parallel"]


def shard(model: nn.Module, mesh: DeviceMesh) -> None:
    """Shard each decoder layer, then the rest of the model, over a one-dimensional mesh, in place.

    ``model`` is the Hugging Face model inside any PEFT wrapper: generation calls this one, and the hooks that gather
    parameters are on it.

    Raises:
        InputError: The model is quantised.
        RuntimeError: A parameter is not sharded: ranks would silently train different models.
    """
    if getattr(model, "is_quantized", False):
        raise InputError("model.quantization: a quantised backbone is not sharded; use the strategy ddp")
    for layer in decoder_layers(model):
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)
    whole = [name for name, parameter in model.named_parameters() if not isinstance(parameter, DTensor)]
    if whole:
        raise RuntimeError(f"parameters that are not sharded: {', '.join(whole[:3])}")


def call_as_forward(module: nn.Module, function: Callable[[], Result]) -> Result:
    """Run ``function`` in place of ``module.forward``, with the module's hooks, which gather sharded parameters.

    Code that calls parts of a model (the decoder, then the head in chunks) must run inside it.
    """
    own_forward = module.__dict__.get("forward")
    module.forward = function
    try:
        return cast(Result, module())
    finally:
        if own_forward is None:
            del module.forward
        else:
            module.forward = own_forward
