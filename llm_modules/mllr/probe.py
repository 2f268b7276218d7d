"""The security probe: a linear classifier that tells malicious from benign prompts by last-layer features (paper)."""

from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from datamodules.errors import InputError
from llm_modules.logistic import auroc, fit_logistic

MALICIOUS, BENIGN = 1, 0


@dataclass(frozen=True)
class Scores:
    """How well malicious prompts are told from benign ones.

    ``malicious`` is the recall of malicious prompts; margins are mean log-odds of the correct class.
    """

    accuracy: float
    malicious: float
    auroc: float
    margin: float
    malicious_margin: float

    def as_dict(self) -> dict[str, float]:
        """The scores rounded to six digits, for files."""
        return {key: round(value, 6) for key, value in asdict(self).items()}


@dataclass(frozen=True, eq=False)
class SecurityProbe:
    """A logistic regression on standardised features; positive log-odds mean malicious.

    >>> features = torch.tensor([[3.0, 0.0], [4.0, 1.0], [-3.0, 0.0], [-4.0, 1.0]])
    >>> labels = torch.tensor([MALICIOUS, MALICIOUS, BENIGN, BENIGN])
    >>> SecurityProbe.fit(features, labels).scores(features, labels).accuracy
    1.0

    ``mean``, ``scale`` (1 for constant features) and ``weight`` are (hidden,), ``bias`` is a scalar; all are float64.
    """

    mean: Tensor
    scale: Tensor
    weight: Tensor
    bias: Tensor

    @classmethod
    def fit(cls, features: Tensor, labels: Tensor, l2: float = 1.0) -> "SecurityProbe":
        """Minimise the summed log loss plus ``l2 / 2`` (ours) times the squared weights, in float64; deterministic.

        Features are (n, hidden), labels (n,) ``MALICIOUS`` or ``BENIGN``. InputError if all labels are the same, or a
        feature is not finite.
        """
        if len(labels.unique()) < 2:
            raise InputError("probe: only one class of prompts; malicious and benign ones are needed")
        x = features.double().cpu()
        if not torch.isfinite(x).all():
            raise InputError("probe: the model's features are not finite numbers; load it with model.dtype: float32")
        mean, scale = x.mean(dim=0), x.std(dim=0)
        scale = torch.where(scale > 1e-12, scale, torch.ones_like(scale))
        weight, bias = fit_logistic(
            (x - mean) / scale,
            torch.where(labels.cpu() == MALICIOUS, 1.0, -1.0).double(),
            lambda log_odds, signs: torch.nn.functional.softplus(-signs * log_odds).sum(),
            0.5 * l2,
            max_iter=1000,
            tolerance_grad=1e-9,
            tolerance_change=1e-14,
        )
        return cls(mean, scale, weight, bias[0])

    def log_odds(self, features: Tensor) -> Tensor:
        """Log-odds (n,) float64 of features (n, hidden); a feature that is not finite counts as the mean."""
        x = (features.double().cpu() - self.mean) / self.scale
        return torch.nan_to_num(x, nan=0.0, posinf=0.0, neginf=0.0) @ self.weight + self.bias

    def scores(self, features: Tensor, labels: Tensor) -> Scores:
        """Scores on labelled features; both classes must occur."""
        log_odds = self.log_odds(features)
        malicious = labels == MALICIOUS
        signed = torch.where(malicious, log_odds, -log_odds)
        correct = signed > 0
        return Scores(
            accuracy=float(correct.double().mean()),
            malicious=float(correct[malicious].double().mean()),
            auroc=auroc(log_odds[malicious], log_odds[~malicious]),
            margin=float(signed.mean()),
            malicious_margin=float(signed[malicious].mean()),
        )


def require_accuracy(scores: Scores, floor: float) -> None:
    """Raise ``InputError`` if the accuracy on held-out pairs is under the floor."""
    if scores.accuracy < floor:
        raise InputError(
            f"probe: accuracy {scores.accuracy:.3f} on held-out pairs is under the floor of {floor:g}: this model's "
            "features do not tell malicious from benign prompts, and no drop of it would mean anything; give more or "
            "clearer pairs, or lower the floor knowingly"
        )
