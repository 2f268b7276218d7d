"""Logistic regression with an L2 penalty, solved by L-BFGS."""

from collections.abc import Callable

import torch
from torch import Tensor


def fit_logistic(
    inputs: Tensor,
    labels: Tensor,
    loss: Callable[[Tensor, Tensor], Tensor],
    l2: float,
    *,
    max_iter: int,
    tolerance_grad: float = 1e-7,
    tolerance_change: float = 1e-9,
) -> tuple[Tensor, Tensor]:
    """Weights (features,) and bias (1,), detached, that minimise ``loss(logits, labels) + l2 * |weights|^2``.

    Deterministic: the weights start from zero; the bias has no penalty. ``inputs`` (n, features) give dtype and device.
    ``loss`` of logits (n,) and labels is a scalar; sum or mean, and weights of the rows, are its choice. The limits are
    those of ``torch.optim.LBFGS``.

    >>> inputs, labels = torch.tensor([[-2.0], [-1.0], [1.0], [2.0]]), torch.tensor([0.0, 0.0, 1.0, 1.0])
    >>> loss = torch.nn.functional.binary_cross_entropy_with_logits
    >>> weights, bias = fit_logistic(inputs, labels, loss, l2=0.1, max_iter=50)
    >>> (inputs @ weights + bias > 0).tolist()
    [False, False, True, True]
    """
    # Lightning predicts in inference mode, whose tensors take no part in gradients.
    with torch.inference_mode(False), torch.enable_grad():
        x, y = (t.clone() if t.is_inference() else t for t in (inputs, labels))
        weights = torch.zeros(x.shape[1], dtype=x.dtype, device=x.device, requires_grad=True)
        bias = torch.zeros(1, dtype=x.dtype, device=x.device, requires_grad=True)
        optimizer = torch.optim.LBFGS(
            [weights, bias],
            max_iter=max_iter,
            tolerance_grad=tolerance_grad,
            tolerance_change=tolerance_change,
            line_search_fn="strong_wolfe",
        )

        def closure() -> Tensor:
            optimizer.zero_grad()
            value = loss(x @ weights + bias, y) + l2 * weights.square().sum()
            value.backward()
            return value

        optimizer.step(closure)
    return weights.detach(), bias.detach()


def auroc(positive: Tensor, negative: Tensor) -> float:
    """Chance that a positive exceeds a negative; ties count half."""
    ordered, positive = negative.sort().values, positive.contiguous()
    below = torch.searchsorted(ordered, positive, right=False).double()
    upto = torch.searchsorted(ordered, positive, right=True).double()
    return float(((below + upto) / 2).mean() / len(negative))
