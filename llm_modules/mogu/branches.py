"""Losses of two responses to one prompt, where the model reads the prompt once.

A row holds the prompt, the first response and the second one; attention mask and position ids keep the responses apart
as two branches. With one row per response, training on the miniature takes 1.49 times the CPU time for the glad
responder and 1.69 times for the unwilling one (shipped configurations and data, one thread, whole epochs in turn,
median of five ratios). Gradients are the same up to rounding.

Not every architecture honours such a mask, and its name does not tell: `takes_branches` tests it once on a few tokens.
"""

import logging

import torch
from torch import Tensor, nn

from datamodules.batch import SupervisedBatch
from datamodules.mogu.batch import BranchedBatch
from llm_modules.backbone.head import OutputHead
from llm_modules.backbone.modes import evaluation_mode
from llm_modules.loss import row_losses, target_losses

log = logging.getLogger(__name__)

ATTENTION = ("sdpa", "eager")
"""Attention implementations that accept a mask of any form."""


def branch_losses(decoder: nn.Module, head: OutputHead, batch: BranchedBatch) -> Tensor:
    """Mean cross-entropy of each response, (2 * items,) float32: all first responses, then all second ones.

    ``decoder`` is the transformer without its head, of a model that `takes_branches`.
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
    """Additive attention mask, (items, 1, seq, seq): 0 if a token sees the other one, else the type's least number.

    A token sees itself, the prompt, and the earlier tokens of its own branch.
    """
    seq = branch.shape[1]
    sees = (branch[:, None, :] == branch[:, :, None]) | (branch[:, None, :] == 0)
    sees &= torch.ones(seq, seq, dtype=torch.bool, device=branch.device).tril()
    return torch.zeros_like(sees, dtype=dtype).masked_fill(~sees, torch.finfo(dtype).min)[:, None]


def fits_window(head: OutputHead, batch: BranchedBatch) -> bool:
    """Whether the rows are within every sliding window: windows count columns of a row, not positions."""
    window = getattr(head.model.config.get_text_config(), "sliding_window", None)
    return window is None or batch.input_ids.shape[1] <= window


@torch.no_grad()
def takes_branches(decoder: nn.Module, head: OutputHead) -> bool:
    """Whether a model's losses in branches equal those row by row; tested on seven tokens, without dropout."""
    model = head.model
    if (kind := model.config._attn_implementation) not in ATTENTION:
        log.info("each response gets a row of its own: '%s' attention takes no branches", kind)
        return False
    rows, branches = _trial(head.vocab_size)
    device = model.device
    try:
        with evaluation_mode(model):
            apart = row_losses(decoder, head, rows.to(device))
            together = branch_losses(decoder, head, branches.to(device))
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, TypeError, ValueError, IndexError) as error:
        log.info("each response gets a row of its own: this model takes no branches (%s)", error)
        return False
    # Matrix products of other sizes round differently.
    precise = torch.finfo(model.dtype).eps < 1e-6 and not torch.is_autocast_enabled(device.type)
    same = torch.allclose(apart, together, rtol=1e-3 if precise else 5e-2, atol=1e-3 if precise else 5e-2)
    if not same:
        log.info("each response gets a row of its own: this model mixes branches up")
    return same


def _trial(vocab_size: int) -> tuple[SupervisedBatch, BranchedBatch]:
    """Three tokens that go on in two ways: as two rows, and as one row with two branches."""
    a, b, c, d, e, f, g = (1 + 7 * i % (vocab_size - 1) for i in range(7))
    ids = torch.tensor([[a, b, c, d, e], [a, b, c, f, g]])
    rows = SupervisedBatch(ids, ids, torch.ones_like(ids))
    branches = BranchedBatch(
        input_ids=torch.tensor([[a, b, c, d, e, f, g]]),
        position_ids=torch.tensor([[0, 1, 2, 3, 4, 3, 4]]),
        branch=torch.tensor([[0, 0, 0, 1, 1, 2, 2]]),
        targets=ids[:, 1:],
        predictors=torch.tensor([[0, 1, 2, 3], [0, 1, 2, 5]]),
    )
    return rows, branches
