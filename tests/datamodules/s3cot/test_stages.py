import random
from collections import Counter

import pytest

from datamodules.errors import InputError
from datamodules.s3cot.stages import LOWER_BOUNDS, Pair, bucket, count_buckets, draw_stages


def make_ratios(n: int = 200, seed: int = 0) -> list[list[float]]:
    """Variants bunched near 1, as mild steering gives them, a few of them longer than the initial trace."""
    rng = random.Random(seed)
    return [sorted(1.05 - 1.04 * rng.random() ** 2 for _ in range(5)) for _ in range(n)]


def draw(selection="curriculum", bounds=LOWER_BOUNDS, n=400, seed=0, ratios=None):
    return draw_stages(ratios or make_ratios(), bounds, selection, n, seed)


def test_windows_are_cumulative_and_end_at_one():
    ratios = make_ratios()
    stages = draw(ratios=ratios)
    assert [s.lower for s in stages] == [0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0.0]
    for stage in stages:
        assert all(stage.lower <= pair.length_ratio <= 1 for pair in stage.pairs)
        assert all(ratios[p.item][p.variant] == p.length_ratio for p in stage.pairs)
        assert sum(stage.available) == sum(stage.lower <= r <= 1 for its in ratios for r in its)
        assert stage.available[: bucket(stage.lower)] == (0,) * bucket(stage.lower)


def test_budget_is_equal_and_buckets_are_drawn_evenly():
    for stage in draw():
        assert len(stage.pairs) == 400
        n_buckets = sum(n > 0 for n in stage.available)
        counts = [n for n in stage.drawn if n]
        assert len(counts) == n_buckets
        assert max(counts) - min(counts) <= 1, "though the data are bunched near 1"
    assert max(draw()[-1].available) > 3 * min(draw()[-1].available)


def test_no_pair_comes_again_before_its_bucket_is_exhausted():
    for stage in draw():
        for b, available in enumerate(stage.available):
            counts = Counter(p for p in stage.pairs if bucket(p.length_ratio) == b)
            if available:
                assert max(counts.values()) - min(counts.values()) <= 1
                assert len(counts) == min(available, stage.drawn[b])


def test_draws_are_a_function_of_the_seed_and_differ_between_stages():
    assert draw(seed=1) == draw(seed=1)
    assert draw(seed=1) != draw(seed=2)
    everywhere = draw("all_at_once")
    assert everywhere[0].pairs != everywhere[1].pairs


def test_controls_have_the_same_budget_and_their_own_choice():
    ratios = make_ratios()
    for stage in draw("all_at_once", ratios=ratios):
        assert len(stage.pairs) == 400
        assert min(p.length_ratio for p in stage.pairs) < 0.1
        assert stage.lower == 0
    for stage in draw("shortest_only", ratios=ratios):
        assert len(stage.pairs) == 400
        assert all(p.length_ratio == min(ratios[p.item]) for p in stage.pairs)
        assert set(Counter(p.item for p in stage.pairs).values()) == {2}
    for stage in draw("verbose_only", ratios=ratios):
        assert len(stage.pairs) == 400
        assert {(p.variant, p.length_ratio) for p in stage.pairs} == {(None, 1.0)}
        assert set(Counter(p.item for p in stage.pairs).values()) == {2}


def test_variants_longer_than_the_initial_trace_are_never_drawn():
    ratios = [[1.2, 0.95], [1.01], [0.0]]
    assert draw(bounds=[0.5], ratios=ratios, n=3)[0].pairs == (Pair(0, 1, 0.95),) * 3
    assert {p.item for p in draw("verbose_only", bounds=[0.5], ratios=ratios, n=3)[0].pairs} == {0}


@pytest.mark.parametrize(
    ("ratio", "expected"), [(0.05, 0), (0.1, 1), (0.3, 3), (0.7, 7), (0.6999, 6), (0.9, 9), (1.0, 9)]
)
def test_buckets_begin_at_their_lower_edge(ratio, expected):
    assert bucket(ratio) == expected
    assert count_buckets([Pair(0, 0, ratio)])[expected] == 1


def test_bound_on_an_edge_takes_its_bucket_in():
    assert draw(bounds=[0.7], ratios=[[7 / 10]], n=1)[0].pairs == (Pair(0, 0, 0.7),)
    assert draw(bounds=[1 - 0.7], ratios=[[0.3]], n=1)[0].pairs == (Pair(0, 0, 0.3),)


def test_empty_stage_names_its_window_and_where_the_data_are():
    message = r"stage 0 .* from 0\.9 to 1; .*: 0\.3 to 0\.4: 1, 0\.6 to 0\.7: 2; begin data\.lower_bounds at 0\.6"
    with pytest.raises(InputError, match=message):
        draw(ratios=[[0.35, 0.61], [0.69]])
    assert len(draw(ratios=[[0.35, 0.61], [0.69]], bounds=[0.6, 0.0])) == 2
    with pytest.raises(InputError, match="no item has a variant"):
        draw(ratios=[[1.5], []])


@pytest.mark.parametrize("bounds", [[], [0.5, 0.6], [1.0], [-0.1], [float("nan")]])
def test_wrong_bounds_are_explained(bounds):
    with pytest.raises(InputError, match=r"data\.lower_bounds"):
        draw(bounds=bounds)
