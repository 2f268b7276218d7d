"""Named parameter groups for the optimiser: every trainable parameter is in exactly one."""

from collections.abc import Iterable
from typing import TypedDict

from torch import Tensor, nn


class ParameterGroup(TypedDict, total=False):
    """One group as torch optimisers take it; ``name`` is what the learning-rate monitor logs it under."""

    name: str
    params: list[nn.Parameter]
    weight_decay: float


def kind_of(name: str, parameter: Tensor) -> str:
    """``matrices`` (hidden weights), ``embeddings`` (tables, the head) or ``vectors`` (norms, biases)."""
    if parameter.ndim < 2:
        return "vectors"
    table = ("embed", "wte", "wpe", "lm_head")
    return "embeddings" if any(part in name for part in table) and "lora_" not in name else "matrices"


def named_groups(parameters: Iterable[tuple[str, nn.Parameter]]) -> list[ParameterGroup]:
    """Split trainable parameters into the non-empty groups of ``kind_of``; no weight decay on norms and biases.

    Args:
        parameters: ``module.named_parameters()``; frozen ones are passed over.
    """
    groups: dict[str, ParameterGroup] = {}
    for name, parameter in parameters:
        if not parameter.requires_grad:
            continue
        kind = kind_of(name, parameter)
        group = groups.setdefault(kind, ParameterGroup(name=kind, params=[]))
        group["params"].append(parameter)
    if "vectors" in groups:
        groups["vectors"]["weight_decay"] = 0.0
    return list(groups.values())
