"""Named parameter groups of an optimiser; every trainable parameter is in exactly one."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from rich.table import Table
from torch import Tensor, nn

from datamodules.errors import InputError
from llm_modules.optim.schedules import arranged_schedule

ParameterGroup = dict[str, Any]
"""A parameter group of a torch optimiser, with keys of ours.

- ``params``: the parameters; ``parameter_names``: their names in the same order, by which a resumed run finds them.
- ``kind``: that of `kind_of`.
- ``part``: parameters of a part (``robust``, ``rest``) share a learning rate; empty if there is one rate.
- ``name``: the kind, or part and kind (``rest/matrices``).
"""


def kind_of(name: str, parameter: Tensor) -> str:
    """``matrices`` (hidden weights), ``embeddings`` (tables, the head) or ``vectors`` (norms, biases)."""
    if parameter.ndim < 2:
        return "vectors"
    table = ("embed", "wte", "wpe", "lm_head")
    return "embeddings" if any(part in name for part in table) and "lora_" not in name else "matrices"


def named_groups(
    parameters: Iterable[tuple[str, nn.Parameter]], part_of: Callable[[nn.Parameter], str] | None = None
) -> list[ParameterGroup]:
    """Group trainable parameters by part and kind; norms and biases have no weight decay.

    >>> model = nn.Sequential(nn.Linear(2, 3), nn.LayerNorm(3))
    >>> [(group["name"], group["parameter_names"]) for group in named_groups(model.named_parameters())]
    [('matrices', ['0.weight']), ('vectors', ['0.bias', '1.weight', '1.bias'])]

    Frozen parameters are left out. Without ``part_of`` there is one part.
    """
    groups: dict[str, ParameterGroup] = {}
    for name, parameter in parameters:
        if not parameter.requires_grad:
            continue
        kind = kind_of(name, parameter)
        part = part_of(parameter) if part_of is not None else ""
        key = f"{part}/{kind}" if part else kind
        if key not in groups:
            groups[key] = {"name": key, "kind": kind, "part": part, "params": [], "parameter_names": []}
            if kind == "vectors":
                groups[key]["weight_decay"] = 0.0
        groups[key]["params"].append(parameter)
        groups[key]["parameter_names"].append(name)
    return list(groups.values())


def group_rows(groups: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Name, size, rate and weight decay of each group of an optimiser, as plain values."""
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


def group_table(rows: Sequence[dict[str, Any]], factors: Sequence[tuple[float, ...]], frozen: int) -> Table:
    """A table of the groups; ``factors`` of their rates are those at the first and the last step."""
    table = Table(title="parameter groups", title_justify="left")
    table.add_column("group", no_wrap=True)
    for column in ("tensors", "weights", "rate", "x first", "x last", "weight decay"):
        table.add_column(column, justify="right")
    for row, (first, last) in zip(rows, factors, strict=True):
        numbers = (f"{row['tensors']:,}", f"{row['weights']:,}", f"{row['lr']:.3g}", f"{first:g}", f"{last:g}")
        table.add_row(row["name"], *numbers, f"{row['weight_decay']:g}")
    if frozen:
        table.add_row("frozen", "", f"{frozen:,}", "-", "-", "-", "-")
    return table


def stored_order(state: dict[str, Any], groups: Sequence[ParameterGroup]) -> list[int]:
    """Index of the stored group that holds the parameters of each group, by name.

    A group may have been stored under the name of its part (MoGU's joint training before 0.1). InputError if the stored
    groups have other names or hold other parameters.
    """
    if any("parameter_names" not in group for group in state["param_groups"]):
        raise InputError(
            "ckpt_path: the parameter groups of the checkpoint do not name their parameters, so training cannot resume "
            "from it; test it, or start training anew"
        )
    stored = {group["name"]: index for index, group in enumerate(state["param_groups"])}
    order = [stored.get(group["name"], stored.get(group["part"], -1)) for group in groups]
    for group, index in zip(groups, order, strict=True):
        held = {name for g, i in zip(groups, order, strict=True) if i == index for name in g["parameter_names"]}
        if index < 0 or held != set(state["param_groups"][index]["parameter_names"]):
            raise InputError(
                f"ckpt_path: the checkpoint has no parameter group '{group['name']}' of these "
                f"{len(group['parameter_names'])} parameters, it has {', '.join(stored)}; resume with the "
                "learning_rates that it was trained with"
            )
    return order


def arranged_by_name(state: dict[str, Any], groups: Sequence[ParameterGroup]) -> dict[str, Any]:
    """An optimiser's ``state_dict()`` in the order of other groups; errors as in `stored_order`.

    Torch finds a parameter's state by its number, and numbers change with the groups.
    """
    stored = state["param_groups"]
    numbers = {n: number for g in stored for n, number in zip(g["parameter_names"], g["params"], strict=True)}
    arranged: dict[str, Any] = {"state": {}, "param_groups": []}
    first = 0
    for group, index in zip(groups, stored_order(state, groups), strict=True):
        names = group["parameter_names"]
        identity = {key: value for key, value in group.items() if key in ("name", "kind", "part", "parameter_names")}
        arranged["param_groups"].append(stored[index] | identity | {"params": [*range(first, first + len(names))]})
        for number, parameter in enumerate(names, start=first):
            if numbers[parameter] in state["state"]:
                arranged["state"][number] = state["state"][numbers[parameter]]
        first += len(names)
    return arranged


def arrange_checkpoint(checkpoint: dict[str, Any], groups: Sequence[ParameterGroup]) -> None:
    """Arrange optimiser and schedule of a checkpoint for these groups, in place; errors as in `stored_order`."""
    (optimizer,) = checkpoint["optimizer_states"]
    order = stored_order(optimizer, groups)
    checkpoint["optimizer_states"] = [arranged_by_name(optimizer, groups)]
    checkpoint["lr_schedulers"] = [arranged_schedule(state, order) for state in checkpoint["lr_schedulers"]]
