"""Sets of decoder layers as short strings: ``anchor:5``, ``deepest:4``, ``separated:4``, ``all``, ``3,5-8``."""

import re
from collections.abc import Sequence

import torch
from torch import Tensor

from datamodules.errors import InputError
from llm_modules.s3cot.direction import Direction

FORMS = "'anchor:k', 'deepest:k', 'separated:k', 'all', or layers such as '3,5-8'"

_COUNTED = re.compile(r"(anchor|deepest|separated)\s*:\s*(\d+)")
_SPAN = re.compile(r"(\d+)(?:\s*-\s*(\d+))?")


def select_layers(layer_set: str, direction: Direction) -> tuple[int, ...]:
    """Return the decoder layers that a string stands for, ascending, counted from 0.

    ``anchor:k``: k layers from the direction's anchor on (ours, the best reading of the paper's "top k").
    ``deepest:k``: the last k layers. ``separated:k``: the k layers whose two mean states are farthest apart.

    Raises:
        InputError: The string has another form, names no layer or one that the model does not have, or needs an anchor
            that the direction does not know.

    Example:
        >>> direction = Direction(vectors=torch.ones(8, 2), anchor=3)
        >>> select_layers("anchor:2", direction), select_layers("0,5-7", direction)
        ((3, 4), (0, 5, 6, 7))
    """
    text = layer_set.strip()
    total = direction.layers
    if text == "all":
        return tuple(range(total))
    if counted := _COUNTED.fullmatch(text):
        return _counted(layer_set, counted[1], int(counted[2]), direction)
    layers: set[int] = set()
    for part in text.split(","):
        span = _SPAN.fullmatch(part.strip())
        if span is None:
            raise InputError(f"layers: '{layer_set}' is not a set of layers; write {FORMS}")
        first, last = int(span[1]), int(span[2] or span[1])
        if last < first:
            raise InputError(f"layers: '{part.strip()}' in '{layer_set}' is empty; write the lower number first")
        layers.update(range(first, last + 1))
    if max(layers) >= total:
        raise InputError(f"layers: '{layer_set}' names layer {max(layers)}; the model has layers 0-{total - 1}")
    return tuple(sorted(layers))


def _counted(layer_set: str, kind: str, k: int, direction: Direction) -> tuple[int, ...]:
    total, start = direction.layers, 0
    if kind == "anchor":
        if direction.anchor is None:
            raise InputError(
                f"layers: '{layer_set}' needs an anchor, and {direction.source} has none; name layers, such as '3,5-8'"
            )
        start = direction.anchor
    if not 1 <= k <= total - start:
        where = f" from its anchor, layer {start}, on" if kind == "anchor" else ""
        raise InputError(f"layers: '{layer_set}' asks for {k}; the direction has 1 to {total - start} layers{where}")
    if kind == "separated":
        separation = direction.separation
        return tuple(sorted(sorted(range(total), key=lambda layer: -separation[layer])[:k]))
    first = start if kind == "anchor" else total - k
    return tuple(range(first, first + k))


def layer_indicator(layer_sets: Sequence[str], direction: Direction) -> Tensor:
    """Return a row per layer set with 1 at its layers and 0 elsewhere, (sets, layers) float32; "" means no layer."""
    chosen = {layer_set: select_layers(layer_set, direction) for layer_set in set(layer_sets) - {""}}
    indicator = torch.zeros(len(layer_sets), direction.layers)
    for row, layer_set in enumerate(layer_sets):
        indicator[row, list(chosen.get(layer_set, ()))] = 1
    return indicator
