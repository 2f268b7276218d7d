"""The attention output projection of every decoder layer, under any name that a family gives it."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import nn

from datamodules.errors import InputError
from llm_modules.backbone.architecture import decoder_layers, linear_names, linear_sizes, unwrap

OUTPUT_PROJECTIONS = ("o_proj", "out_proj", "dense", "c_proj", "Wo", "o_b_proj", "attention_out")
"""Names of the projection at the end of attention: Llama and its kin, OPT, Falcon and GPT-NeoX, GPT-2, ..."""


@dataclass(frozen=True)
class Projection:
    """One output projection: attribute ``name`` of the module ``parent``.

    ``path`` is its name in PEFT files, such as ``model.layers.0.self_attn.o_proj``.
    """

    layer: int
    path: str
    parent: nn.Module = field(repr=False)
    name: str
    in_features: int
    out_features: int

    @property
    def module(self) -> nn.Module:
        """The projection itself."""
        found: nn.Module = getattr(self.parent, self.name)
        return found


def output_projections(model: nn.Module, target: str | None = None) -> list[Projection]:
    """The attention output projection of each decoder layer that has one, first layer to last.

    ``target`` is the name of the module within a layer, such as ``o_proj`` or ``attn.c_proj``; by default the last one
    with a known name. InputError if no layer has such a module, or a layer has several of the name that is given.
    """
    paths = {id(module): path for path, module in unwrap(model).named_modules()}
    found = []
    for index, layer in enumerate(decoder_layers(model)):
        linear = {name: module for name, module in layer.named_modules() if linear_sizes(module) is not None}
        names = [name for name in linear if _matches(name, target, layer)]
        if target is None:
            names = names[-1:]  # LongCat has two attentions in a layer
        if len(names) > 1:
            raise InputError(
                f"model.router.target: '{target}' means {', '.join(sorted(names))} in layer {index}; name one of them"
            )
        for name in names:
            parent_name, _, own_name = name.rpartition(".")
            sizes = linear_sizes(linear[name])
            assert sizes is not None
            found.append(Projection(index, paths[id(linear[name])], layer.get_submodule(parent_name), own_name, *sizes))
    if not found:
        asked = f"'{target}'" if target else "an attention output projection with a known name"
        raise InputError(
            f"model.router.target: no decoder layer has {asked}; the linear modules of a layer are "
            f"{', '.join(linear_names(model))}"
        )
    return found


def projection_pattern(model: nn.Module, layers: Sequence[int] | None = None) -> str:
    """The projections of some layers (all by default) as a regular expression for PEFT's ``target_modules``."""
    found = choose_layers(output_projections(model), layers, "model.layers")
    return "|".join(re.escape(projection.path) for projection in found)


def choose_layers(projections: Sequence[Projection], layers: Sequence[int] | None, key: str) -> list[Projection]:
    """The projections of some layers, or all for None; InputError, naming the option ``key``, if a layer has none."""
    if layers is None:
        return list(projections)
    have = {projection.layer: projection for projection in projections}
    if missing := [layer for layer in layers if layer not in have]:
        raise InputError(
            f"{key}: there is no output projection in layer {missing[0]}; "
            f"the model has them in layers {min(have)}-{max(have)}"
        )
    return [have[layer] for layer in sorted(set(layers))]


def _matches(name: str, target: str | None, layer: nn.Module) -> bool:
    parent, _, own = name.rpartition(".")
    if target is not None:
        return name == target or name.endswith(f".{target}")
    # Hybrid families call attention and state-space parts alike (`mixer`): then the class tells.
    attends = "attn" in parent or "attention" in parent or "Attention" in type(layer.get_submodule(parent)).__name__
    return own in OUTPUT_PROJECTIONS and attends
