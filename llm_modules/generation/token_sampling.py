"""From logits to token ids, each row by a random number of its own."""

import torch
from torch import Tensor


def row_uniforms(seed: int, n: int) -> Tensor:
    """The ``n`` random numbers of [0, 1) that a row with this seed samples its tokens with; fp32, on the CPU."""
    return torch.rand(n, generator=torch.Generator().manual_seed(seed))


def sample_tokens(logits: Tensor, uniforms: Tensor, temperature: float, top_p: float = 1.0, top_k: int = 0) -> Tensor:
    """Draw one token a row by inverting the cumulative distribution at the row's own random number.

    A row's token is a function of its logits and its number alone; nothing is drawn here. ``top_k`` (0 = off) keeps
    the most likely tokens, then ``top_p`` the smallest set of the most likely ones whose share reaches ``top_p``.

    Args:
        logits: (rows, vocab), any float type; computed in fp32.
        uniforms: (rows,) in [0, 1), fp32.
        temperature: above 0.
        top_p: in (0, 1]; 1 keeps all.
        top_k: 0 keeps all.

    Returns:
        (rows,) int64 token ids.
    """
    probs = torch.softmax(logits.float() / temperature, dim=-1)
    if 0 < top_k < probs.shape[-1]:
        probs, ids = probs.topk(top_k, dim=-1)
    elif top_p < 1:
        probs, ids = probs.sort(dim=-1, descending=True, stable=True)
    else:
        return _invert(probs.cumsum(dim=-1), uniforms)
    cumulative = probs.cumsum(dim=-1)
    # The token that crosses the threshold still belongs to the set. What is kept is a prefix.
    kept = (cumulative - probs < top_p * cumulative[:, -1:]).sum(dim=-1, keepdim=True)
    cumulative = cumulative.minimum(cumulative.gather(1, kept - 1))
    return ids.gather(1, _invert(cumulative, uniforms)[:, None])[:, 0]


def _invert(cumulative: Tensor, uniforms: Tensor) -> Tensor:
    """Where in the non-decreasing ``cumulative`` (rows, n) the shares ``uniforms`` (rows,) fall: (rows,) indices."""
    total = cumulative[:, -1:].contiguous()
    index = torch.searchsorted(cumulative, uniforms[:, None] * total, right=True)
    # Rounding may carry the product up to the total: the last entry with any probability, never one without.
    return index.minimum(torch.searchsorted(cumulative, total))[:, 0]
