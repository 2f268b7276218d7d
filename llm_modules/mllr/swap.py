"""The causal check: replace modules of one model by those of another for a while (ours)."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from torch import Tensor, nn

from datamodules.errors import InputError
from llm_modules.optim.module_names import TYPES, Module, parameters_by_module


class Swap:
    """Replaces modules of a model by those of another of the same shape, such as a fine-tune of it.

    The search says which modules the probe depends on. Swapping says which modules *carry* a behaviour: take them from
    the model that has it, put them into the one that has lost it, and see whether it comes back.

    >>> from llm_modules.backbone.loading import load_model
    >>> aligned, tuned = load_model("miniature"), load_model("miniature")
    >>> swap = Swap(tuned, aligned)
    >>> with swap.applied(swap.sets["down"]):
    ...     pass  # measure the refusals of `tuned` with the down-projections of `aligned`
    >>> max(swap.changed().values())
    0.0
    """

    def __init__(self, model: nn.Module, donor: nn.Module) -> None:
        """Compare the models; raises ``InputError`` if their modules or shapes differ."""
        here, there = (_by_module(m) for m in (model, donor))
        shapes = [{key: [tuple(p.shape) for p in found] for key, found in side.items()} for side in (here, there)]
        if shapes[0] != shapes[1]:
            raise InputError("swap: the two models have different modules; give one and a fine-tune of it")
        self._here, self._there = here, there

    @property
    def sets(self) -> dict[str, frozenset[Module]]:
        """Sets to swap together: each type in all layers, each layer with all types, and all modules."""
        every = frozenset(module for modules in self._here for module in modules)
        types = [kind for kind in TYPES if any(module.type == kind for module in every)]
        layers = sorted({module.layer for module in every})
        return {
            **{kind: frozenset(m for m in every if m.type == kind) for kind in types},
            **{f"layer {layer}": frozenset(m for m in every if m.layer == layer) for layer in layers},
            "all modules": every,
        }

    def changed(self) -> dict[Module, float]:
        """Relative distance of each module from its counterpart: |difference| / |weights|."""
        found: dict[Module, tuple[float, float]] = {}
        for modules, mine in self._here.items():
            pairs = zip(mine, self._there[modules], strict=True)
            moved = sum(float((a.detach().float() - b.detach().float()).square().sum()) for a, b in pairs)
            size = sum(float(a.detach().float().square().sum()) for a in mine)
            for module in modules:
                before = found.get(module, (0.0, 0.0))
                found[module] = (before[0] + moved, before[1] + size)
        return {module: (moved / max(size, 1e-30)) ** 0.5 for module, (moved, size) in found.items()}

    @contextmanager
    def applied(self, modules: Iterable[Module]) -> Iterator[None]:
        """Use the donor's modules within the block; a fused weight is replaced if any of its types is given."""
        chosen = set(modules)
        copies: list[tuple[Tensor, Tensor]] = []
        try:
            for owners, mine in self._here.items():
                if chosen & set(owners):
                    for parameter, other in zip(mine, self._there[owners], strict=True):
                        weights = parameter.detach()
                        copies.append((weights, weights.clone()))
                        weights.copy_(other.detach())
            yield
        finally:
            for weights, copy in reversed(copies):
                weights.copy_(copy)


@dataclass(frozen=True)
class SwapRow:
    """Refusals with some modules swapped, as shares of the prompts.

    Attributes:
        swapped: Name of the modules, as in `Swap.sets`; "nothing" for both models as they are.
        tuned_restored: Of the fine-tuned model with these modules of the aligned one.
        aligned_tuned: Of the aligned model with these modules of the fine-tuned one.
        relative_change: Mean relative change of these modules, see `Swap.changed`.
    """

    swapped: str
    tuned_restored: float
    aligned_tuned: float
    relative_change: float


def swap_both_ways(tuned: nn.Module, aligned: nn.Module, refused: Callable[[nn.Module], float]) -> Iterator[SwapRow]:
    """Swap every set of modules between a fine-tune and the model that it was made from, and measure their refusals.

    ``refused`` measures the share of prompts that one of the two models refuses with its current weights.
    """
    restore, lose = Swap(tuned, aligned), Swap(aligned, tuned)
    moved = restore.changed()
    yield SwapRow("nothing", refused(tuned), refused(aligned), 0.0)
    for name, modules in restore.sets.items():
        with restore.applied(modules):
            back = refused(tuned)
        with lose.applied(modules):
            gone = refused(aligned)
        yield SwapRow(name, back, gone, sum(moved[m] for m in modules) / len(modules))


def _by_module(model: nn.Module) -> dict[tuple[Module, ...], list[nn.Parameter]]:
    found: dict[tuple[Module, ...], list[nn.Parameter]] = {}
    for parameter, modules in parameters_by_module(model):
        if modules:
            found.setdefault(modules, []).append(parameter)
    return found
