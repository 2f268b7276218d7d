"""Baseline: SafeLoRA, a projection after training (Hsu et al., arXiv 2405.16833; written from the paper)."""

from dataclasses import dataclass

import torch
from torch import nn

from datamodules.errors import InputError
from llm_modules.mllr.weights import weights_of
from llm_modules.optim.module_names import Module


@dataclass(frozen=True)
class Projected:
    """Result for one module: cosine of the change and its projection, and whether the projection replaced it."""

    module: Module
    similarity: float
    projected: bool


@torch.no_grad()
def project(tuned: nn.Module, aligned: nn.Module, base: nn.Module, threshold: float = 0.5) -> list[Projected]:
    """Project the weight changes of a fine-tune on the subspace of the alignment, for each module in which they differ.

    With V = W_aligned - W_base, D = W_tuned - W_aligned and C = V V^T / |V|, D becomes C D if cos(D, C D) is below the
    threshold. In SafeLoRA D is the product B A of an adapter; here it may come from a full fine-tune, too. C scales as
    well as projects, as in the paper's fast form.

    ``tuned`` (without adapter wrappers) is changed in place; ``aligned`` is the model before the fine-tune, ``base``
    the model before its alignment. The paper tunes the threshold. InputError if the models' modules differ.
    """
    if not -1 <= threshold <= 1:
        raise InputError(f"threshold: must be a cosine from -1 to 1, is {threshold:g}")
    sides = [weights_of(model) for model in (tuned, aligned, base)]
    if len({tuple((m, tuple(w.view().shape for w in ws)) for m, ws in side.items()) for side in sides}) != 1:
        raise InputError("the tuned, the aligned and the base model have different modules; give three of one family")
    rows = []
    for module, weights in sides[0].items():
        for weight, was, before in zip(weights, sides[1][module], sides[2][module], strict=True):
            if weight.view().ndim != 2:
                continue
            mine, start = weight.view(), was.view().float()
            change, alignment = mine.float() - start, start - before.view().float()
            size = torch.linalg.vector_norm(alignment)
            kept = alignment @ (alignment.T @ change) / size if size > 0 else torch.zeros_like(change)
            norms = torch.linalg.vector_norm(change) * torch.linalg.vector_norm(kept)
            similarity = float((change * kept).sum() / norms) if norms > 0 else 1.0
            replaced = similarity < threshold
            if replaced:
                mine.copy_((start + kept).to(mine.dtype))
            rows.append(Projected(module, similarity, replaced))
    return rows
