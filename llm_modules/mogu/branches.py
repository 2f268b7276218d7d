"""Losses of two sequences that begin alike, such as a prompt with two responses: the beginning is read once.

Both rests go on from it in one row of tokens; an attention mask and position ids keep them apart. Whether a model heeds
them is not to be known from its name, so that it is tried.
"""

import logging

import torch
from torch import Tensor, nn

from datamodules.mogu.batch import BranchedBatch
from datamodules.mogu.branching import branch
from datamodules.training.packing import Example, pad
from llm_modules.backbone.head import OutputHead
from llm_modules.backbone.modes import evaluation_mode
from llm_modules.loss import row_losses, target_losses

log = logging.getLogger(__name__)

ATTENTION = ("sdpa", "eager")
"""Kinds of attention that take a mask of any form."""
_PROBES = ((3, 2, 2), (2, 1, 3))
"""Tokens in common, of the first rest and of the second, of two pairs that a model is tried on."""


def branch_losses(decoder: nn.Module, head: OutputHead, batch: BranchedBatch) -> Tensor:
    """Mean cross-entropy over the targets of each sequence, (2 * items,) float32: the first ones, then the second.

    Args:
        decoder: The transformer without its head, of a model that `takes_branches`.
        head: What turns hidden states into logits.
        batch: From `datamodules.mogu.branching.branch`.
    """
    hidden: Tensor = decoder(
        input_ids=batch.input_ids,
        attention_mask=branch_mask(batch.branch, head.model.dtype),
        position_ids=batch.position_ids,
        use_cache=False,
    ).last_hidden_state
    items = torch.arange(len(batch.targets), device=hidden.device) % len(batch.input_ids)
    return target_losses(hidden[items[:, None], batch.predictors], batch.targets, head)


def branch_mask(branch: Tensor, dtype: torch.dtype) -> Tensor:
    """What is added to attention scores, (items, 1, seq, seq): 0 where a token sees another, else a large negative.

    A token sees itself and what is before it of its own branch or of the common beginning.

    Args:
        branch: As in ``BranchedBatch``.
        dtype: That of the scores.
    """
    seq = branch.shape[1]
    sees = (branch[:, None, :] == branch[:, :, None]) | (branch[:, None, :] == 0)
    sees &= torch.ones(seq, seq, dtype=torch.bool, device=branch.device).tril()
    return torch.zeros_like(sees, dtype=dtype).masked_fill(~sees, torch.finfo(dtype).min)[:, None]


def fits_window(head: OutputHead, batch: BranchedBatch) -> bool:
    """Whether no attention layer has a window that the rows would leave: windows count in columns, not in positions."""
    window = getattr(head.model.config.get_text_config(), "sliding_window", None)
    return window is None or batch.input_ids.shape[1] <= window


@torch.no_grad()
def takes_branches(decoder: nn.Module, head: OutputHead) -> bool:
    """Whether a model gives the same losses in branches as row by row; tried on a few tokens, without dropout."""
    model = head.model
    if (kind := model.config._attn_implementation) not in ATTENTION:
        log.info("prompts are read once per response: '%s' attention does not take branches", kind)
        return False
    pairs = [_probe(*sizes, head.vocab_size) for sizes in _PROBES]
    rows, branches = pad([*(one for one, _ in pairs), *(other for _, other in pairs)]), branch(pairs)
    device = model.device
    try:
        with evaluation_mode(model):
            apart = row_losses(decoder, head, rows.to(device))
            together = branch_losses(decoder, head, branches.to(device))
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, TypeError, ValueError, IndexError) as error:
        log.info("prompts are read once per response: this model does not take branches (%s)", error)
        return False
    # Not exact: other products of other sizes are rounded otherwise.
    precise = torch.finfo(model.dtype).eps < 1e-6 and not torch.is_autocast_enabled(device.type)
    same = torch.allclose(apart, together, rtol=1e-3 if precise else 5e-2, atol=1e-3 if precise else 5e-2)
    if not same:
        log.info("prompts are read once per response: this model mixes branches up")
    return same


def _probe(common: int, first: int, second: int, vocab_size: int) -> tuple[Example, Example]:
    """Two sequences of different tokens; all that are predicted count."""
    ids = [1 + 7 * i % (vocab_size - 1) for i in range(common + first + second)]
    one, other = tuple(ids[: common + first]), tuple(ids[:common] + ids[common + first :])
    return Example(one, one), Example(other, other)
