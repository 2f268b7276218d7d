"""Whether a model keeps the documents of a packed row apart."""

import torch
from torch import Tensor

from datamodules.training.packing import Example, pack
from llm_modules.backbone.architecture import decoder_of, uncompiled
from llm_modules.backbone.modes import evaluation_mode
from llm_modules.backbone.sharding import call_as_forward
from llm_modules.loss import last_hidden

_FIRST, _OTHER, _PROBE = (1, 2, 3), (4, 5, 6), (7, 8, 9, 10)
_TOLERANCE = 1e-3
"""Largest difference of hidden states that is rounding in any case, as a share of the largest state."""


@torch.no_grad()
def keeps_documents_apart(model: torch.nn.Module) -> bool:
    """Whether a packed document has the same hidden states whatever document is before it.

    Four passes over seven tokens. A document *behind* the probe changes nothing but the rounding, as experts get other
    numbers of tokens: a document before it may change no more than a few times as much. Families whose masks do not
    look at positions (Falcon, OPT, MPT), and those with states (LFM2, Jamba, Mamba), do not keep documents apart.
    """
    decoder, device = decoder_of(model), next(model.parameters()).device

    def states(*documents: tuple[int, ...]) -> Tensor:
        row = pack([Example(ids, ids) for ids in documents]).to(device)
        hidden = call_as_forward(model, lambda: last_hidden(decoder, row))[0].float()
        return hidden[: len(_PROBE)] if documents[0] == _PROBE else hidden[-len(_PROBE) :]

    with uncompiled(), evaluation_mode(model):
        before = states(_FIRST, _PROBE) - states(_OTHER, _PROBE)
        behind, other = states(_PROBE, _FIRST), states(_PROBE, _OTHER)
    rounding = (behind - other).abs().max()
    return bool(before.abs().max() <= _TOLERANCE * behind.abs().max() + 4 * rounding)
