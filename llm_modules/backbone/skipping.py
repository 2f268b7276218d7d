"""A forward pass that starts in the middle of a model."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn


@contextmanager
def skipping(layers: Sequence[nn.Module], state: Tensor | None, extras: int | None) -> Iterator[None]:
    """Skip the first layers of a model: the last of them returns ``state``, (batch, seq, hidden).

    The model's own forward runs, so that masks and positions are the family's own. ``extras`` is `extras_of` a layer.
    """
    # Others, such as hooks that move inputs between devices, may have put a forward of their own on a layer.
    before = [vars(layer).get("forward") for layer in layers]
    for layer in layers:

        def passed(hidden: Tensor, *_args: Any, _last: bool = layer is layers[-1], **_kwargs: Any) -> Any:
            out = state if _last else hidden
            return out if extras is None else (out, *[None] * extras)

        layer.forward = passed
    try:
        yield
    finally:
        for layer, forward in zip(layers, before, strict=True):
            if forward is None:
                del layer.forward
            else:
                layer.forward = forward


def extras_of(output: Any) -> int | None:
    """The number of entries that a layer returns beside the hidden states; None if it returns a tensor."""
    return len(output) - 1 if isinstance(output, tuple | list) else None
