"""From prompts to robust modules: fit the probe, map the modules, search, and see how stable the result is."""

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from datamodules.errors import InputError
from llm_modules.mllr.cached_forward import CachedForward, Work
from llm_modules.mllr.perturb import SEEDED, Kind, Perturbation
from llm_modules.mllr.probe import BENIGN, MALICIOUS, Scores, SecurityProbe, require_accuracy
from llm_modules.mllr.robustness import Measurement, Meter, robustness_map
from llm_modules.mllr.search import Found, Search, SearchSettings, expected_measurements, overlap
from llm_modules.mllr.weights import checksum
from llm_modules.optim.module_names import Module, fused

FIT, GUIDE = 0.5, 0.25
"""Shares of the pairs that fit the probe and that guide the search; the rest is for the re-check (ours)."""
OTHER_SEEDS = 1000
"""Added to the seeds for the search that the stability report repeats with other noise."""


@dataclass(frozen=True)
class ProxySettings:
    """How the probe is fitted and how modules are perturbed.

    Attributes:
        perturbation: ``gaussian``, ``zero``, ``scale`` or ``delta`` (needs a pilot), see `Perturbation`.
        eps: Sizes relative to the weights, ascending; the smallest at which some type breaks in all layers is used.
        floor: Accuracy of the probe on held-out pairs under which the search is refused (ours).
        l2: Penalty of the probe (ours).
        split_seed: Seed of the split of the pairs.
        stability: Repeat the search with other seeds, probes and data, and report the overlap.
        batch_size: Prompts in a forward pass.
        memory_gb: Memory for kept activations.
    """

    perturbation: Kind = "gaussian"
    eps: tuple[float, ...] = (0.6,)
    floor: float = 0.9
    l2: float = 1.0
    split_seed: int = 0
    stability: bool = True
    batch_size: int = 32
    memory_gb: float = 1.0

    def __post_init__(self) -> None:
        if not self.eps or list(self.eps) != sorted(set(self.eps)):
            raise InputError(f"eps: give one size or several, ascending, not {list(self.eps)}")
        if not 0 <= self.floor <= 1:
            raise InputError(f"floor: an accuracy from 0 (no floor) to 1, not {self.floor:g}")


@dataclass(frozen=True, eq=False)
class Investigation:
    """The result of `investigate`.

    ``measurements`` has every module by itself at each eps that was tried, ``eps`` the size that the search used,
    ``scores`` the probe's scores on held-out pairs with clean weights, and ``stability`` the overlap with the sets of
    repeated searches.
    """

    found: Found
    measurements: tuple[tuple[float, Measurement], ...]
    eps: float
    probe: SecurityProbe
    scores: Scores
    stability: dict[str, float]
    fused: tuple[tuple[str, ...], ...]
    work: Work
    seconds: float
    n_pairs: dict[str, int]


def split_pairs(families: Sequence[int], seed: int) -> dict[str, list[int]]:
    """Split pairs into ``fit``, ``search`` and ``check``; pairs of a family (that share a text) stay together.

    InputError if a part would have fewer than two pairs.
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
    proxy: ProxySettings,
    search: SearchSettings,
    *,
    pilot: nn.Module | None = None,
    pad_id: int = 0,
    report: Callable[[str], None] = lambda _: None,
    restart: bool = True,
) -> Investigation:
    """Fit the probe, map the modules, search, and repeat the search to see how stable its result is.

    Args:
        model: Its weights are the same bits afterwards; a checksum is compared.
        malicious: Token ids of malicious prompts.
        benign: Token ids of their twins, in the same order.
        families: Family of each pair, see `datamodules.mllr.twin_data.families`.
        proxy: How the probe is fitted and how modules are perturbed.
        search: How the search goes.
        pilot: The model after a short fine-tune, for the ``delta`` perturbation.
        pad_id: Any token.
        report: Called with a line about what comes next and how long it may take.
        restart: False runs the whole forward pass for each measurement, for comparison.

    Raises:
        InputError: The probe does not tell the classes apart, or an argument does not fit the model.
    """
    start, before = time.monotonic(), checksum(model)
    parts = split_pairs(families, proxy.split_seed)
    prompts = {part: [side[i] for side in (malicious, benign) for i in members] for part, members in parts.items()}
    labels = {part: torch.tensor([MALICIOUS, BENIGN]).repeat_interleave(len(ids)) for part, ids in parts.items()}
    memory = int(proxy.memory_gb * 2**30)
    forward = CachedForward(model, prompts, batch_size=proxy.batch_size, memory=memory, pad_id=pad_id, restart=restart)
    features = forward.features("fit", forward.clean)
    probe = SecurityProbe.fit(features, labels["fit"], proxy.l2)
    meter = Meter(forward, Perturbation(model, proxy.perturbation, proxy.eps[0], pilot), probe, labels)
    scores, seconds = _held_out(meter)
    report(f"probe: accuracy {scores.accuracy:.3f}, AUROC {scores.auroc:.3f}, margin {scores.margin:.2f}")
    require_accuracy(scores, proxy.floor)
    search = search if proxy.perturbation in SEEDED else search.with_one_seed()
    report(_estimate(meter, proxy, search, seconds))

    measurements = _map(meter, proxy, search)
    groups = tuple(fused(model))
    found = Search(meter, search, groups).run()
    stability = {}
    if proxy.stability:
        halves = [SecurityProbe.fit(features[half], labels["fit"][half], proxy.l2) for half in _halves(labels["fit"])]
        stability = _stability(meter, search, groups, halves, found)
    if checksum(model) != before:
        raise RuntimeError("the weights are not what they were before the search")
    forward.forget()
    return Investigation(
        found=found,
        measurements=tuple(measurements),
        eps=meter.perturbation.eps,
        probe=probe,
        scores=scores,
        stability=stability,
        fused=groups,
        work=forward.work,
        seconds=time.monotonic() - start,
        n_pairs={part: len(members) for part, members in parts.items()},
    )


def _held_out(meter: Meter) -> tuple[Scores, float]:
    """Scores on the held-out pairs with clean weights, and the seconds that one part of them took."""
    forward, parts, start = meter.forward, ("search", "check"), time.monotonic()
    features = torch.cat([forward.features(part, forward.clean) for part in parts])
    seconds = (time.monotonic() - start) / 2
    return meter.probe.scores(features, torch.cat([meter.labels[part] for part in parts])), seconds


def _estimate(meter: Meter, proxy: ProxySettings, search: SearchSettings, clean_seconds: float) -> str:
    modules = meter.perturbation.modules
    types, layers = len({m.type for m in modules}), 1 + max(m.layer for m in modules)
    n = expected_measurements(types, layers, search, 4 if proxy.stability else 0)
    n += types * layers * len(search.seeds) * (len(proxy.eps) - 1)
    # A restarted pass runs about half of the layers; repeats of the search find most features kept.
    seconds = n * clean_seconds * 0.6
    length = f"{seconds / 60:.0f} min" if seconds >= 90 else f"{seconds:.0f} s"
    return f"{n} measurements of {len(modules)} modules in {layers} layers, at most about {length}"


def _map(meter: Meter, proxy: ProxySettings, search: SearchSettings) -> list[tuple[float, Measurement]]:
    """Every module by itself at each eps, up to the first at which some type breaks."""
    measurements: list[tuple[float, Measurement]] = []
    for eps in proxy.eps:
        meter.perturbation.eps = eps
        meter.forward.forget()
        measurements += [(eps, one) for one in robustness_map(meter, search.seeds, "search")]
        if eps == proxy.eps[-1] or _breaks(meter, search):
            break
    return measurements


def _breaks(meter: Meter, search: SearchSettings) -> bool:
    """Whether some type drops by more than tau if perturbed in all layers; at a smaller eps everything looks robust."""
    for kind in {module.type for module in meter.perturbation.modules}:
        every = [module for module in meter.perturbation.modules if module.type == kind]
        drops = [meter.measure(every, seed, "search").drops[search.measure] for seed in search.seeds]
        if sum(drops) / len(drops) > search.tau:
            return True
    return False


def _halves(labels: Tensor) -> list[Tensor]:
    """Rows of every other pair, and of the pairs between them."""
    pairs = torch.arange(len(labels) // 2)
    return [torch.cat([half, half + len(pairs)]) for half in (pairs[::2], pairs[1::2])]


def _stability(
    meter: Meter, search: SearchSettings, groups: Sequence[tuple[str, ...]], halves: list[SecurityProbe], found: Found
) -> dict[str, float]:
    """Overlap of the result with those of other probes (each fitted on half of the pairs), other data, other seeds."""

    def robust(meter: Meter, settings: SearchSettings = search) -> frozenset[Module]:
        return Search(meter, settings, groups).run().robust

    swapped = meter.with_parts({"search": "check", "check": "search"})
    sets = {
        "other classifier (first half of the pairs)": robust(meter.with_probe(halves[0])),
        "other classifier (second half of the pairs)": robust(meter.with_probe(halves[1])),
        "other data (search and check swapped)": robust(swapped),
    }
    if meter.perturbation.kind in SEEDED:
        seeds, checks = (tuple(s + OTHER_SEEDS for s in some) for some in (search.seeds, search.check_seeds))
        sets["other seeds"] = robust(meter, replace(search, seeds=seeds, check_seeds=checks))
    return {name: round(overlap(found.robust, other), 6) for name, other in sets.items()}
