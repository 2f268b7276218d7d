"""Named parameter groups for the optimiser: every trainable parameter is in exactly one."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypedDict

from rich.table import Table
from torch import Tensor, nn

from datamodules.errors import InputError


class ParameterGroup(TypedDict, total=False):
    """One group as torch optimisers take it.

    Attributes:
        name: What the learning-rate monitor logs it under: the kind, after the part where there are parts
            (``rest/matrices``).
        kind: ``matrices``, ``embeddings`` or ``vectors``, see `kind_of`.
        part: Which learning rate it has: ``robust`` or ``rest``; empty where all have the same.
        params: The parameters.
        parameter_names: Their names, in the same order; what a resumed run finds them again by.
        weight_decay: 0 for norms and biases, else the optimiser's own.
    """

    name: str
    kind: str
    part: str
    params: list[nn.Parameter]
    parameter_names: list[str]
    weight_decay: float


def kind_of(name: str, parameter: Tensor) -> str:
    """``matrices`` (hidden weights), ``embeddings`` (tables, the head) or ``vectors`` (norms, biases)."""
    if parameter.ndim < 2:
        return "vectors"
    table = ("embed", "wte", "wpe", "lm_head")
    return "embeddings" if any(part in name for part in table) and "lora_" not in name else "matrices"


def named_groups(
    parameters: Iterable[tuple[str, nn.Parameter]], part_of: Callable[[nn.Parameter], str] | None = None
) -> list[ParameterGroup]:
    """Split trainable parameters into non-empty groups; no weight decay on norms and biases.

    Args:
        parameters: ``module.named_parameters()``; frozen ones are passed over.
        part_of: The part (learning rate) that a parameter belongs to; without it groups are those of `kind_of` alone.
    """
    groups: dict[str, ParameterGroup] = {}
    for name, parameter in parameters:
        if not parameter.requires_grad:
            continue
        kind = kind_of(name, parameter)
        part = part_of(parameter) if part_of is not None else ""
        key = f"{part}/{kind}" if part else kind
        if key not in groups:
            groups[key] = ParameterGroup(name=key, kind=kind, part=part, params=[], parameter_names=[])
            if kind == "vectors":
                groups[key]["weight_decay"] = 0.0
        groups[key]["params"].append(parameter)
        groups[key]["parameter_names"].append(name)
    return list(groups.values())


def group_rows(groups: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """What each group of an optimiser is, as plain values: shown before training and kept in checkpoints."""
    return [
        {
            "name": group["name"],
            "tensors": len(group["params"]),
            "weights": sum(parameter.numel() for parameter in group["params"]),
            "lr": group.get("initial_lr", group["lr"]),
            "weight_decay": group.get("weight_decay", 0.0),
        }
        for group in groups
    ]


def group_table(rows: Sequence[dict[str, Any]], multipliers: Sequence[tuple[float, float]], frozen: int) -> Table:
    """The groups as a table: the multipliers of the rate are those at the first and the last step."""
    table = Table(title="parameter groups", title_justify="left")
    table.add_column("group", no_wrap=True)
    for column in ("tensors", "weights", "rate", "x first", "x last", "weight decay"):
        table.add_column(column, justify="right")
    for row, (first, last) in zip(rows, multipliers, strict=True):
        numbers = (f"{row['tensors']:,}", f"{row['weights']:,}", f"{row['lr']:.3g}", f"{first:g}", f"{last:g}")
        table.add_row(row["name"], *numbers, f"{row['weight_decay']:g}")
    if frozen:
        table.add_row("frozen", "", f"{frozen:,}", "-", "-", "-", "-")
    return table


def arranged_by_name(state: dict[str, Any], groups: Sequence[ParameterGroup]) -> dict[str, Any]:
    """An optimiser's stored state in the order of the groups that it is loaded into.

    Torch finds a parameter's state by its number, which other groups would shift.

    Args:
        state: ``optimizer.state_dict()`` of an optimiser over named groups.
        groups: The groups of the optimiser to be restored.

    Raises:
        InputError: A group was not there when the state was stored, or held other parameters.
    """
    stored = {group.get("name", ""): group for group in state["param_groups"]}
    if any("parameter_names" not in group for group in stored.values()):
        raise InputError(
            "ckpt_path: the checkpoint's parameter groups hold no names of parameters, so that training cannot go on "
            "from it; test it, or start training anew"
        )
    numbers = {
        name: number for g in stored.values() for name, number in zip(g["parameter_names"], g["params"], strict=True)
    }
    # A part may have been stored as one group of all kinds (MoGU's joint training, before 0.1).
    sources = [group["name"] if group["name"] in stored else group.get("part", "") for group in groups]
    arranged: dict[str, Any] = {"state": {}, "param_groups": []}
    for group, source in zip(groups, sources, strict=True):
        names = group["parameter_names"]
        held = {name for g, s in zip(groups, sources, strict=True) if s == source for name in g["parameter_names"]}
        if source not in stored or held != set(stored[source]["parameter_names"]):
            raise InputError(
                f"ckpt_path: the checkpoint has no parameter group '{group['name']}' of these {len(names)} parameters, "
                f"it has {', '.join(stored)}; go on with the learning_rates that it was trained with"
            )
        first = sum(len(earlier["params"]) for earlier in arranged["param_groups"])
        identity = {key: value for key, value in group.items() if key in ("name", "kind", "part", "parameter_names")}
        arranged["param_groups"].append(stored[source] | identity | {"params": list(range(first, first + len(names)))})
        for number, parameter in enumerate(names, start=first):
            if numbers[parameter] in state["state"]:
                arranged["state"][number] = state["state"][numbers[parameter]]
    return arranged
