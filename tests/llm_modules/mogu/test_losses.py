"""The ratio stays finite where its denominator vanishes; the penalty pulls the right gates at the right tokens."""

from typing import Any

import pytest
import torch

from llm_modules.mogu.losses import (
    Penalty,
    PenaltyMask,
    gate_penalty,
    malicious_tokens,
    penalty_tokens,
    responder_loss,
)


def grads(wanted: float, unwanted: float, **options: Any) -> tuple[float, ...]:
    pair = [torch.tensor([value], requires_grad=True) for value in (wanted, unwanted)]
    loss = responder_loss(pair[0], pair[1], **options)
    loss.sum().backward()
    return loss.item(), *(0.0 if p.grad is None else p.grad.item() for p in pair)


def test_within_the_limits_it_is_the_ratio() -> None:
    value, by_wanted, by_unwanted = grads(2.0, 0.5)
    assert value == pytest.approx(4.0)
    assert by_wanted == pytest.approx(1 / 0.5)
    assert by_unwanted == pytest.approx(-2.0 / 0.5**2)


def test_a_certain_opposite_does_not_explode() -> None:
    """Without the floor the gradient of the denominator would be 2 / 1e-6 ** 2."""
    value, by_wanted, by_unwanted = grads(2.0, 1e-6, floor=0.1, cap=100.0)
    assert value == pytest.approx(20.0)
    assert by_wanted == pytest.approx(10.0)
    assert by_unwanted == 0.0


def test_above_the_cap_the_direction_stays_and_the_length_shrinks() -> None:
    free, capped = grads(8.0, 0.2, cap=1000.0), grads(8.0, 0.2, cap=10.0)
    assert capped[0] == pytest.approx(10.0)
    assert capped[1] / capped[2] == pytest.approx(free[1] / free[2])
    assert capped[1] == pytest.approx(free[1] * 10 / 40)


def test_what_is_learnt_is_left_alone() -> None:
    for form in ("ratio", "log_ratio"):
        assert grads(0.1, 2.0, form=form, enough=0.1)[1:] == (0.0, 0.0)
        assert grads(0.3, 2.0, form=form, enough=0.1)[1] > 0
    assert grads(0.1, 2.0, enough=0.1)[0] == pytest.approx(0.05), "the value is still reported"


def test_the_log_ratio_is_the_difference_of_logarithms() -> None:
    value, by_wanted, by_unwanted = grads(2.0, 0.5, form="log_ratio")
    assert value == pytest.approx(torch.tensor(4.0).log().item())
    assert (by_wanted, by_unwanted) == (pytest.approx(1 / 2.0), pytest.approx(-1 / 0.5))


def test_without_contrast_the_opposite_has_no_gradient() -> None:
    assert grads(2.0, 0.5, form="wanted") == (2.0, 1.0, 0.0)


def test_the_penalty_pulls_glad_up_on_benign_and_unwilling_up_on_malicious() -> None:
    gates = torch.full((2, 2, 3, 2), 0.5, requires_grad=True)
    kinds: tuple[tuple[Penalty, float, float], ...] = (("mse", 0.5, 1.0), ("l1", 1.0, 1.0))
    for kind, distance, slope in kinds:
        penalty = gate_penalty(gates, torch.tensor([False, True]), torch.ones(2, 3, dtype=torch.bool), kind)
        assert penalty.tolist() == pytest.approx([distance, distance])
        (grad,) = torch.autograd.grad(penalty.sum(), gates)
        # Averaged over two layers and three tokens; distances of the two gates added.
        assert torch.allclose(grad[:, 0], torch.tensor([-slope, slope]) / 6)
        assert torch.allclose(grad[:, 1], torch.tensor([slope, -slope]) / 6)
    ideal = torch.tensor([[1.0, 0.0], [0.0, 1.0]])[None, :, None].expand(2, 2, 3, 2)
    none = gate_penalty(ideal, torch.tensor([False, True]), torch.ones(2, 3, dtype=torch.bool))
    assert none.tolist() == [0.0, 0.0]


def test_padding_is_never_pulled_and_each_mask_takes_its_tokens() -> None:
    attention = torch.tensor([[1, 1, 1, 1, 0], [1, 1, 1, 1, 1]])
    starts, ends = torch.tensor([1, 2]), torch.tensor([2, 2])
    response = torch.tensor([[0, 0, 1, 1, 0], [0, 0, 0, 1, 1]]).bool()
    expected: dict[PenaltyMask, list[list[int]]] = {
        "all": [[1, 1, 1, 1, 0], [1, 1, 1, 1, 1]],
        "all_by_place": [[1, 1, 1, 1, 0], [1, 1, 1, 1, 1]],
        "post_instruction": [[0, 1, 1, 1, 0], [0, 0, 1, 1, 1]],
        "after_instruction": [[0, 0, 1, 1, 0], [0, 0, 1, 1, 1]],
        "response": [[0, 0, 1, 1, 0], [0, 0, 0, 1, 1]],
    }
    for mask, tokens in expected.items():
        chosen = penalty_tokens(mask, attention, starts, ends, response)
        assert chosen.int().tolist() == tokens
        gates = torch.rand(1, 2, 5, 2, requires_grad=True)
        penalty = gate_penalty(gates, torch.tensor([True, False]), chosen)
        (grad,) = torch.autograd.grad(penalty.sum(), gates)
        assert (grad[0].abs().sum(-1) > 0).int().tolist() == tokens


def test_by_place_the_tokens_before_the_instruction_are_pulled_to_glad_in_both_classes() -> None:
    malicious, starts = torch.tensor([True, False]), torch.tensor([2, 1])
    classes = malicious_tokens("all_by_place", malicious, starts, 4)
    assert classes.int().tolist() == [[0, 0, 1, 1], [0, 0, 0, 0]]
    assert malicious_tokens("all", malicious, starts, 4).int().tolist() == [[1, 1, 1, 1], [0, 0, 0, 0]]
    gates = torch.full((1, 2, 4, 2), 0.5, requires_grad=True)
    (grad,) = torch.autograd.grad(gate_penalty(gates, classes, torch.ones(2, 4).bool()).sum(), gates)
    pulled_to_unwilling = grad[0, :, :, 1] < 0
    assert pulled_to_unwilling.equal(classes)
    assert (grad[0, :, :, 0] < 0).equal(~classes)


def test_a_row_does_not_weigh_more_for_being_longer() -> None:
    gates = torch.full((1, 2, 4, 2), 0.5)
    mask = torch.tensor([[1, 0, 0, 0], [1, 1, 1, 1]]).bool()
    one, four = gate_penalty(gates, torch.tensor([True, True]), mask).tolist()
    assert one == pytest.approx(four)
