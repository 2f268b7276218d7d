"""Routers: one logistic unit per gate, trained as three matrices and run as one vector (paper, sec. 3.3)."""

import torch
from torch import Tensor, nn


class Router(nn.Module):
    """One factored gate: ``sigmoid(W V U h)``, without a non-linearity between the matrices (paper).

    The product of the three matrices is therefore one vector. It is formed before it meets a token, in training too:
    value and gradients are the same, and a forward pass costs one dot product per token.
    """

    def __init__(self, in_features: int, d_router: int = 512, bias: bool = False) -> None:
        super().__init__()
        self.u = nn.Linear(in_features, d_router, bias=False)
        self.v = nn.Linear(d_router, in_features, bias=False)
        self.w = nn.Linear(in_features, 1, bias=bias)

    def vector(self) -> tuple[Tensor, Tensor | None]:
        """Weight (in_features,) and bias (1,) of the equivalent logistic unit."""
        return (self.w.weight @ self.v.weight @ self.u.weight)[0], self.w.bias

    def double_vector(self) -> tuple[Tensor, Tensor | None]:
        """As `vector`, multiplied in double precision."""
        return (self.w.weight.double() @ self.v.weight.double() @ self.u.weight.double())[0], self.w.bias

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return self.u.weight.device


class LogisticUnit(nn.Module):
    """One folded gate: ``sigmoid(w h + b)``."""

    def __init__(self, in_features: int, bias: bool = False) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(in_features))
        self.bias = nn.Parameter(torch.zeros(1)) if bias else None

    def vector(self) -> tuple[Tensor, Tensor | None]:
        """Weight (in_features,) and bias (1,)."""
        return self.weight, self.bias

    double_vector = vector

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return self.weight.device


class RouterPair(nn.Module):
    """The two routers of a layer: independent gates for the glad and the unwilling responder (paper).

    A pair holds weights and is never called: `llm_modules.mogu.mixture.Mixture` multiplies with its `matrix`.

    Attributes:
        shift: Added to the logit of the unwilling gate and taken from that of the glad one (ours); above 0 the mixture
            refuses more.
    """

    def __init__(self, in_features: int, d_router: int = 512, bias: bool = False) -> None:
        super().__init__()
        self.in_features, self.has_bias, self.shift = in_features, bias, 0.0

        def make() -> Router | LogisticUnit:
            return Router(in_features, d_router, bias) if d_router else LogisticUnit(in_features, bias)

        self.glad, self.unwilling = make(), make()

    def matrix(self) -> tuple[Tensor, Tensor | None]:
        """Both logistic units: weights (2, in_features) and biases (2,), glad first."""
        (glad, glad_bias), (unwilling, unwilling_bias) = self.glad.vector(), self.unwilling.vector()
        bias = None if glad_bias is None or unwilling_bias is None else torch.cat([glad_bias, unwilling_bias])
        if self.shift:
            shift = glad.new_tensor([-self.shift, self.shift])
            bias = shift if bias is None else bias + shift
        return torch.stack([glad, unwilling]), bias

    @torch.no_grad()
    def folded(self) -> "RouterPair":
        """The same gates as two logistic units, frozen; multiplied in double precision, a shift becomes a bias."""
        pair = RouterPair(self.in_features, 0, self.has_bias or self.shift != 0)
        for unit, router, shift in ((pair.glad, self.glad, -self.shift), (pair.unwilling, self.unwilling, self.shift)):
            weight, bias = router.double_vector()
            pair.to(router.device)
            assert isinstance(unit, LogisticUnit)
            unit.weight.copy_(weight)
            if unit.bias is not None:
                unit.bias.fill_(shift)
                if bias is not None:
                    unit.bias.add_(bias)
        return pair.requires_grad_(False)


def router_costs(in_features: int, d_router: int) -> tuple[int, int]:
    """Parameters of the two routers of a layer: factored as trained, and folded as run.

    The published forward multiplies factor by factor: per token it takes as many multiply-adds as it has parameters.
    """
    return 2 * (2 * in_features * d_router + in_features), 2 * in_features
