"""Inverse-CDF sampling at its edges and against the plain definition."""

from typing import Any

import pytest
import torch

from llm_modules.generation.token_sampling import row_uniforms, sample_tokens

PROBS = torch.tensor([0.05, 0.4, 0.0, 0.25, 0.2, 0.1])


def drawn(uniforms: torch.Tensor, **options: Any) -> list[int]:
    logits = PROBS.log().expand(len(uniforms), -1)
    found: list[int] = sample_tokens(logits, uniforms, 1.0, **options).tolist()
    return found


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        ({}, [0, 1, 3, 4, 5]),
        ({"top_k": 2}, [1, 3]),
        ({"top_p": 0.39}, [1]),
        ({"top_p": 0.41}, [1, 3]),
        ({"top_p": 1e-6}, [1]),
        ({"top_k": 3, "top_p": 0.7}, [1, 3]),  # of the three that are left 1 and 3 have 0.65 / 0.85
        ({"top_k": 99}, [0, 1, 3, 4, 5]),
    ],
)
def test_shares_of_the_unit_interval_are_the_probabilities_of_what_is_kept(
    options: dict[str, float], kept: list[int]
) -> None:
    grid = (torch.arange(10_000) + 0.5) / 10_000
    shares = torch.bincount(torch.tensor(drawn(grid, **options)), minlength=len(PROBS)) / 10_000
    want = torch.zeros_like(PROBS)
    want[kept] = PROBS[kept] / PROBS[kept].sum()
    torch.testing.assert_close(shares, want, atol=2e-4, rtol=0)


def test_a_token_without_probability_is_never_drawn_not_even_at_the_ends() -> None:
    ends = torch.tensor([0.0, 1 - 2**-24])
    logits = torch.tensor([[-torch.inf, 0.0, 1.0, -torch.inf]]).expand(2, -1)
    for options in ({}, {"top_p": 0.999}, {"top_k": 3}):
        assert set(sample_tokens(logits, ends, 0.7, **options).tolist()) <= {1, 2}
    # Many shares whose rounded sum is not 1.
    ids = sample_tokens(torch.zeros(2, 150_001), ends, 1.0)
    assert ids[0] == 0
    assert 149_900 <= ids[1] <= 150_000


def test_low_temperature_is_greedy_and_half_precision_is_computed_in_full() -> None:
    logits = torch.tensor([[1.0, 1.25, 0.0]], dtype=torch.bfloat16)
    assert sample_tokens(logits, torch.tensor([0.999]), 0.01).tolist() == [1]
    full = sample_tokens(logits.float(), torch.tensor([0.45]), 1.0)
    assert torch.equal(sample_tokens(logits, torch.tensor([0.45]), 1.0), full)


def test_numbers_of_a_row_are_its_seeds_own_and_do_not_depend_on_how_many_are_drawn() -> None:
    assert torch.equal(row_uniforms(3, 1000)[:7], row_uniforms(3, 7))
    assert not torch.equal(row_uniforms(3, 7), row_uniforms(4, 7))
    state = torch.random.get_rng_state()
    row_uniforms(3, 7)
    assert torch.equal(torch.random.get_rng_state(), state)
