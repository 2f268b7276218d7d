"""How far the classifier drops when modules are perturbed (paper; spec, sec. 2)."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from torch import Tensor

from llm_modules.mllr.cached_forward import CLEAN, CachedForward, Signature
from llm_modules.mllr.perturb import SEEDED, Perturbation
from llm_modules.mllr.probe import Probe, Scores
from llm_modules.optim.module_names import Module

Measure = Literal["malicious", "accuracy", "auroc", "margin"]
"""What a drop is a drop of: the share of malicious prompts found (paper: "on malicious prompts above all"), the
accuracy on both classes, AUROC, or the malicious prompts' mean log-odds as a share of what it was."""


@dataclass(frozen=True)
class Measurement:
    """Scores under one perturbation, and how far they fell from those of the clean model.

    Attributes:
        modules: What was perturbed.
        seed: Of the perturbation.
        scores: Under it.
        drops: By measure; ``margin`` is relative to the clean margin.
    """

    modules: frozenset[Module]
    seed: int
    scores: Scores
    drops: dict[Measure, float]


@dataclass(frozen=True, eq=False)
class Meter:
    """Measures drops of a fixed classifier on labelled prompts.

    Several meters may share one ``CachedForward``: with other classifiers or other parts of its prompts they use the
    features that are there.

    Attributes:
        forward: Over all prompts, in parts.
        perturbation: Of the model that ``forward`` runs.
        probe: Stays as it is, whatever is done to the model.
        labels: By part, as the probe's.
        names: The part that stands for each name asked for, where it is another.
    """

    forward: CachedForward
    perturbation: Perturbation
    probe: Probe
    labels: Mapping[str, Tensor]
    names: Mapping[str, str] = field(default_factory=dict)

    def scores(self, modules: Iterable[Module], seed: int, part: str, base: Iterable[Module] = frozenset()) -> Scores:
        """Scores on a part of the prompts with modules perturbed; none for the clean model.

        Args:
            modules: What to perturb.
            seed: Of the perturbation.
            part: Name of a part of the prompts.
            base: A set that further calls will build on; its states are kept to restart from.
        """
        chosen, part = frozenset(modules), self.names.get(part, part)
        signature = self.signature(chosen, seed)
        with self.perturbation.applied(chosen, seed):
            features = self.forward.features(part, signature, self.signature(base, seed))
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

    def signature(self, modules: Iterable[Module], seed: int) -> Signature:
        """What a perturbation does to each layer."""
        draw = seed if self.perturbation.kind in SEEDED else 0
        types: dict[int, list[str]] = {}
        for module in sorted(modules):
            types.setdefault(module.layer, []).append(module.type)
        return tuple(
            (draw, tuple(types[layer])) if layer in types else CLEAN for layer in range(len(self.forward.layers))
        )

    def with_probe(self, probe: Probe) -> "Meter":
        """The same measurements by another classifier."""
        return replace(self, probe=probe)

    def with_parts(self, names: Mapping[str, str]) -> "Meter":
        """The same measurements on other parts of the prompts."""
        return replace(self, names=names)


def robustness_map(meter: Meter, seeds: Sequence[int], part: str) -> list[Measurement]:
    """Every module by itself, with every seed: the raw measurements of the heat map.

    In the order of layers from the deepest, so that what is shared is computed once.
    """
    modules = sorted(meter.perturbation.modules, key=lambda module: (-module.layer, module.type))
    return [meter.measure([module], seed, part) for module in modules for seed in seeds]


def mean_drops(measurements: Iterable[Measurement], measure: Measure) -> dict[Module, float]:
    """The mean drop over seeds of each module that was perturbed by itself."""
    drops: dict[Module, list[float]] = {}
    for found in measurements:
        (module,) = found.modules
        drops.setdefault(module, []).append(found.drops[measure])
    return {module: sum(values) / len(values) for module, values in drops.items()}
