"""The weights of each module as views, also within fused projections."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from llm_modules.backbone.architecture import decoder_layers, unwrap
from llm_modules.optim.module_names import TYPES, Module, types_of

_CHUNK = 1 << 22
"""Bytes that `checksum` reads at a time."""


@dataclass(frozen=True)
class Weight:
    """A parameter, or (with a ``shape``) ``length`` indices of a dimension of its view in that shape."""

    parameter: nn.Parameter
    shape: tuple[int, ...] = ()
    dim: int = 0
    start: int = 0
    length: int = 0

    def view(self) -> Tensor:
        """The part, sharing memory with the parameter."""
        whole = self.parameter.detach()
        return whole.view(self.shape).narrow(self.dim, self.start, self.length) if self.shape else whole


def weights_of(model: nn.Module) -> dict[Module, list[Weight]]:
    """The matrices of every module of a model; biases, norms and adapters are left out.

    A fused projection is cut into its types if the layout is known: concatenated (Phi-3, GPT-2) or interleaved by head
    (GPT-NeoX, Falcon). Otherwise each of its types has the whole weight.
    """
    found: dict[Module, list[Weight]] = {}
    config = unwrap(model).config.get_text_config()
    for layer, block in enumerate(decoder_layers(model)):
        for name, parameter in block.named_parameters():
            types = types_of(name)
            if parameter.ndim < 2 or "lora_" in name or not types:
                continue
            parts = _parts(types, parameter, config) if len(types) > 1 else {}
            for kind in types:
                found.setdefault(Module(layer, kind), []).append(parts.get(kind, Weight(parameter)))
    return dict(sorted(found.items(), key=lambda item: (TYPES.index(item[0].type), item[0].layer)))


def checksum(model: nn.Module) -> int:
    """A number that changes with any bit of any parameter; two states collide less than once in millions."""
    total = 0
    for parameter in model.parameters():
        bits = parameter.detach().contiguous().reshape(-1).view(torch.uint8)
        for start in range(0, len(bits), _CHUNK):
            chunk = bits[start : start + _CHUNK].to(torch.int64)
            places = torch.arange(start, start + len(chunk), device=chunk.device) % 65_521 + 1
            total = (total * 1_000_003 + int((chunk * places).sum())) % (1 << 61)
    return total


def _parts(types: tuple[str, ...], parameter: nn.Parameter, config: Any) -> dict[str, Weight]:
    """The part of each type in a fused parameter; empty if the layout is unknown."""
    if types == ("gate", "up"):
        dim = parameter.ndim - 2  # rows of a Linear, rows of each expert
        half, odd = divmod(parameter.shape[dim], 2)
        shape = tuple(parameter.shape)
        return {} if odd else {kind: Weight(parameter, shape, dim, i * half, half) for i, kind in enumerate(types)}
    hidden = int(config.hidden_size)
    heads = int(config.num_attention_heads)
    size = int(getattr(config, "head_dim", None) or hidden // heads)
    groups = int(getattr(config, "num_key_value_heads", None) or heads)
    kind = str(config.model_type)
    widths = (heads * size, groups * size, groups * size)
    if kind == "gpt2" and tuple(parameter.shape) == (hidden, 3 * hidden):
        return _consecutive(parameter, tuple(parameter.shape), 1, (hidden,) * 3)
    if kind == "gpt_neox" or (kind == "falcon" and not _falcon_grouped(config) and not _multi_query(config)):
        return _consecutive(parameter, (heads, 3, size, hidden), 1, (1, 1, 1))
    if kind == "falcon" and _falcon_grouped(config):
        groups = int(config.num_kv_heads)
        return _consecutive(parameter, (groups, heads // groups + 2, size, hidden), 1, (heads // groups, 1, 1))
    if kind == "falcon":
        widths = (heads * size, size, size)
    if parameter.ndim == 2 and parameter.shape[0] == sum(widths):
        return _consecutive(parameter, tuple(parameter.shape), 0, widths)
    return {}


def _consecutive(
    parameter: nn.Parameter, shape: tuple[int, ...], dim: int, lengths: tuple[int, int, int]
) -> dict[str, Weight]:
    starts = (0, lengths[0], lengths[0] + lengths[1])
    parts = zip(("q", "k", "v"), starts, lengths, strict=True)
    return {kind: Weight(parameter, shape, dim, start, length) for kind, start, length in parts}


def _falcon_grouped(config: object) -> bool:
    return bool(getattr(config, "new_decoder_architecture", False))


def _multi_query(config: object) -> bool:
    return bool(getattr(config, "multi_query", False))
