"""The security-feature classifier."""

import pytest
import torch

from datamodules.errors import InputError
from llm_modules.logistic import auroc
from llm_modules.mllr.probe import BENIGN, MALICIOUS, Scores, SecurityProbe, require_accuracy

LABELS = torch.tensor([MALICIOUS] * 30 + [BENIGN] * 30)


def blobs(distance: float, seed: int = 0) -> torch.Tensor:
    x = torch.randn(60, 8, generator=torch.Generator().manual_seed(seed))
    x[:30, 0] += distance
    x[:, 3] *= 1000  # a feature of another scale must not decide
    x[:, 4] = 7.0  # one that never varies must not divide by zero
    return x


def test_it_tells_blobs_apart_and_the_same_data_give_the_same_bits() -> None:
    probe, again = SecurityProbe.fit(blobs(6.0), LABELS), SecurityProbe.fit(blobs(6.0), LABELS)
    assert torch.equal(probe.weight, again.weight)
    scores = probe.scores(blobs(6.0, seed=1), LABELS)
    assert scores.accuracy > 0.95
    assert scores.auroc > 0.99
    assert scores.margin > 1
    assert scores.malicious > 0.9


def test_it_is_the_minimum_of_the_penalised_loss() -> None:
    """The gradient of the stated objective vanishes there."""
    x = blobs(1.0)
    probe = SecurityProbe.fit(x, LABELS, l2=2.0)
    weight, bias = probe.weight.clone().requires_grad_(), probe.bias.clone().requires_grad_()
    signs = torch.where(LABELS == MALICIOUS, 1.0, -1.0).double()
    standard = (x.double() - probe.mean) / probe.scale
    loss = torch.nn.functional.softplus(-signs * (standard @ weight + bias)).sum() + weight.square().sum()
    loss.backward()
    assert weight.grad is not None
    assert weight.grad.abs().max() < 1e-6
    assert bias.grad is not None
    assert bias.grad.abs() < 1e-6


def test_it_works_on_what_a_trainer_predicts() -> None:
    with torch.inference_mode():
        probe = SecurityProbe.fit(blobs(6.0) * 1.0, LABELS)
    assert torch.equal(probe.weight, SecurityProbe.fit(blobs(6.0), LABELS).weight)


def test_one_class_and_broken_features_are_refused() -> None:
    with pytest.raises(InputError, match="only one class"):
        SecurityProbe.fit(blobs(1.0), torch.ones(60))
    broken = blobs(1.0)
    broken[3, 2] = float("nan")
    with pytest.raises(InputError, match="not finite"):
        SecurityProbe.fit(broken, LABELS)


def test_a_classifier_that_guesses_is_refused() -> None:
    noise = SecurityProbe.fit(blobs(0.0), LABELS, l2=100.0).scores(blobs(0.0, seed=3), LABELS)
    with pytest.raises(InputError, match=r"under the floor of 0\.9.*do not tell malicious from benign"):
        require_accuracy(noise, 0.9)
    require_accuracy(Scores(0.9, 1.0, 1.0, 1.0, 1.0), 0.9)


def test_auroc_counts_ties_half() -> None:
    assert auroc(torch.tensor([2.0, 3.0]), torch.tensor([0.0, 1.0])) == 1.0
    assert auroc(torch.tensor([0.0, 1.0]), torch.tensor([2.0, 3.0])) == 0.0
    assert auroc(torch.tensor([1.0]), torch.tensor([1.0])) == 0.5
    generator = torch.Generator().manual_seed(0)
    one, other = torch.randint(0, 9, (40,), generator=generator), torch.randint(0, 7, (30,), generator=generator)
    pairs = [(float(a > b) + float(a == b) / 2) for a in one for b in other]
    assert auroc(one.double(), other.double()) == pytest.approx(sum(pairs) / len(pairs))
