"""Cross-entropy of the completion tokens without the logits of the whole batch in memory.

A batch of 8 x 1,024 tokens over a vocabulary of 150k has 4.9 GB of fp32 logits, and as much again for their gradient.
Here the head runs over the labelled positions only, some rows at a time, and the gradient of each chunk is taken at
once: at most ``LOGITS_BYTES`` of logits exist at any time, and no part of the head runs twice.
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from datamodules.batch import IGNORE_INDEX, SupervisedBatch
from llm_modules.head import OutputHead

LOGITS_BYTES = 64 * 2**20
"""Upper bound of the fp32 logits of one chunk: large enough to keep a GPU busy, small beside the weights."""


def completion_loss(decoder: nn.Module, head: OutputHead, batch: SupervisedBatch) -> Tensor:
    """Mean cross-entropy over the labelled tokens of a batch, as a scalar.

    Args:
        decoder: The transformer without its head; called with the batch, gives ``last_hidden_state``.
        head: What turns hidden states into logits.
        batch: Tokens and labels, (batch, seq); a position predicts the label of its successor.
    """
    inputs = {"input_ids": batch.input_ids, "use_cache": False}
    # An explicit None lets packed documents be told apart by their position ids.
    inputs["attention_mask"] = batch.attention_mask
    if batch.position_ids is not None:
        inputs["position_ids"] = batch.position_ids
    hidden = decoder(**inputs).last_hidden_state
    targets = batch.labels[:, 1:]
    chosen = targets != IGNORE_INDEX
    return mean_cross_entropy(hidden[:, :-1][chosen], targets[chosen], head)


def mean_cross_entropy(hidden: Tensor, targets: Tensor, head: OutputHead) -> Tensor:
    """Mean cross-entropy of ``head(hidden)`` against ``targets``, chunk by chunk.

    Args:
        hidden: Hidden states that predict, (tokens, hidden).
        targets: Token ids to predict, (tokens,).
        head: Maps (tokens, hidden) to logits (tokens, vocabulary).
    """
    if targets.numel() == 0:
        return hidden.sum() * 0.0
    rows = max(1, LOGITS_BYTES // (4 * head.vocab_size))
    if targets.numel() <= rows:
        return cross_entropy(head(hidden).float(), targets)
    parameters = [p for p in head.parameters() if p.requires_grad]
    total: Tensor = _ChunkedCrossEntropy.apply(hidden, targets, head, rows, *parameters)
    return total / targets.numel()


class _ChunkedCrossEntropy(torch.autograd.Function):
    """Summed cross-entropy whose gradients are computed in the forward pass, while a chunk's logits are at hand."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, targets: Tensor, head: Callable[[Tensor], Tensor], rows: int, *parameters: Tensor
    ) -> Tensor:
        wants_grad = any(ctx.needs_input_grad)
        hidden_grad = torch.empty_like(hidden) if wants_grad else None
        parameter_grads = [torch.zeros_like(p, dtype=torch.float32) for p in parameters] if wants_grad else []
        total = hidden.new_zeros((), dtype=torch.float32)
        for part, chunk in _chunks(hidden.detach(), rows):
            with torch.set_grad_enabled(wants_grad):
                chunk = chunk.requires_grad_(wants_grad)
                loss = cross_entropy(head(chunk).float(), targets[part], reduction="sum")
            total += loss.detach()
            if hidden_grad is not None:
                chunk_grad, *grads = torch.autograd.grad(loss, [chunk, *parameters])
                hidden_grad[part] = chunk_grad
                for kept, grad in zip(parameter_grads, grads, strict=True):
                    kept += grad
        if hidden_grad is not None:
            ctx.save_for_backward(
                hidden_grad, *(g.to(p.dtype) for g, p in zip(parameter_grads, parameters, strict=True))
            )
        return total

    @staticmethod
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor | None, ...]:
        hidden_grad, *parameter_grads = ctx.saved_tensors
        scale = outer[0]
        return hidden_grad * scale, None, None, None, *(grad * scale for grad in parameter_grads)


def _chunks(hidden: Tensor, rows: int) -> Iterator[tuple[slice, Tensor]]:
    for start in range(0, len(hidden), rows):
        part = slice(start, start + rows)
        yield part, hidden[part]
