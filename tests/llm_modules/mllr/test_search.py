"""The search on meters whose drops are known, and the whole way on a real model."""

from collections.abc import Callable, Iterable
from typing import Any

import pytest
import torch

from datamodules.errors import InputError
from llm_modules.mllr.investigation import ProxySettings, investigate, split_pairs
from llm_modules.mllr.robustness import Measurement
from llm_modules.mllr.search import Found, Search, SearchSettings, expected_measurements, overlap
from llm_modules.mllr.weights import checksum
from llm_modules.optim.module_names import Module
from tests.architectures import ARCHITECTURES

LAYERS = 8
Drop = Callable[[frozenset[Module], int, str], float]


class KnownMeter:
    """A meter whose drop is a given function of (modules, seed, part)."""

    def __init__(self, drop: Drop, types: Iterable[str] = ("q", "v", "down")) -> None:
        self.drop = drop
        self.perturbation: Any = self
        self.modules = [Module(layer, kind) for kind in types for layer in range(LAYERS)]

    def measure(self, modules: frozenset[Module], seed: int, rows: str, base: Any = ()) -> Measurement:
        drop = self.drop(modules, seed, rows)
        none: Any = None
        return Measurement(modules, seed, none, {"malicious": drop, "accuracy": drop, "auroc": drop, "margin": drop})


def search(drop: Drop, fused: Any = (), types: Iterable[str] = ("q", "v", "down"), **settings: Any) -> Found:
    meter: Any = KnownMeter(drop, types)
    options: Any = {"tau": 0.1, "measure": "malicious"} | settings
    return Search(meter, SearchSettings(**options), fused).run()


def additive(cost: Callable[[Module], float]) -> Drop:
    return lambda modules, seed, rows: sum(map(cost, modules))


EARLY = additive(lambda m: {"q": 0.05, "v": 0.004, "down": 0.01}[m.type] * (LAYERS - m.layer) / LAYERS)


@pytest.mark.parametrize("suffix", ["bisection", "linear"])
def test_it_takes_types_by_joint_drop_and_the_longest_suffix_of_each(suffix: Any) -> None:
    found = search(EARLY, suffix=suffix)
    assert list(found.order) == ["v", "down", "q"]
    assert [found.order[kind] for kind in found.order] == sorted(found.order.values())
    for kind in ("q", "v", "down"):
        layers = {m.layer for m in found.robust if m.type == kind}
        assert layers == set(range(LAYERS - len(layers), LAYERS)), "deep layers are the robust ones"
    robust = set(found.robust)
    assert EARLY(frozenset(robust), 0, "search") <= 0.1
    lowest = min(m.layer for m in robust if m.type == "q")
    assert EARLY(frozenset(robust | {Module(lowest - 1, "q")}), 0, "search") > 0.1, "one more would be too many"


def test_bisection_and_linear_agree_where_longer_is_worse() -> None:
    linear, halving = search(EARLY, suffix="linear"), search(EARLY, suffix="bisection")
    assert linear.robust == halving.robust
    assert len(halving.trace) < len(linear.trace)


def test_modules_that_are_robust_one_by_one_may_break_together() -> None:
    """Each type alone, in all layers, is within tau; all together are not (paper)."""
    together = lambda modules, seed, rows: 0.9 if len({m.type for m in modules}) > 1 else 0.0  # noqa: E731
    found = search(together)
    assert max(found.order.values()) == 0.0
    assert {m.type for m in found.robust} == {"q"}


def test_the_re_check_has_fresh_seeds_and_prompts_and_shrinks_until_it_holds() -> None:
    asked: list[tuple[int, str]] = []

    def optimistic(modules: frozenset[Module], seed: int, rows: str) -> float:
        asked.append((seed, rows))
        return (0.0 if rows == "search" else 0.02) * len(modules)

    found = search(optimistic, seeds=(0, 1, 2), check_seeds=(7, 8, 9))
    assert {pair for pair in asked if pair[1] == "check"} == {(7, "check"), (8, "check"), (9, "check")}
    assert {pair for pair in asked if pair[1] == "search"} == {(0, "search"), (1, "search"), (2, "search")}
    steps = [entry["step"] for entry in found.trace]
    assert steps.index("check") == len(steps) - 1 - steps.count("shrink")
    assert len(found.robust) == 3, "3 x 8 modules, all of each type's suffixes one shorter at a time"
    assert found.drop <= 0.1
    assert {m.layer for m in found.robust} == {LAYERS - 1}


def test_a_longer_suffix_that_drops_less_is_reported() -> None:
    bent = lambda modules, seed, rows: 0.5 if {m.layer for m in modules} == {6, 7} else 0.0  # noqa: E731
    found = search(bent, suffix="linear", types=["q"])
    assert any("from layer 6 on the drop is 0.500" in case for case in found.non_monotone)
    assert {m.layer for m in found.robust} == {7}, "what lies below a break is not taken"


def test_a_fused_weight_is_as_robust_as_its_most_sensitive_part() -> None:
    cost = additive(lambda m: 1.0 if m.type == "q" and m.layer < 5 else 0.0)
    found = search(cost, fused=[("q", "v")])
    assert (
        {m.layer for m in found.robust if m.type == "v"}
        == {5, 6, 7}
        == {m.layer for m in found.robust if m.type == "q"}
    )
    assert set(found.unfused) == {Module(layer, "v") for layer in range(5)}
    assert {m.layer for m in found.robust if m.type == "down"} == set(range(LAYERS))


def test_every_measured_set_is_written_down() -> None:
    found = search(EARLY)
    assert {entry["step"] for entry in found.trace} >= {"order", "suffix", "check"}
    for entry in found.trace:
        assert entry["within"] == (entry["drop"] <= 0.1 + 1e-9)
        assert entry["seeds"]


def test_overlap() -> None:
    a, b, c = (Module(i, "q") for i in range(3))
    assert overlap(frozenset({a, b}), frozenset({b, c})) == pytest.approx(1 / 3)
    assert overlap(frozenset(), frozenset()) == 1.0


@pytest.mark.parametrize("tau", [0.0, 1.0, -0.1, 2.0])
def test_tau_out_of_range_is_refused(tau: float) -> None:
    with pytest.raises(InputError, match="tau"):
        SearchSettings(tau=tau)


def test_the_re_check_must_not_share_seeds() -> None:
    with pytest.raises(InputError, match="fresh"):
        SearchSettings(seeds=(0, 1), check_seeds=(1, 2))


def test_pairs_of_a_family_are_never_parted() -> None:
    families = [0, 0, 0, 1, 2, 2, 3, 4, 4, 5, 6, 7, 7, 8, 9, 10]
    parts = split_pairs(families, seed=1)
    assert sorted(i for members in parts.values() for i in members) == list(range(16))
    for family in set(families):
        holding = {part for part, members in parts.items() if family in {families[i] for i in members}}
        assert len(holding) == 1
    assert split_pairs(families, 1) == parts != split_pairs(families, 2)
    with pytest.raises(InputError, match="leave too few"):
        split_pairs([0] * 16, 0)


def told_apart(n: int = 24) -> tuple[list[list[int]], list[list[int]]]:
    """Prompts of two classes that even a random model tells apart: their tokens are others."""
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(3, 7, (n,), generator=generator).tolist()
    noise = [torch.randint(0, 3, (length,), generator=generator) for length in lengths]
    return [[*(stem + 90).tolist(), 100] for stem in noise], [[*(stem + 20).tolist(), 110] for stem in noise]


@pytest.mark.parametrize("name", ["llama", "phi3", "gpt2", "qwen3_moe"])
def test_the_whole_way_gives_the_same_with_and_without_restarts(name: str) -> None:
    model = ARCHITECTURES[name]()
    before = checksum(model)
    malicious, benign = told_apart()
    search = SearchSettings(0.2, seeds=(0,), check_seeds=(100,))
    proxy = ProxySettings(eps=(0.5,))
    said: list[str] = []
    results = [
        investigate(model, malicious, benign, list(range(24)), proxy, search, restart=restart, report=said.append)
        for restart in (True, False)
    ]
    one, other = results
    assert checksum(model) == before
    assert one.found == other.found
    assert [m for _, m in one.measurements] == [m for _, m in other.measurements]
    assert one.stability == other.stability
    assert one.work.done < other.work.done == other.work.full == one.work.full
    assert any("measurements" in line and "about" in line for line in said), "the cost is said beforehand"
    assert one.scores.accuracy >= 0.9


def test_classes_that_look_the_same_are_refused_before_the_search() -> None:
    malicious, _ = told_apart()
    said: list[str] = []
    with pytest.raises(InputError, match="under the floor"):
        investigate(
            ARCHITECTURES["llama"](),
            malicious,
            malicious[::-1],
            list(range(24)),
            ProxySettings(),
            SearchSettings(),
            report=said.append,
        )
    assert not any("measurements" in line for line in said)


def test_kinds_that_draw_nothing_are_measured_once() -> None:
    malicious, benign = told_apart()
    proxy, search = ProxySettings("scale", eps=(0.3,), stability=False), SearchSettings(0.2, "malicious")
    found = investigate(ARCHITECTURES["llama"](), malicious, benign, list(range(24)), proxy, search)
    assert len(found.measurements) == 7 * 3
    assert {tuple(entry["seeds"]) for entry in found.found.trace} == {(0,), (100,)}


def test_eps_is_raised_until_something_breaks() -> None:
    malicious, benign = told_apart()
    proxy, search = ProxySettings(eps=(1e-6, 2.0, 5.0), stability=False), SearchSettings(0.1, seeds=(0,))
    found = investigate(ARCHITECTURES["llama"](), malicious, benign, list(range(24)), proxy, search)
    assert {eps for eps, _ in found.measurements} == {1e-6, 2.0}
    assert found.eps == 2.0


def test_the_cost_grows_linearly_in_seeds() -> None:
    one, three = (
        expected_measurements(7, 6, SearchSettings(seeds=s, check_seeds=tuple(c + 50 for c in s)))
        for s in ((0,), (0, 1, 2))
    )
    assert three == 3 * one
