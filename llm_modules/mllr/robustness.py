"""How far the security probe's scores drop when modules are perturbed (paper)."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from torch import Tensor

from llm_modules.mllr.cached_forward import CLEAN, CachedForward, Signature
from llm_modules.mllr.perturb import SEEDED, Perturbation
from llm_modules.mllr.probe import Scores, SecurityProbe
from llm_modules.optim.module_names import Module

Measure = Literal["malicious", "accuracy", "auroc", "margin"]
"""The score that a drop is taken of: share of malicious prompts found (paper: "on malicious prompts above all"),
accuracy on both classes, AUROC, or the malicious prompts' mean log-odds relative to those of the clean model."""


@dataclass(frozen=True)
class Measurement:
    """Scores under one perturbation and the drop of each measure; that of ``margin`` is relative to the clean one."""

    modules: frozenset[Module]
    seed: int
    scores: Scores
    drops: dict[Measure, float]


@dataclass(frozen=True, eq=False)
class Meter:
    """Measures drops of a fixed probe on labelled prompts.

    Meters with other probes or other parts of the prompts may share one ``CachedForward`` and its features. ``names``
    replaces parts: ``{"search": "check"}`` measures on ``check`` if ``search`` is asked for.
    """

    forward: CachedForward
    perturbation: Perturbation
    probe: SecurityProbe
    labels: Mapping[str, Tensor]
    names: Mapping[str, str] = field(default_factory=dict)

    def scores(self, modules: Iterable[Module], seed: int, part: str, base: Iterable[Module] = frozenset()) -> Scores:
        """Scores on a part of the prompts while modules are perturbed.

        ``base`` is a set that later calls extend: its activations are kept to restart from.
        """
        chosen, part = frozenset(modules), self.names.get(part, part)
        signature = self._signature(chosen, seed)
        with self.perturbation.applied(chosen, seed):
            features = self.forward.features(part, signature, self._signature(base, seed))
        return self.probe.scores(features, self.labels[part])

    def measure(
        self, modules: Iterable[Module], seed: int, part: str, base: Iterable[Module] = frozenset()
    ) -> Measurement:
        """Scores and drops under one perturbation; arguments as in `scores`."""
        chosen = frozenset(modules)
        clean, now = self.scores((), seed, part), self.scores(chosen, seed, part, base)
        drops: dict[Measure, float] = {
            "malicious": clean.malicious - now.malicious,
            "accuracy": clean.accuracy - now.accuracy,
            "auroc": clean.auroc - now.auroc,
            "margin": (clean.malicious_margin - now.malicious_margin) / max(1e-12, abs(clean.malicious_margin)),
        }
        return Measurement(chosen, seed, now, drops)

    def _signature(self, modules: Iterable[Module], seed: int) -> Signature:
        draw = seed if self.perturbation.kind in SEEDED else 0
        types: dict[int, list[str]] = {}
        for module in sorted(modules):
            types.setdefault(module.layer, []).append(module.type)
        return tuple(
            (draw, tuple(types[layer])) if layer in types else CLEAN for layer in range(len(self.forward.layers))
        )

    def with_probe(self, probe: SecurityProbe) -> "Meter":
        """A meter that differs in its probe."""
        return replace(self, probe=probe)

    def with_parts(self, names: Mapping[str, str]) -> "Meter":
        """A meter that measures on other parts of the prompts."""
        return replace(self, names=names)


def robustness_map(meter: Meter, seeds: Sequence[int], part: str) -> list[Measurement]:
    """Measure every module by itself with every seed: the raw data of the heat map.

    Starts at the deepest layer, so that shared layers are computed once.
    """
    modules = sorted(meter.perturbation.modules, key=lambda module: (-module.layer, module.type))
    return [meter.measure([module], seed, part) for module in modules for seed in seeds]


def mean_drops(measurements: Iterable[Measurement], measure: Measure) -> dict[Module, float]:
    """Mean drop over seeds of each module that was perturbed by itself."""
    drops: dict[Module, list[float]] = {}
    for found in measurements:
        (module,) = found.modules
        drops.setdefault(module, []).append(found.drops[measure])
    return {module: sum(values) / len(values) for module, values in drops.items()}
