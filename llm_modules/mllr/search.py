"""The search for the robust modules, guided by the security probe.

The paper says that there is such a search and what guides it; its steps are ours.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from datamodules.errors import InputError
from llm_modules.mllr.robustness import Measure, Meter
from llm_modules.optim.module_names import TYPES, Module

Suffix = Literal["bisection", "linear"]


@dataclass(frozen=True)
class SearchSettings:
    """What the search allows and how it looks.

    Attributes:
        tau: Greatest mean drop of ``measure`` that counts as robust. 0.3 is what `configs/mllr` searches with (ours).
        measure: The score that drops are taken of (``margin``: ours).
        seeds: Seeds of the perturbations that guide the search; at least three if the perturbation is random (ours).
        check_seeds: Fresh seeds for the re-check of the whole set.
        suffix: ``bisection`` assumes that a longer suffix of layers drops further; ``linear`` measures every suffix.
    """

    tau: float = 0.3
    measure: Measure = "margin"
    seeds: tuple[int, ...] = (0, 1, 2)
    check_seeds: tuple[int, ...] = (100, 101, 102)
    suffix: Suffix = "bisection"

    def __post_init__(self) -> None:
        if not 0 < self.tau < 1:
            raise InputError(f"tau: must be above 0 and below 1 (a drop of {self.measure}), is {self.tau:g}")
        if not self.seeds or not self.check_seeds or set(self.seeds) & set(self.check_seeds):
            raise InputError("seeds, check_seeds: give some of each, and none in both: the re-check needs fresh ones")

    def with_one_seed(self) -> "SearchSettings":
        """The same search for a perturbation that draws nothing: further seeds would repeat the first."""
        return replace(self, seeds=self.seeds[:1], check_seeds=self.check_seeds[:1])


@dataclass(frozen=True)
class Found:
    """The result of a search.

    Attributes:
        robust: The robust modules.
        order: Joint drop of each type, the least first.
        trace: Every set that was measured, in order.
        non_monotone: Cases in which a longer suffix dropped less than a shorter one, in words.
        unfused: Modules given up because another type of their fused weight is not robust.
        drop: Drop of the whole set, with fresh seeds on held-out prompts.
    """

    robust: frozenset[Module]
    order: dict[str, float]
    trace: tuple[dict[str, Any], ...]
    non_monotone: tuple[str, ...]
    unfused: tuple[Module, ...]
    drop: float


@dataclass
class Search:
    """One run of the search.

    1. Types are ordered by their joint drop in all layers, the least first.
    2. For each type, the lowest layer is found from which on the type can be perturbed together with the modules found
       so far, within tau.
    3. The whole set is measured again with fresh seeds on held-out prompts. While it drops by more than tau, every
       type loses its lowest layer.

    The ``meter`` has the parts ``search`` and ``check``; types in a group of ``fused`` share a weight.
    """

    meter: Meter
    settings: SearchSettings
    fused: Sequence[tuple[str, ...]] = ()
    _trace: list[dict[str, Any]] = field(default_factory=list, init=False)
    _bends: list[str] = field(default_factory=list, init=False)

    def run(self) -> Found:
        """Search; takes minutes on real models."""
        layers = self._layers()
        order = {kind: self._joint_drop(kind, layers[kind]) for kind in layers}
        order = dict(sorted(order.items(), key=lambda item: (item[1], TYPES.index(item[0]))))
        lowest: dict[str, int] = {}
        robust: frozenset[Module] = frozenset()
        for kind in order:
            lowest[kind] = self._suffix(kind, layers[kind], robust)
            robust |= _suffix_of(kind, layers[kind], lowest[kind])
        robust, unfused = self._whole_weights(robust)
        robust, drop = self._recheck(robust)
        return Found(robust, order, tuple(self._trace), tuple(self._bends), unfused, drop)

    def _layers(self) -> dict[str, list[int]]:
        found: dict[str, list[int]] = {}
        for module in self.meter.perturbation.modules:
            found.setdefault(module.type, []).append(module.layer)
        return {kind: sorted(layers) for kind, layers in found.items()}

    def _joint_drop(self, kind: str, layers: Sequence[int]) -> float:
        return self._measure("order", _suffix_of(kind, layers, 0), kind, layers[0])

    def _suffix(self, kind: str, layers: Sequence[int], robust: frozenset[Module]) -> int:
        """Index of the lowest layer from which on the type can join; ``len(layers)`` if it cannot."""
        drops: dict[int, float] = {}

        def within(index: int) -> bool:
            modules = robust | _suffix_of(kind, layers, index)
            drops[index] = self._measure("suffix", modules, kind, layers[index], base=robust)
            return drops[index] <= self.settings.tau

        if self.settings.suffix == "linear":
            inside = [within(index) for index in range(len(layers) - 1, -1, -1)]
            depth = inside.index(False) if False in inside else len(inside)
            best = len(layers) - depth
        else:
            best, failed = len(layers), -1
            while best - failed > 1:
                middle = (best + failed) // 2
                if within(middle):
                    best = middle
                else:
                    failed = middle
        self._note_bends(kind, layers, drops)
        return best

    def _note_bends(self, kind: str, layers: Sequence[int], drops: dict[int, float]) -> None:
        tau = self.settings.tau
        for index in sorted(drops):
            worse = [other for other in drops if other > index and drops[other] > drops[index]]
            if worse and (drops[index] <= tau < max(drops[other] for other in worse)):
                shorter = max(worse, key=lambda other: drops[other])
                self._bends.append(
                    f"{kind}: from layer {layers[shorter]} on the drop is {drops[shorter]:.3f}, more than tau, but "
                    f"from layer {layers[index]} on it is {drops[index]:.3f}"
                )

    def _whole_weights(self, robust: frozenset[Module]) -> tuple[frozenset[Module], tuple[Module, ...]]:
        """Drop types that share a weight with a type that is not robust."""
        given_up = {
            module
            for group in self.fused
            for module in robust
            if module.type in group and not {Module(module.layer, kind) for kind in group} <= robust
        }
        return robust - given_up, tuple(sorted(given_up))

    def _recheck(self, robust: frozenset[Module]) -> tuple[frozenset[Module], float]:
        drop = self._measure("check", robust, fresh=True)
        while robust and drop > self.settings.tau:
            lowest = {kind: min(m.layer for m in robust if m.type == kind) for kind in {m.type for m in robust}}
            robust = frozenset(module for module in robust if module.layer > lowest[module.type])
            robust, _ = self._whole_weights(robust)
            drop = self._measure("shrink", robust, fresh=True)
        return robust, drop

    def _measure(
        self,
        step: str,
        modules: frozenset[Module],
        kind: str = "",
        from_layer: int | None = None,
        base: Iterable[Module] = frozenset(),
        fresh: bool = False,
    ) -> float:
        """Mean drop over seeds; goes into the trace."""
        seeds = self.settings.check_seeds if fresh else self.settings.seeds
        rows = "check" if fresh else "search"
        found = [self.meter.measure(modules, seed, rows, base) for seed in seeds]
        measures: tuple[Measure, ...] = ("malicious", "accuracy", "auroc", "margin")
        drops = {m: sum(one.drops[m] for one in found) / len(found) for m in measures}
        drop = drops[self.settings.measure]
        self._trace.append(
            {
                "step": step,
                "type": kind,
                "from_layer": from_layer,
                "modules": len(modules),
                "seeds": list(seeds),
                "drop": round(drop, 6),
                "within": drop <= self.settings.tau,
                **{f"{name}_drop": round(value, 6) for name, value in drops.items()},
            }
        )
        return drop


def overlap(one: frozenset[Module], other: frozenset[Module]) -> float:
    """Intersection over union; 1 for two empty sets."""
    return len(one & other) / len(one | other) if one | other else 1.0


def expected_measurements(types: int, layers: int, settings: SearchSettings, variants: int = 0) -> int:
    """About how many perturbed models a map, a search and ``variants`` repeats of it measure."""
    per_type = layers if settings.suffix == "linear" else max(1, layers.bit_length())
    seeds, check = len(settings.seeds), len(settings.check_seeds)
    search = (types + types * per_type) * seeds + check
    return types * layers * seeds + search * (1 + variants)


def _suffix_of(kind: str, layers: Sequence[int], index: int) -> frozenset[Module]:
    return frozenset(Module(layer, kind) for layer in layers[index:])
