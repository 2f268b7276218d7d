"""Sizes and operations of a model, counted on torch's meta device: nothing is loaded or computed."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from peft import PeftConfig, PeftModel
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.flop_counter import FlopCounterMode
from transformers import AttentionInterface, AutoModelForCausalLM, DynamicCache, PreTrainedConfig, PreTrainedModel

from datamodules.errors import InputError
from llm_modules.backbone.adapters import add_adapter
from llm_modules.backbone.architecture import decoder_layers, decoder_of
from llm_modules.generation.prefill import cache_of

Model = PreTrainedModel | PeftModel
_ATTENTION = "counted"


@dataclass(frozen=True)
class Pass:
    """One forward and backward pass over a batch: bytes kept for the backward pass, and operations."""

    saved: int
    layer_saved: int
    """Of these, the bytes of one decoder layer."""
    forward: int
    backward: int


def build(config: PreTrainedConfig, dtype: str = "float32", peft: PeftConfig | None = None) -> Model:
    """The model of a configuration without storage, with an adapter if one is given; in training mode."""
    wanted = getattr(config, "dtype", None) or torch.float32 if dtype == "auto" else getattr(torch, dtype)
    AttentionInterface.register(_ATTENTION, _attention)
    with torch.device("meta"):
        try:
            own = copy.deepcopy(config)  # it keeps the name of the attention
            model = AutoModelForCausalLM.from_config(own, dtype=wanted, attn_implementation=_ATTENTION)
        except (ValueError, KeyError):  # a family with attention of its own
            model = AutoModelForCausalLM.from_config(copy.deepcopy(config), dtype=wanted)
        return add_adapter(model, peft, "model.peft").train() if peft is not None else model.train()


def bytes_of(module: nn.Module, trained: bool = False) -> int:
    """Bytes of the parameters, or of those that are trained; tied ones count once."""
    return sum(p.numel() * p.element_size() for p in module.parameters() if p.requires_grad or not trained)


def state_bytes(optimizer: Optimizer) -> int:
    """Bytes of an optimizer's state after its first step, for parameters without storage."""
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            parameter.grad = torch.empty_like(parameter)
    optimizer.step()
    optimizer.zero_grad()
    tensors = [value for state in optimizer.state.values() for value in state.values() if isinstance(value, Tensor)]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def count_pass(model: Model, rows: int, length: int) -> Pass:
    """Count a training pass of the decoder, without its output head, over a batch (rows, length).

    Raises:
        InputError: The family's forward pass looks at values, which are not there.
    """
    base: Any = model.get_base_model() if isinstance(model, PeftModel) else model
    ids = torch.zeros((rows, length), dtype=torch.long, device="meta")
    saved = _Saved(base)
    with (
        _without_values(base),
        FlopCounterMode(display=False) as counter,
        torch.autograd.graph.saved_tensors_hooks(saved.pack, lambda t: t),
    ):
        hidden = decoder_of(base)(input_ids=ids, attention_mask=None, use_cache=False).last_hidden_state
        forward = counter.get_total_flops()
        if hidden.requires_grad:
            hidden.sum().backward()
    for parameter in model.parameters():
        parameter.grad = None
    return Pass(saved.bytes, saved.bytes // len(decoder_layers(base)), forward, counter.get_total_flops() - forward)


def cache_bytes(model: Model) -> int:
    """Bytes of keys and values of one token; errors as in `count_pass`."""
    base: Any = model.get_base_model() if isinstance(model, PeftModel) else model

    def size(length: int) -> int:
        cache = DynamicCache()
        ids = torch.zeros((1, length), dtype=torch.long, device="meta")
        with _without_values(base), torch.no_grad():
            base(input_ids=ids, use_cache=True, **{cache_of(base)[0]: cache})
        held = [getattr(layer, name, None) for layer in cache.layers for name in ("keys", "values")]
        return sum(tensor.numel() * tensor.element_size() for tensor in held if tensor is not None)

    return size(2) - size(1)


@contextmanager
def _without_values(model: Any) -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:  # of an operation that needs values, which tensors on the meta device do not have
        kind = model.config.model_type
        raise InputError(f"rod plan: models of type {kind} cannot be counted without weights: {error}") from error


class _Saved:
    """Adds up the storage of what is kept for the backward pass; weights are there anyway."""

    def __init__(self, model: nn.Module) -> None:
        held = [*model.parameters(), *model.buffers()]
        self.known: dict[int, Tensor] = {tensor.untyped_storage()._cdata: tensor for tensor in held}
        self.bytes = 0

    def pack(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in self.known:
            self.known[storage._cdata] = tensor  # alive, so that no other storage gets its address
            self.bytes += storage.nbytes()
        return tensor


class _Attention(torch.autograd.Function):
    """Attention that keeps what fused kernels keep, not the (seq, seq) weights; it computes products of their sizes."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        out = (query @ key.transpose(-1, -2)) @ value
        sums = torch.empty(query.shape[:-1], dtype=torch.float32, device=query.device)
        ctx.save_for_backward(query, key, value, out, sums)
        return out

    @staticmethod
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        query, key, value, _out, _sums = ctx.saved_tensors
        (grad,) = outer
        weights = query @ key.transpose(-1, -2)
        weights_grad = grad @ value.transpose(-1, -2)
        value_grad = weights.transpose(-1, -2) @ grad
        return weights_grad @ key, weights_grad.transpose(-1, -2) @ query, value_grad


def _attention(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Any, **_: Any
) -> tuple[Tensor, None]:
    groups = query.shape[1] // key.shape[1]
    key, value = (tensor.repeat_interleave(groups, dim=1) if groups > 1 else tensor for tensor in (key, value))
    return _Attention.apply(query, key, value).transpose(1, 2).contiguous(), None
