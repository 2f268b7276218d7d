import itertools
import random
from collections import Counter

import pytest

from datamodules.errors import InputError
from datamodules.training.sampler import LengthGroupedBatchSampler

LENGTHS = [random.Random(i).randint(5, 200) for i in range(1003)]


def flat(steps):
    return [index for step in steps for batch in step for index in batch]


@pytest.mark.parametrize("world_size", [1, 2, 3])
@pytest.mark.parametrize(
    "settings", [{"batch_size": 8}, {"max_tokens": 700}, {"max_tokens": 700, "packing": True}], ids=str
)
def test_every_example_is_in_one_batch_and_processes_have_equally_many(settings, world_size):
    samplers = [
        LengthGroupedBatchSampler(LENGTHS, **settings, world_size=world_size, rank=rank) for rank in range(world_size)
    ]
    batches = [list(sampler) for sampler in samplers]
    assert len({len(b) for b in batches}) == 1
    assert sorted(i for rank in batches for batch in rank for i in batch) == list(range(len(LENGTHS)))


def test_fixed_batches_differ_by_at_most_one_row():
    sizes = {len(b) for b in LengthGroupedBatchSampler(LENGTHS, batch_size=8)}
    assert sizes <= {7, 8}
    assert {len(b) for b in LengthGroupedBatchSampler(LENGTHS[:1000], batch_size=8)} == {8}


def test_budget_holds_with_padding_and_packing_fills_rows():
    for batch in LengthGroupedBatchSampler(LENGTHS, max_tokens=700):
        assert len(batch) * max(LENGTHS[i] for i in batch) <= 700
    rows = [sum(LENGTHS[i] for i in b) for b in LengthGroupedBatchSampler(LENGTHS, max_tokens=700, packing=True)]
    assert max(rows) <= 700
    assert sum(rows) / (700 * len(rows)) > 0.98


def test_grouping_leaves_little_padding():
    def efficiency(batches):
        return sum(LENGTHS[i] for b in batches for i in b) / sum(len(b) * max(LENGTHS[i] for i in b) for b in batches)

    order = list(range(len(LENGTHS)))
    random.Random(0).shuffle(order)
    assert efficiency([order[i : i + 8] for i in range(0, len(order), 8)]) < 0.65
    assert efficiency(list(LengthGroupedBatchSampler(LENGTHS, batch_size=8))) > 0.95


def test_processes_get_batches_of_like_length_in_each_step():
    steps = LengthGroupedBatchSampler(LENGTHS, batch_size=8, world_size=2).steps(0)
    gaps = [abs(max(LENGTHS[i] for i in a) - max(LENGTHS[i] for i in b)) for a, b in steps]
    assert sum(gaps) / len(gaps) < 10


def test_order_is_a_function_of_seed_and_epoch():
    sampler = LengthGroupedBatchSampler(LENGTHS, batch_size=8, seed=1)
    assert sampler.steps(3) == LengthGroupedBatchSampler(LENGTHS, batch_size=8, seed=1).steps(3)
    assert sampler.steps(3) != sampler.steps(4)
    assert sampler.steps(3) != LengthGroupedBatchSampler(LENGTHS, batch_size=8, seed=2).steps(3)
    sampler.set_epoch(3)
    assert list(sampler) == [step[0] for step in sampler.steps(3)]


def test_order_is_not_sorted_by_length():
    longest = [max(LENGTHS[i] for i in b) for b in LengthGroupedBatchSampler(LENGTHS, batch_size=8)]
    falls = sum(a > b for a, b in itertools.pairwise(longest))
    assert 0.3 < falls / len(longest) < 0.7


@pytest.mark.parametrize("settings", [{"batch_size": 1}, {"max_tokens": 200}])
def test_too_few_examples_for_all_processes_are_repeated(settings):
    steps = LengthGroupedBatchSampler([10, 20, 30], **settings, world_size=4).steps(0)
    assert all(len(step) == 4 and all(step) for step in steps)
    assert set(Counter(flat(steps))) == {0, 1, 2}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "exactly one"),
        ({"batch_size": 8, "max_tokens": 100}, "exactly one"),
        ({"batch_size": 0}, "at least 1"),
        ({"batch_size": 8, "packing": True}, r"data\.max_tokens"),
        ({"max_tokens": 100}, "does not fit"),
    ],
)
def test_wrong_settings_are_explained(settings, message):
    with pytest.raises(InputError, match=message):
        LengthGroupedBatchSampler(LENGTHS, **settings)
