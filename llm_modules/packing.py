"""Whether a model keeps the documents of a packed row apart."""

import torch
from torch import Tensor

from datamodules.training.packing import Example, pack
from llm_modules.backbone.architecture import decoder_of, uncompiled
from llm_modules.backbone.modes import evaluation_mode
from llm_modules.backbone.sharding import call_as_forward
from llm_modules.loss import last_hidden

_ROUNDING = {torch.float32: 1e-3, torch.float16: 1e-2}
"""Difference of hidden states, as a share of the largest, that is rounding; 0.05 in bfloat16."""


@torch.no_grad()
def keeps_documents_apart(model: torch.nn.Module) -> bool:
    """Whether a packed document has the same hidden states whatever document is before it.

    Two passes over seven tokens. Families whose masks do not look at positions (Falcon, OPT, MPT), and those with
    states, do not keep them apart.
    """
    decoder, device = decoder_of(model), next(model.parameters()).device
    last = (7, 8, 9, 10)

    def states(before: tuple[int, ...]) -> Tensor:
        row = pack([Example(ids, ids) for ids in (before, last)]).to(device)
        return call_as_forward(model, lambda: last_hidden(decoder, row))[0, -len(last) :]

    with uncompiled(), evaluation_mode(model):
        one, other = states((1, 2, 3)), states((4, 5, 6))
    difference = (one.float() - other.float()).abs().max() / one.float().abs().max()
    return bool(difference < _ROUNDING.get(one.dtype, 0.05))
