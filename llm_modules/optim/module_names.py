"""Canonical names of a model's modules, such as ``layers.3.q``, for all families and wrappers."""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from torch import nn

from datamodules.errors import InputError
from llm_modules.backbone.architecture import decoder_layers

TYPES = ("q", "k", "v", "o", "gate", "up", "down", "mixer")
"""Types of modules: the projections of attention and of the feed-forward part (paper).

Ours: ``mixer`` for the inputs of linear attention, state-space models and convolutions; their output projection is an
``o``.
"""

_NAMES: dict[tuple[str, ...], str] = {
    ("q",): "q_proj q query wq Wq q_a_proj q_b_proj project_q",
    ("k",): "k_proj k key wk Wk project_k",
    ("v",): "v_proj v value wv Wv project_v",
    ("o",): "o_proj out_proj wo o_a_proj o_b_proj attention_out",
    ("k", "v"): "kv_proj kv_a_proj_with_mqa kv_b_proj",
    ("q", "k", "v"): "qkv_proj query_key_value c_attn qkv Wqkv wqkv W_pack att_proj",
    ("gate",): "gate_proj w1 w_0 proj_up_gate",
    ("up",): "up_proj dense_h_to_4h fc1 c_fc fc_in w3 v1 w_1 proj_up",
    ("down",): "down_proj dense_4h_to_h fc2 fc_out w2 w_out proj_down",
    ("gate", "up"): "gate_up_proj dense_gate_up_proj Wi",
    ("mixer",): "in_proj in_proj_qkvz in_proj_ba in_proj_qkv in_proj_z in_proj_a in_proj_b x_proj dt_proj conv1d A_log "
    "ogate_preact igate_preact fgate_preact",
}
"""Types -> names of their module in the families; a fused projection has several types."""
_LEAVES = {name: types for types, names in _NAMES.items() for name in names.split()}
_BY_PARENT: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "dense": (("o",), ()),
    "c_proj": (("o",), ("down",)),
    "Wo": (("o",), ("down",)),
    "input_linear": (("q",), ("gate", "up")),
    "output_linear": (("o",), ("down",)),
}
"""Names with different types in attention and in the feed-forward part."""
_ATTENTION = re.compile(r"att(n|ention)", re.IGNORECASE)
_SPAN = re.compile(r"(\d+)(?:-(\d+))?")


@dataclass(frozen=True, order=True)
class Module:
    """A type of projection in a decoder layer; layers count from 0.

    >>> Module.parse("layers.3.q")
    Module(layer=3, type='q')
    """

    layer: int
    type: str

    @property
    def name(self) -> str:
        """Canonical name."""
        return f"layers.{self.layer}.{self.type}"

    @classmethod
    def parse(cls, name: str) -> "Module":
        """The module with a canonical name; raises ``InputError`` for any other text."""
        match = re.fullmatch(r"layers\.(\d+)\.(\w+)", name)
        if match is None or match[2] not in TYPES:
            raise InputError(f"module '{name}': names look like layers.3.q, with a type of {', '.join(TYPES)}")
        return cls(int(match[1]), match[2])


def types_of(name: str) -> tuple[str, ...]:
    """The types of a parameter, from its name in the decoder layer.

    >>> types_of("self_attn.q_proj.weight"), types_of("self_attn.qkv_proj.weight"), types_of("input_layernorm.weight")
    (('q',), ('q', 'k', 'v'), ())

    An adapter has the types of the module that it adapts; parts of a name that come from wrappers (``base_layer``,
    ``_orig_mod``) are ignored. All experts of a layer are one module per type. An adapter on experts whose weights are
    plain parameters does not name them, and has all three types.
    """
    parts = name.split(".")
    if "indexer" in parts:  # it chooses what attention reads, and computes none of it
        return ()
    for at in range(len(parts) - 1, -1, -1):
        part = parts[at]
        if part in _BY_PARENT:
            attention, other = _BY_PARENT[part]
            return attention if any(_ATTENTION.search(p) for p in parts[:at]) else other
        if part in _LEAVES:
            return _LEAVES[part]
        if part == "experts" and any(p.startswith("lora_") for p in parts[at:]):
            return ("gate", "up", "down")
    return ()


def parameters_by_module(model: nn.Module) -> Iterator[tuple[nn.Parameter, tuple[Module, ...]]]:
    """Each parameter of the decoder layers with its modules; norms and the like have none.

    It goes by objects: the prefixes of PEFT, ``torch.compile``, DDP and FSDP do not matter.
    """
    for layer, block in enumerate(decoder_layers(model)):
        for name, parameter in block.named_parameters():
            yield parameter, tuple(Module(layer, kind) for kind in types_of(name))


def modules_of(model: nn.Module) -> list[Module]:
    """All modules of a model, by type and layer; raises ``InputError`` if the family's projections are unknown."""
    found = {module for _, modules in parameters_by_module(model) for module in modules}
    if not found:
        block = decoder_layers(model)[0]
        names = ", ".join(name for name, parameter in block.named_parameters() if parameter.ndim > 1)
        raise InputError(f"model: none of the matrices of a {type(block).__name__} is a known projection: {names}")
    return sorted(found, key=lambda module: (TYPES.index(module.type), module.layer))


def fused(model: nn.Module) -> list[tuple[str, ...]]:
    """Groups of types that share a parameter in this model, such as ``(q, k, v)``."""
    groups = {tuple(m.type for m in modules) for _, modules in parameters_by_module(model) if len(modules) > 1}
    return sorted(groups)


def select(patterns: Iterable[str], modules: Sequence[Module], key: str) -> set[Module]:
    """The modules that match a pattern: ``layers.3.q``, ``layers.0-2.*``, ``layers.*.down``.

    ``key`` is the YAML key of the patterns, for messages. InputError if a pattern is malformed or matches nothing.
    """
    chosen: set[Module] = set()
    for pattern in patterns:
        head, layers, kind = (*pattern.split("."), "", "")[:3]
        span = _SPAN.fullmatch(layers)
        if head != "layers" or pattern.count(".") != 2 or not (span or layers == "*"):
            raise InputError(f"{key}: '{pattern}' is no pattern; write layers.3.q, layers.0-2.* or layers.*.down")
        inside = range(int(span[1]), int(span[2] or span[1]) + 1) if span else None
        found = {m for m in modules if kind in ("*", m.type) and (inside is None or m.layer in inside)}
        if not found:
            layers_there = max(m.layer for m in modules)
            kinds = ", ".join(dict.fromkeys(m.type for m in modules))
            raise InputError(
                f"{key}: '{pattern}' matches nothing; the model has layers 0-{layers_there} and the types {kinds}"
            )
        chosen |= found
    return chosen
