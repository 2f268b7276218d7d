import math
import os
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from callbacks.evaluation.metrics import aes
from callbacks.evaluation.record_metrics import RecordMetric, RecordRate, TokenLengths
from callbacks.evaluation.statistics import (
    Records,
    agreement_of,
    efficiency_of,
    perplexity_of,
    rate_of,
    record_hash,
)
from tests.processes import Processes


def perplexity() -> RecordMetric:
    return RecordMetric(perplexity_of, 2)


def agreement() -> RecordMetric:
    return RecordMetric(agreement_of, 2)


def efficiency(base_accuracy: float, base_tokens: float) -> RecordMetric:
    return RecordMetric(efficiency_of(base_accuracy, base_tokens), 2)


def test_a_mean_by_hand() -> None:
    metric = RecordRate()
    metric.update(["a", "b"], ["a", "b"], [True, False])
    metric.update([], [], [])
    metric.update(["c", "d", "e"], ["c", "d", "e"], [True, True, None])
    found = metric.compute()
    assert (found["value"], found["n"]) == (0.75, 4)  # what is not known takes no part
    assert 0 <= found["low"] < 0.75 < found["high"] <= 1
    assert metric.compute() == found


def test_a_record_seen_twice_counts_once() -> None:
    once, twice = RecordRate(), RecordRate()
    ids, values = [f"r{i}" for i in range(5)], [1.0, 0.0, 0.0, 1.0, 0.0]
    once.update(ids, ids, values)
    twice.update(ids, ids, values)
    twice.update(ids[:3], ids[:3], values[:3])
    assert twice.compute() == once.compute()
    assert twice.compute()["value"] == 0.4


@pytest.mark.filterwarnings("ignore:The ``compute`` method")
def test_nothing_is_not_known() -> None:
    unknown = RecordRate()
    unknown.update(["a"], ["a"], [None])
    for metric in (RecordRate(), unknown, TokenLengths(), perplexity(), agreement(), efficiency(0.5, 100)):
        found = metric.compute()
        assert math.isnan(found["value"])
        assert found["n"] == 0


def test_one_process_needs_no_torch_for_the_same_numbers() -> None:
    """`Records` of one process and the gathered metric agree to the last bit, duplicates and half characters too."""
    ids, groups = [f"r{i % 9}\ud83d" for i in range(20)], [f"q{i % 3}" for i in range(20)]
    values = [None if i % 9 == 4 else (i % 9) / 7 for i in range(20)]
    light, heavy = Records(rate_of), RecordRate()
    for part in (slice(0, 12), slice(12, 20)):
        light.update(ids[part], groups[part], values[part])
        heavy.update(ids[part], groups[part], values[part])
    assert light.compute() == heavy.compute()
    assert light.compute()["n"] == 8


def test_reset_forgets() -> None:
    metric = RecordRate()
    metric.update(["a"], ["a"], [1])
    metric.reset()
    metric.update(["b"], ["b"], [0])
    assert (metric.compute()["value"], metric.compute()["n"]) == (0, 1)


def test_intervals_are_over_questions() -> None:
    alone, thrice = RecordRate(), RecordRate()
    for i in range(60):
        value = float(i % 3 == 0)
        alone.update([f"q{i}"], [f"q{i}"], [value])
        # Three equal samples of each question are no more evidence than one.
        thrice.update([f"q{i}|{s}" for s in range(3)], [f"q{i}"] * 3, [value] * 3)
    one, three = alone.compute(), thrice.compute()
    assert three["n"] == 180
    assert (three["low"], three["high"]) == pytest.approx((one["low"], one["high"]), abs=0.01)


def test_token_lengths_by_hand() -> None:
    metric, counts = TokenLengths(), [*range(1, 20), 1000]
    ids = [str(i) for i in range(20)]
    metric.update(ids, ids, counts)
    found = metric.compute()
    assert found["value"] == pytest.approx((190 + 1000) / 20)
    assert found["median"] == 10.5
    assert found["p95"] == pytest.approx(19 + 0.05 * (1000 - 19))  # between the 19th and the 20th, at 0.95 * 19 = 18.05
    assert found["n"] == 20


def test_perplexity_by_hand() -> None:
    metric = perplexity()
    metric.update(["a"], ["a"], [math.log(2) * 3], [3])
    metric.update(["b", "a"], ["b", "a"], [math.log(8), math.log(2) * 3], [1, 3])  # a again
    # Six halvings over four tokens; a mean of the two perplexities would be 5.
    assert metric.compute() == {"value": pytest.approx(2**1.5), "n": 2}


def test_agreement_by_hand() -> None:
    metric = agreement()
    first = [True, True, True, True, False, False, False, False, None, True]
    second = [True, True, True, False, True, False, False, False, True, None]
    ids = [str(i) for i in range(10)]
    metric.update(ids, ids, first, second)
    # Of the eight that both know, six are the same; both say yes half of the time, so that chance gives a half.
    assert metric.compute() == {"value": 0.75, "kappa": pytest.approx((0.75 - 0.5) / 0.5), "n": 8}
    always = agreement()
    always.update(["a", "b"], ["a", "b"], [True, True], [True, True])
    assert always.compute()["value"] == 1
    assert math.isnan(always.compute()["kappa"])  # chance alone would do it


def test_aes_by_hand() -> None:
    metric = efficiency(0.5, 100)
    metric.update(["a", "b", "c", "d"], ["a", "b", "c", "d"], [True, True, False, True], [40, 60, 60, 80])
    assert metric.compute() == {"value": pytest.approx(0.4 + 5 * 0.5), "n": 4}
    metric.update(["e", "f"], ["e", "f"], [False, None], [60, 60])
    assert metric.compute()["value"] == pytest.approx(aes(0.6, 60, 0.5, 100))


def test_values_keep_their_64_bits() -> None:
    metric = perplexity()
    metric.update(["a"], ["a"], [1 + 1e-12], [1])
    assert metric.compute()["value"] == math.exp(1 + 1e-12)
    assert record_hash("a") == record_hash("a") != record_hash("b")
    assert -(2**63) <= record_hash("a") < 2**63


def test_rows_of_other_lengths_are_an_error() -> None:
    with pytest.raises(ValueError, match="zip"):
        RecordRate().update(["a", "b"], ["a"], [1, 0])


def everything(ids: list[str]) -> dict[str, RecordMetric]:
    """A metric of each kind, fed with the records of these ids, whose values follow from them."""
    numbers = [int(i) for i in ids]
    groups, right = [str(n // 2) for n in numbers], [None if n == 5 else n % 3 == 0 for n in numbers]
    metrics: dict[str, Any] = {
        "mean": RecordRate(),
        "tokens": TokenLengths(),
        "perplexity": perplexity(),
        "agreement": agreement(),
        "aes": efficiency(0.5, 20),
    }
    metrics["mean"].update(ids, groups, right)
    metrics["tokens"].update(ids, groups, numbers)
    metrics["perplexity"].update(ids, ids, [n / 7 for n in numbers], [n + 1 for n in numbers])
    metrics["agreement"].update(ids, ids, right, [n % 2 == 0 for n in numbers])
    metrics["aes"].update(ids, groups, right, numbers)
    return metrics


ALL = [str(i) for i in range(11)]
SHARES = {"uneven": (ALL[:8], ALL[7:]), "empty": (ALL, [])}
"""What two processes have: uneven parts with one record on both; everything on one of them."""


def compute(folder: Path) -> None:
    rank = int(os.environ["LOCAL_RANK"])
    dist.init_process_group("gloo", rank=rank, world_size=2)
    found = {
        name: {key: metric.compute() for key, metric in everything(shares[rank]).items()}
        for name, shares in SHARES.items()
    }
    own = RecordRate(sync_on_compute=False)
    own.update([str(rank)], [str(rank)], [rank])
    found["own"] = {"mean": own.compute()}
    torch.save(found, folder / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.slow
def test_two_processes_of_uneven_size_equal_one(tmp_path: Path) -> None:
    Processes(compute, tmp_path, ranks=2, log=tmp_path / "log.txt").succeed()
    alone = {key: metric.compute() for key, metric in everything(ALL).items()}
    assert alone["mean"]["n"] == 10
    for rank in (0, 1):
        found = torch.load(tmp_path / f"{rank}.pt")
        assert found["uneven"] == alone
        assert found["empty"] == alone
        assert found["own"]["mean"]["value"] == rank  # records that are merged already are not gathered
