"""The security-feature classifier: logistic regression on last-layer features (paper; spec, sec. 1)."""

from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from datamodules.errors import InputError

MALICIOUS, BENIGN = 1, 0


@dataclass(frozen=True)
class Scores:
    """How well malicious prompts are told from benign ones.

    Attributes:
        accuracy: Share that is right, of both classes.
        malicious: Share of the malicious prompts that is found.
        auroc: Chance that a malicious prompt scores above a benign one; ties count half.
        margin: Mean log-odds of the right class.
        malicious_margin: The same over malicious prompts alone.
    """

    accuracy: float
    malicious: float
    auroc: float
    margin: float
    malicious_margin: float

    def as_dict(self) -> dict[str, float]:
        """Rounded, for files."""
        return {key: round(value, 6) for key, value in asdict(self).items()}


@dataclass(frozen=True, eq=False)
class Probe:
    """A fitted classifier; positive log-odds mean malicious.

    Attributes:
        mean: (hidden,) float64, of the training features.
        scale: (hidden,) float64, their standard deviation; 1 where a feature never varies.
        weight: (hidden,) float64, on standardised features.
        bias: float64 scalar.
    """

    mean: Tensor
    scale: Tensor
    weight: Tensor
    bias: Tensor

    def log_odds(self, features: Tensor) -> Tensor:
        """(n,) float64 of features (n, hidden); a feature that is not finite counts as the mean."""
        x = (features.double().cpu() - self.mean) / self.scale
        return torch.nan_to_num(x, nan=0.0, posinf=0.0, neginf=0.0) @ self.weight + self.bias

    def scores(self, features: Tensor, labels: Tensor) -> Scores:
        """Scores on labelled features; labels are ``MALICIOUS`` or ``BENIGN``, both must occur."""
        log_odds = self.log_odds(features)
        malicious = labels == MALICIOUS
        signed = torch.where(malicious, log_odds, -log_odds)
        right = signed > 0
        return Scores(
            accuracy=float(right.double().mean()),
            malicious=float(right[malicious].double().mean()),
            auroc=auroc(log_odds[malicious], log_odds[~malicious]),
            margin=float(signed.mean()),
            malicious_margin=float(signed[malicious].mean()),
        )


def fit_probe(features: Tensor, labels: Tensor, l2: float = 1.0) -> Probe:
    """Logistic regression on standardised features, in float64 by L-BFGS; deterministic.

    Minimises the sum of log losses plus ``l2 / 2`` times the squared weights; the bias is free.

    Args:
        features: (n, hidden).
        labels: (n,), ``MALICIOUS`` or ``BENIGN``.
        l2: Strength of the penalty (ours).

    Raises:
        InputError: Only one class occurs, or a feature is not finite.
    """
    if len(labels.unique()) < 2:
        raise InputError("probe: only one class of prompts; malicious and benign ones are needed")
    # The trainer predicts in inference mode, whose tensors take no part in gradients.
    with torch.inference_mode(False), torch.enable_grad():
        x = features.double().cpu().clone()
        if not torch.isfinite(x).all():
            raise InputError("probe: the model's features are not finite numbers; load it with model.dtype: float32")
        mean, scale = x.mean(dim=0), x.std(dim=0)
        scale = torch.where(scale > 1e-12, scale, torch.ones_like(scale))
        signs = torch.where(labels.cpu() == MALICIOUS, 1.0, -1.0).double()
        found = _minimise((x - mean) / scale, signs, l2)
    return Probe(mean, scale, found[:-1], found[-1])


def _minimise(x: Tensor, signs: Tensor, l2: float) -> Tensor:
    """Weights and bias, (hidden + 1,)."""
    parameters = torch.zeros(x.shape[1] + 1, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [parameters], max_iter=1000, tolerance_grad=1e-9, tolerance_change=1e-14, line_search_fn="strong_wolfe"
    )

    def loss() -> Tensor:
        optimizer.zero_grad()
        log_odds = x @ parameters[:-1] + parameters[-1]
        value = torch.nn.functional.softplus(-signs * log_odds).sum() + 0.5 * l2 * parameters[:-1].square().sum()
        value.backward()
        return value

    optimizer.step(loss)
    return parameters.detach().clone()


def auroc(positive: Tensor, negative: Tensor) -> float:
    """Chance that a positive exceeds a negative; ties count half."""
    ordered, _ = negative.sort()
    below = torch.searchsorted(ordered, positive, right=False).double()
    upto = torch.searchsorted(ordered, positive, right=True).double()
    return float(((below + upto) / 2).mean() / len(negative))


def require_accuracy(scores: Scores, floor: float) -> None:
    """Refuse to go on with a classifier that does not tell the classes apart.

    Raises:
        InputError: Its accuracy on held-out pairs is under the floor.
    """
    if scores.accuracy < floor:
        raise InputError(
            f"probe: accuracy {scores.accuracy:.3f} on held-out pairs is under the floor of {floor:g}: this model's "
            "features do not tell malicious from benign prompts, and no drop of it would mean anything; give more or "
            "clearer pairs, or lower the floor knowingly"
        )
