"""The losses of responders and routers, one number per item."""

from typing import Literal

import torch
from torch import Tensor

from datamodules.batch import IGNORE_INDEX
from datamodules.mogu.batch import RouterBatch

RatioForm = Literal["ratio", "log_ratio", "wanted"]
"""CE(wanted) / CE(unwanted) (paper), its logarithm (ours), or CE(wanted) alone (the paper's ablation)."""
Penalty = Literal["mse", "l1"]
"""Squared distance (the authors' code) or absolute distance (the paper's equation)."""
PenaltyMask = Literal["all", "all_by_place", "post_instruction", "after_instruction", "response"]
"""Tokens whose gates the penalty pulls: all (paper), from the first token of the instruction on, from the first token
after the instruction on (from there the model has read the whole request), or the response. Never padding.

``all_by_place`` pulls all tokens, those before the instruction to glad in both classes (ours): they are the same for
both, so that ``all`` leaves their gates undecided, and the other masks leave them to chance."""

GLAD, UNWILLING = 0, 1
"""Index of each gate in the last dimension."""


def responder_loss(
    wanted: Tensor,
    unwanted: Tensor,
    form: RatioForm = "ratio",
    floor: float = 0.1,
    cap: float = 10.0,
    enough: float = 0.0,
) -> Tensor:
    """The loss of each item of a responder, (items,) (paper, sec. 3.2).

    The ratio explodes if the unwanted response is certain: a cross-entropy of .01 multiplies the numerator's gradient
    by 100 and the denominator's by 10,000. ``floor``, ``cap`` and ``enough`` prevent that (ours).

    >>> wanted, unwanted = torch.tensor([2.0, 2.0]), torch.tensor([4.0, 0.01])
    >>> responder_loss(wanted, unwanted)  # 2 / 0.01 is capped
    tensor([ 0.5000, 10.0000])

    Args:
        wanted: Cross-entropy of the response to learn, (items,).
        unwanted: Cross-entropy of the opposite response, (items,).
        form: Numerator and denominator, or one of them.
        floor: Least value of the denominator; below it only the numerator has a gradient.
        cap: A larger ratio counts as the cap; its gradient shrinks in proportion and keeps its direction.
        enough: Items with a lower ratio have no gradient: they are learnt.
    """
    if form == "wanted":
        return wanted
    denominator = unwanted.clamp(min=floor)
    ratio = wanted / denominator
    scale = (cap / ratio.detach()).clamp(max=1.0) * (ratio.detach() > enough)
    if form == "log_ratio":
        return (wanted.clamp(min=1e-4).log() - denominator.log()) * (ratio.detach() > enough)
    # Values below `enough` stay in the sum, without a gradient.
    return ratio * scale + ratio.detach() * (ratio.detach() <= enough)


def gate_penalty(gates: Tensor, malicious: Tensor, mask: Tensor, kind: Penalty = "mse") -> Tensor:
    """Distance of the gates from (1, 0) on benign and from (0, 1) on malicious rows or tokens, (batch,).

    The distances of the two gates are added, then averaged over the layers and over the row's tokens in ``mask``.

    >>> gates = torch.tensor([0.5, 0.5]).expand(1, 2, 3, 2)
    >>> gate_penalty(gates, torch.tensor([False, True]), torch.ones(2, 3, dtype=torch.bool))
    tensor([0.5000, 0.5000])

    Args:
        gates: (layers, batch, seq, 2), glad first.
        malicious: (batch,) bool, or (batch, seq) for goals by token; see `malicious_tokens`.
        mask: (batch, seq) bool, tokens that count; a row without any has penalty 0.
        kind: Squared or absolute distance.
    """
    by_token = malicious if malicious.ndim == 2 else malicious[:, None]
    distance = gates - gate_goals(by_token).to(gates.dtype)
    per_token = (distance.square() if kind == "mse" else distance.abs()).sum(dim=-1).mean(dim=0)
    return (per_token * mask).sum(dim=1) / mask.sum(dim=1).clamp(min=1)


def gate_goals(malicious: Tensor) -> Tensor:
    """The gates that each token should have, (batch, seq, 2) float32: (1, 0), or (0, 1) where ``malicious``."""
    return torch.stack([~malicious, malicious], dim=-1).float()


def penalty_tokens(
    mask: PenaltyMask, attention_mask: Tensor, starts: Tensor, ends: Tensor, is_response: Tensor
) -> Tensor:
    """The tokens whose gates the penalty pulls, (batch, seq) bool.

    ``starts`` and ``ends`` are as in ``RouterBatch``; ``is_response`` is (batch, seq) bool.
    """
    tokens = attention_mask.bool()
    if mask in ("post_instruction", "after_instruction"):
        columns = torch.arange(tokens.shape[1], device=tokens.device)
        return tokens & (columns >= (starts if mask == "post_instruction" else ends)[:, None])
    return tokens & is_response if mask == "response" else tokens


def malicious_tokens(mask: PenaltyMask, malicious: Tensor, starts: Tensor, length: int) -> Tensor:
    """The class of each token as the penalty sees it, (batch, length) bool: its row's, but see ``all_by_place``."""
    rows = malicious[:, None].expand(-1, length)
    if mask != "all_by_place":
        return rows
    return rows & (torch.arange(length, device=rows.device) >= starts[:, None])


def penalised(mask: PenaltyMask, batch: RouterBatch) -> tuple[Tensor, Tensor]:
    """The tokens of a batch whose gates are pulled, and which of them are to be unwilling, both (batch, seq) bool."""
    rows = batch.rows
    assert rows.attention_mask is not None
    is_response = rows.labels != IGNORE_INDEX
    tokens = penalty_tokens(mask, rows.attention_mask, batch.starts, batch.ends, is_response)
    return tokens, malicious_tokens(mask, batch.malicious, batch.starts, tokens.shape[1])


def gate_means(gates: Tensor, malicious: Tensor, mask: Tensor) -> dict[str, Tensor]:
    """Mean of each gate over layers, tokens and rows of each class that occurs; arguments as in `gate_penalty`."""
    per_row = (gates * mask[None, :, :, None]).sum(2).mean(0) / mask.sum(1, keepdim=True).clamp(min=1)
    means = {}
    for name, kind in (("benign", ~malicious), ("malicious", malicious)):
        if kind.any():
            means[f"glad_on_{name}"], means[f"unwilling_on_{name}"] = per_row[kind].mean(dim=0)
    return means
