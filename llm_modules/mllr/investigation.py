"""From prompts to robust modules: probe, map, search and how stable the result is."""

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from datamodules.errors import InputError
from llm_modules.mllr.cached_forward import CLEAN, CachedForward, Work
from llm_modules.mllr.perturb import SEEDED, Kind, Perturbation
from llm_modules.mllr.probe import BENIGN, MALICIOUS, Probe, Scores, fit_probe, require_accuracy
from llm_modules.mllr.robustness import Measurement, Meter, robustness_map
from llm_modules.mllr.search import Found, Search, SearchSettings, expected_probes, overlap
from llm_modules.mllr.weights import checksum
from llm_modules.optim.module_names import Module, fused

FIT, GUIDE = 0.5, 0.25
"""Shares of the pairs that fit the classifier and that guide the search; the rest is for the re-check (ours)."""
OTHER_SEEDS = 1000
"""What the seeds of the stability report's other search are counted from."""


@dataclass(frozen=True)
class ProxySettings:
    """Everything that a result depends on beside model and prompts.

    Attributes:
        perturbation: Kind.
        eps: Sizes relative to the weights, ascending; the smallest at which some type breaks in all layers is used.
        floor: Accuracy on held-out pairs under which nothing is searched (ours).
        l2: Penalty of the classifier (ours).
        split_seed: Of the split of the pairs.
        stability: Whether to repeat the search with other seeds, classifiers and data.
        batch_size: Prompts of a forward pass.
        memory_gb: What kept activations may take.
        search: Of the search itself.
    """

    perturbation: Kind = "gaussian"
    eps: tuple[float, ...] = (0.6,)
    floor: float = 0.9
    l2: float = 1.0
    split_seed: int = 0
    stability: bool = True
    batch_size: int = 32
    memory_gb: float = 1.0
    search: SearchSettings = field(default_factory=SearchSettings)

    def __post_init__(self) -> None:
        if not self.eps or list(self.eps) != sorted(set(self.eps)):
            raise InputError(f"eps: give one size or several, ascending, not {list(self.eps)}")
        if not 0 <= self.floor <= 1:
            raise InputError(f"floor: an accuracy from 0 (no floor) to 1, not {self.floor:g}")


@dataclass(frozen=True, eq=False)
class Investigation:
    """What was found.

    Attributes:
        found: The search's result.
        measurements: Every module by itself: (eps, measurement) for each eps that was looked at.
        eps: The one that the search used.
        probe: The classifier.
        scores: Its scores on held-out pairs, unperturbed.
        stability: Overlap with the sets of other searches, by what was changed.
        fused: Types that share weights.
        work: Layer evaluations.
        seconds: Wall time.
        n_pairs: Pairs by part.
    """

    found: Found
    measurements: tuple[tuple[float, Measurement], ...]
    eps: float
    probe: Probe
    scores: Scores
    stability: dict[str, float]
    fused: tuple[tuple[str, ...], ...]
    work: Work
    seconds: float
    n_pairs: dict[str, int]


def split_pairs(families: Sequence[int], seed: int) -> dict[str, list[int]]:
    """Pairs for ``fit``, ``search`` and ``check``; those that share a text fall into one part.

    Raises:
        InputError: A part would be empty.
    """
    groups = sorted(set(families))
    random.Random(f"{seed}/pairs").shuffle(groups)
    rank = {group: position for position, group in enumerate(groups)}
    order = sorted(range(len(families)), key=lambda index: (rank[families[index]], index))
    parts: dict[str, list[int]] = {"fit": [], "search": [], "check": []}
    borders = {"fit": FIT * len(order), "search": (FIT + GUIDE) * len(order), "check": len(order)}
    part_of: dict[int, str] = {}
    for position, index in enumerate(order):
        family = families[index]
        part_of.setdefault(family, next(part for part, border in borders.items() if position < border))
        parts[part_of[family]].append(index)
    if empty := [part for part, members in parts.items() if len(members) < 2]:
        raise InputError(
            f"data: {len(families)} pairs in {len(groups)} families (pairs that share a text) leave too few for "
            f"{', '.join(empty)}; give more pairs"
        )
    return parts


def investigate(
    model: nn.Module,
    malicious: Sequence[Sequence[int]],
    benign: Sequence[Sequence[int]],
    families: Sequence[int],
    settings: ProxySettings,
    *,
    pilot: nn.Module | None = None,
    pad_id: int = 0,
    report: Callable[[str], None] = lambda _: None,
    restart: bool = True,
) -> Investigation:
    """Fit the classifier, map the modules, search, and repeat the search for its stability.

    Args:
        model: A causal language model; its weights are the same bits afterwards, which is checked.
        malicious: Token ids of the malicious prompts.
        benign: Of their benign twins, in the same order.
        families: As `datamodules.mllr.twin_data.families` gives them.
        settings: Everything else.
        pilot: For the ``delta`` perturbation.
        pad_id: Any token.
        report: Told what comes next, and how long about.
        restart: False re-runs the whole forward pass for each probe: for comparison.

    Raises:
        InputError: The classifier does not tell the classes apart, or an argument does not fit the model.
    """
    start = time.monotonic()
    before = checksum(model)
    parts = split_pairs(families, settings.split_seed)
    prompts = {part: [side[i] for side in (malicious, benign) for i in members] for part, members in parts.items()}
    labels = {
        part: torch.tensor([MALICIOUS, BENIGN]).repeat_interleave(len(members)) for part, members in parts.items()
    }
    memory = int(settings.memory_gb * 2**30)
    forward = CachedForward(
        model, prompts, batch_size=settings.batch_size, memory=memory, pad_id=pad_id, restart=restart
    )
    clean = (CLEAN,) * len(forward.layers)
    features = forward.features("fit", clean)
    probe = fit_probe(features, labels["fit"], settings.l2)
    perturbation = Perturbation(model, settings.perturbation, settings.eps[0], pilot)
    meter = Meter(forward, perturbation, probe, labels)
    clock = time.monotonic()
    held = torch.cat([forward.features(part, clean) for part in ("search", "check")])
    clean_seconds = (time.monotonic() - clock) / 2
    scores = probe.scores(held, torch.cat([labels["search"], labels["check"]]))
    report(f"probe: accuracy {scores.accuracy:.3f}, AUROC {scores.auroc:.3f}, margin {scores.margin:.2f}")
    require_accuracy(scores, settings.floor)
    report(_estimate(perturbation, settings, clean_seconds))

    measurements: list[tuple[float, Measurement]] = []
    for eps in settings.eps:
        perturbation.eps = eps
        forward.forget()
        measurements += [(eps, one) for one in robustness_map(meter, _seeds(settings), "search")]
        if eps == settings.eps[-1] or _breaks(meter, settings):
            break
    groups = tuple(fused(model))
    found = Search(meter, _settings(settings), groups).run()
    stability = _stability(meter, settings, groups, features, labels["fit"], found) if settings.stability else {}
    if checksum(model) != before:
        raise RuntimeError("the weights are not what they were before the search")
    forward.forget()
    counts = {part: len(members) for part, members in parts.items()}
    return Investigation(
        found,
        tuple(measurements),
        perturbation.eps,
        probe,
        scores,
        stability,
        groups,
        forward.work,
        time.monotonic() - start,
        counts,
    )


def _estimate(perturbation: Perturbation, settings: ProxySettings, clean_seconds: float) -> str:
    modules = perturbation.modules
    types, layers = len({m.type for m in modules}), 1 + max(m.layer for m in modules)
    probes = expected_probes(types, layers, _settings(settings), 4 if settings.stability else 0)
    probes += types * layers * len(_seeds(settings)) * (len(settings.eps) - 1)
    # A restarted pass runs about half of the layers; repeats of the search find most features kept.
    seconds = probes * clean_seconds * 0.6
    length = f"{seconds / 60:.0f} min" if seconds >= 90 else f"{seconds:.0f} s"
    return f"{probes} probes of {len(modules)} modules in {layers} layers, at most about {length}"


def _breaks(meter: Meter, settings: ProxySettings) -> bool:
    """Whether perturbing some type in all layers drops by more than tau: below that, everything looks robust."""
    for kind in {module.type for module in meter.perturbation.modules}:
        every = [module for module in meter.perturbation.modules if module.type == kind]
        seeds = _seeds(settings)
        drops = [meter.measure(every, seed, "search").drops[settings.search.measure] for seed in seeds]
        if sum(drops) / len(drops) > settings.search.tau:
            return True
    return False


def _seeds(settings: ProxySettings) -> tuple[int, ...]:
    """One seed is as good as many where nothing is drawn."""
    return settings.search.seeds if settings.perturbation in SEEDED else settings.search.seeds[:1]


def _settings(settings: ProxySettings, first_seed: int = 0) -> SearchSettings:
    search = settings.search
    drawn = settings.perturbation in SEEDED
    return SearchSettings(
        search.tau,
        search.measure,
        tuple(seed + first_seed for seed in _seeds(settings)),
        tuple(seed + first_seed for seed in (search.check_seeds if drawn else search.check_seeds[:1])),
        search.suffix,
    )


def _stability(
    meter: Meter,
    settings: ProxySettings,
    groups: Sequence[tuple[str, ...]],
    features: Tensor,
    labels: Tensor,
    found: Found,
) -> dict[str, float]:
    """Overlap of the result with those of other seeds, classifiers (each of half of the pairs) and data."""

    def search(meter: Meter, first_seed: int = 0) -> frozenset[Module]:
        return Search(meter, _settings(settings, first_seed), groups).run().robust

    pairs = torch.arange(len(labels) // 2)
    halves = [torch.cat([half, half + len(pairs)]) for half in (pairs[::2], pairs[1::2])]
    probes = [fit_probe(features[half], labels[half], settings.l2) for half in halves]
    swapped = meter.with_parts({"search": "check", "check": "search"})
    sets = {
        "other classifier (first half of the pairs)": search(meter.with_probe(probes[0])),
        "other classifier (second half of the pairs)": search(meter.with_probe(probes[1])),
        "other data (search and check swapped)": search(swapped),
    }
    if settings.perturbation in SEEDED:
        sets["other seeds"] = search(meter, OTHER_SEEDS)
    return {name: round(overlap(found.robust, other), 6) for name, other in sets.items()}
