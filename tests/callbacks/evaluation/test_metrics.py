import math
from pathlib import Path

import numpy as np
import pytest

from callbacks.evaluation.metrics import (
    aes,
    bootstrap_interval,
    hesitation_rates,
    length_ratio,
    rate_interval,
    repetition,
    wilson_interval,
)


def test_aes_of_the_reported_runs() -> None:
    # Qwen2.5-7B, macro-averages of GSM8K (91.83 @ 290 -> 93.17 @ 183) and MATH (68.5 @ 559 -> 70.5 @ 427).
    base, tuned = (0.5 * (0.9183 + 0.685), 0.5 * (290 + 559)), (0.5 * (0.9317 + 0.705), 0.5 * (183 + 427))
    assert aes(*tuned, *base) == pytest.approx(119.5 / 424.5 + 5 * 0.0167 / 0.80165)
    # R1-Distill-7B on GSM8K loses accuracy: 93.17 @ 1710 -> 91.17 @ 1182; a loss weighs twice a gain.
    assert aes(0.9117, 1182, 0.9317, 1710) == pytest.approx(528 / 1710 - 10 * 0.02 / 0.9317)


def test_aes_at_the_edges() -> None:
    assert aes(0.8, 50, 0.8, 100) == 0.5
    assert aes(0.0, 50, 0.0, 100) == 0.5  # a base that knows nothing, as a tiny checkpoint on real problems
    assert aes(0.1, 50, 0.0, 100) == math.inf
    assert aes(0.9, 120, 0.8, 100) == pytest.approx(-0.2 + 5 * 0.125)
    assert math.isnan(aes(float("nan"), 50, 0.8, 100))
    assert math.isnan(aes(0.8, 50, 0.8, 0))


def test_length_ratio_is_a_ratio_of_means() -> None:
    assert length_ratio([10, 100], [10, 200]) == pytest.approx(110 / 210)  # the mean of ratios would be 0.75


def test_repetition() -> None:
    assert repetition(range(1000)) == 0
    assert repetition([7] * 16) == 0
    assert repetition([7] * 17) == pytest.approx(1 / 2)
    loop = list(range(100)) + [1, 2, 3, 4] * 25  # 185 windows; those fully inside the loop repeat after one period
    assert repetition(loop) == pytest.approx(1 - (85 + 15 + 4) / 185)
    assert repetition([1, 2, 1, 2], n=2) == pytest.approx(1 / 3)


def test_sound_text_is_no_loop(shared_data: Path) -> None:
    import json

    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(shared_data / "tokenizers" / "qwen2_5")
    lines = (shared_data / "concise_cot_gpt" / "sat-math-100.jsonl").read_text().splitlines()[:200]
    texts = [json.loads(line)["responses"][0] for line in lines]
    assert max(repetition(tokenizer.encode(text)) for text in texts) < 0.3


def test_hesitation_rates() -> None:
    rates = hesitation_rates(["Wait, so 3. But wait!", "Someone waits, also."], tokens=50)
    assert rates == {"wait": 4.0, "but": 2.0, "so": 2.0}
    assert math.isnan(hesitation_rates([], 0)["so"])


def test_wilson_interval() -> None:
    # z = 1.96: centre (0.8 + z²/20) / (1 + z²/10), half z / (1 + z²/10) * sqrt((0.16 + z²/40) / 10)
    assert wilson_interval(8, 10) == pytest.approx((0.49016, 0.94332), abs=1e-5)
    assert wilson_interval(0, 10) == pytest.approx((0, 0.27754), abs=1e-5)
    assert wilson_interval(0, 10)[0] == 0
    assert wilson_interval(100, 100)[1] == pytest.approx(1)
    assert wilson_interval(100, 100)[1] <= 1
    assert wilson_interval(10, 10) == pytest.approx((0.72246, 1), abs=1e-5)
    assert wilson_interval(9, 10) == pytest.approx((0.596, 0.982), abs=1e-3)
    assert wilson_interval(0, 0) == (0, 1)


def test_a_rates_interval_counts_what_its_groups_are_worth() -> None:
    values = [float(i % 4 == 0) for i in range(40)]
    alone = rate_interval(values, range(40))
    assert alone == wilson_interval(10, 40)
    # One success of 20 is no surer than none of 20, and copies of the records say nothing new.
    assert rate_interval([1.0] + [0.0] * 19, range(20))[1] > rate_interval([0.0] * 20, range(20))[1]
    copies = rate_interval(np.repeat(values, 5), np.repeat(range(40), 5))
    assert copies == pytest.approx(alone, abs=0.01)
    mixed = rate_interval(np.tile(values, 5), np.repeat(range(5), 40))  # each group holds all: nothing depends
    assert mixed[1] - mixed[0] < 0.7 * (alone[1] - alone[0])
    one_miss = rate_interval([0.0] + [1.0] * 99, np.repeat(range(20), 5))
    assert one_miss[0] < rate_interval([1.0] * 100, np.repeat(range(20), 5))[0], "a miss makes no rate surer"
    assert rate_interval([0.0] * 9, [0, 0, 0, 1, 1, 1, 2, 2, 2]) == wilson_interval(0, 3)


@pytest.mark.parametrize(("groups", "size"), [(20, 5), (10, 8), (60, 1)])
def test_a_rates_interval_holds_the_rate_as_often_as_it_says(groups: int, size: int) -> None:
    drawn, held = np.random.default_rng(0), 0
    for _ in range(300):
        rates = drawn.beta(0.2 * 7 / 3, 0.8 * 7 / 3, groups)  # mean .2, intraclass correlation .3
        values = drawn.random((groups, size)) < rates[:, None]
        low, high = rate_interval(values.ravel().astype(float), np.repeat(range(groups), size))
        held += low <= 0.2 <= high
    assert held >= 0.9 * 300


def test_bootstrap_interval() -> None:
    values = np.random.default_rng(1).random(400) < 0.8
    low, high = bootstrap_interval(values)
    expected = 1.96 * values.std() / 20
    assert low == pytest.approx(values.mean() - expected, abs=0.01)
    assert high == pytest.approx(values.mean() + expected, abs=0.01)
    assert bootstrap_interval(values) == (low, high)
    assert bootstrap_interval(values, seed=1) != (low, high)
    assert bootstrap_interval([1.0] * 5) == (1, 1)
    assert math.isnan(bootstrap_interval([])[0])


def test_none_of_n_is_no_rate_of_zero() -> None:
    """No resample of equal values differs from them."""
    for n in (1, 20, 100):
        none, every = [0.0] * n, [1.0] * n
        assert bootstrap_interval(none, bounds=(0, 1)) == pytest.approx(wilson_interval(0, n))
        assert bootstrap_interval(every, bounds=(0, 1)) == pytest.approx(wilson_interval(n, n))
        reach = wilson_interval(0, n)[1]
        assert bootstrap_interval(none, bounds=(-1, 1)) == pytest.approx((-reach, reach))
    thrice = bootstrap_interval([0.0] * 60, np.repeat(np.arange(20), 3), bounds=(0, 1))
    assert thrice == pytest.approx(wilson_interval(0, 20))  # samples of one question are not independent
    mixed = [1.0] + [0.0] * 19
    assert bootstrap_interval(mixed, bounds=(0, 1)) == bootstrap_interval(mixed)


def test_bootstrap_draws_whole_questions() -> None:
    answers = np.random.default_rng(1).random(100) < 0.5
    thrice = np.repeat(answers, 3)  # three equal samples of each question are no more evidence than one
    low, high = bootstrap_interval(thrice, np.repeat(np.arange(100), 3))
    assert high - low == pytest.approx(np.subtract(*bootstrap_interval(answers)[::-1]), abs=1e-9)
    naive = bootstrap_interval(thrice)
    assert naive[1] - naive[0] < 0.7 * (high - low)


def test_bootstrap_in_blocks_covers_all_resamples() -> None:
    low, high = bootstrap_interval(np.arange(300_000) % 2, resamples=20)
    assert 0.49 < low < 0.5 < high < 0.51
