import math

import numpy as np
import pytest

from callbacks.evaluation.paired import difference, holm, mcnemar


def test_mcnemar_by_hand() -> None:
    assert mcnemar(0, 0) == 1
    assert mcnemar(0, 5) == pytest.approx(2 / 2**5)
    assert mcnemar(5, 0) == mcnemar(0, 5)
    # Of ten: P(X <= 1) = (1 + 10) / 1024, twice.
    assert mcnemar(1, 9) == pytest.approx(22 / 1024)
    assert mcnemar(3, 3) == 1  # twice the tail is above 1
    z = (300 - 200 - 1) / 500**0.5  # the normal approximation with its correction
    assert mcnemar(200, 300) == pytest.approx(math.erfc(z / 2**0.5), rel=0.1)


def test_right_and_wrong_are_compared_by_mcnemar() -> None:
    first = [1, 1, 1, 0, 0, 0, 0, 0, 0, 0]
    second = [0, 1, 1, 1, 1, 1, 1, 1, 0, 0]
    found = difference(first, second)
    assert found.value == pytest.approx(0.4)
    assert found.p == mcnemar(1, 5) == pytest.approx(2 * 7 / 64)
    assert found.low < 0.4 < found.high
    assert difference(second, first).value == pytest.approx(-0.4)
    assert difference(second, first).p == found.p


def test_counts_are_compared_by_the_bootstrap() -> None:
    generator = np.random.default_rng(0)
    first = generator.normal(100, 30, size=400)
    found = difference(first, first - 3 + generator.normal(0, 10, size=400))
    # Pairing takes out the spread of the records: the error is 10 / 20, not 30 * sqrt(2) / 20.
    assert found.value == pytest.approx(-3, abs=1.5)
    assert found.high - found.low == pytest.approx(2 * 1.96 * 0.5, rel=0.1)
    assert found.low < found.value < found.high < 0
    assert found.p == pytest.approx(1e-4)  # no resample above 0: one in their number


def test_no_difference() -> None:
    same = difference([3.0, 5.0, 8.0], [3.0, 5.0, 8.0])
    assert (same.value, same.low, same.high, same.p) == (0, 0, 0, 1)
    assert difference([1, 0, 1], [1, 0, 1]).p == 1
    noise = np.random.default_rng(1).normal(0, 1, size=300)
    assert difference(noise, noise[::-1]).p > 0.05


def test_equal_answers_to_few_questions_do_not_show_equal_runs() -> None:
    same = difference([1, 1, 0, 1], [1, 1, 0, 1])
    assert (same.low, same.high) == pytest.approx((-0.4899, 0.4899), abs=1e-4)
    tokens = difference([10, 12, 9], [10, 12, 9])  # without bounds nothing can be said
    assert (tokens.low, tokens.high) == (0, 0)


def test_p_of_the_bootstrap_is_twice_the_rarer_side() -> None:
    # Gains -1 and 3, ten of each: a resampled mean is at most 0 if it has at most 5 of the latter, 2.07 %.
    found = difference([10.0] * 20, [9.0, 13.0] * 10, resamples=20_000)
    assert found.p == pytest.approx(0.0414, abs=0.006)
    assert -1 < found.low < 0.3 < 1.7 < found.high < 3


@pytest.mark.parametrize(("gains", "p"), [([5], 1), ([5, 7], 0.5), ([1, 2, 3, 4, 5], 2 / 32), ([-1, 3], 1)])
def test_few_records_show_little_however_much_they_differ(gains: list[float], p: float) -> None:
    assert difference([0.0] * len(gains), gains).p == pytest.approx(p)
    twice = difference([0.0] * 2 * len(gains), gains * 2, [str(n) for n in range(len(gains))] * 2)
    assert twice.p == pytest.approx(p), "two records of a cluster are no more than one"


def test_the_seed_decides() -> None:
    first, second = [1.5, 2.5, 3.0, 9.0], [2.0, 2.0, 8.0, 9.5]
    assert difference(first, second) == difference(first, second)
    draws = {difference(first, second, resamples=50, seed=seed).low for seed in range(5)}
    assert len(draws) > 1


def test_what_is_not_paired_is_an_error() -> None:
    with pytest.raises(ValueError, match="equally many records, not 2 and 1"):
        difference([1, 0], [1])
    with pytest.raises(ValueError, match="not 0 and 0"):
        difference([], [])


def test_records_of_one_cluster_are_one_piece_of_evidence() -> None:
    first, second = [0.0] * 40, [1.0, 0.0] * 20
    alone = difference(first, second)
    clustered = difference(first, second, [str(i // 8) for i in range(40)])
    varied = difference(first, [float(i < 20) for i in range(40)], [str(i // 8) for i in range(40)])
    assert alone.p == mcnemar(0, 20)
    assert clustered.value == varied.value == 0.5
    assert clustered.p != alone.p  # pairs within a cluster are not independent
    assert varied.high - varied.low > 2 * (alone.high - alone.low)
    assert difference(first, second, [str(i) for i in range(40)]) == alone


def test_what_so_many_records_would_show() -> None:
    few = difference([1, 0] * 10, [1, 0] * 9 + [1, 1])
    many = difference([1, 0] * 1000, [1, 0] * 900 + [1, 1] * 100)
    assert few.detectable == pytest.approx(6 / 20)  # fewer than six records that differ are never significant
    assert difference([1, 0] * 3, [0, 1] * 3).detectable == 1, "rates do not differ by more"
    for first, second in (([1] * 5, [0] * 5), ([9.0] * 5, [1.0] * 5), ([9.0], [1.0])):
        assert difference(first, second).detectable is None, "five records show nothing, however much they differ"
    # One record in twenty is won: a standard error of sqrt(.05 * .95 / 2000).
    assert many.detectable == pytest.approx(2.8 * (0.05 * 0.95 / 2000) ** 0.5, rel=0.05)


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1, 1]
    assert holm([]) == []
