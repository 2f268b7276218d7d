"""Sample token ids from logits, each row with its own random number."""

import torch
from torch import Tensor


def row_uniforms(seed: int, n: int) -> Tensor:
    """Return the ``n`` random numbers in [0, 1) with which a row of this seed samples its tokens; float32, CPU."""
    return torch.rand(n, generator=torch.Generator().manual_seed(seed))


def sample_tokens(logits: Tensor, uniforms: Tensor, temperature: float, top_p: float = 1.0, top_k: int = 0) -> Tensor:
    """A token per row, by inverting the cumulative distribution at the row's own number: nothing random happens here.

    ``logits`` (rows, vocab) of any float dtype are computed in float32, ``uniforms`` (rows,) are in [0, 1).
    ``temperature`` is above 0. ``top_k`` keeps the most likely tokens (0: all), then ``top_p`` the smallest set of the
    most likely ones whose total probability reaches it (1: all).

    Example:
        >>> logits = torch.tensor([[0.0, 0.0, 0.0, 0.0]]).expand(3, 4)
        >>> sample_tokens(logits, torch.tensor([0.1, 0.3, 0.9]), temperature=1.0)
        tensor([0, 1, 3])
    """
    probs = torch.softmax(logits.float() / temperature, dim=-1)
    if 0 < top_k < probs.shape[-1]:
        probs, ids = probs.topk(top_k, dim=-1)
    elif top_p < 1:
        probs, ids = probs.sort(dim=-1, descending=True, stable=True)
    else:
        return _invert(probs.cumsum(dim=-1), uniforms)
    cumulative = probs.cumsum(dim=-1)
    # The token that crosses the threshold belongs to the set. The kept tokens are a prefix.
    kept = (cumulative - probs < top_p * cumulative[:, -1:]).sum(dim=-1, keepdim=True)
    cumulative = cumulative.minimum(cumulative.gather(1, kept - 1))
    return ids.gather(1, _invert(cumulative, uniforms)[:, None])[:, 0]


def _invert(cumulative: Tensor, uniforms: Tensor) -> Tensor:
    """Return the indices (rows,) at which ``uniforms`` (rows,) fall in the non-decreasing ``cumulative`` (rows, n)."""
    total = cumulative[:, -1:].contiguous()
    index = torch.searchsorted(cumulative, uniforms[:, None] * total, right=True)
    # Rounding may raise the product to the total: take the last entry with any probability, never one without.
    return index.minimum(torch.searchsorted(cumulative, total))[:, 0]
