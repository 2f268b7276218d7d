"""Losses of a batch without its logits in memory.

A batch of 8 x 1,024 tokens with a vocabulary of 150k has 4.9 GB of fp32 logits, and as many for their gradient. Here
the head runs over the labelled positions only, in chunks, and the gradient of each chunk is computed with it: at most
``LOGITS_BYTES`` of logits exist at any time, and the head runs once per position.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, kl_div, log_softmax
from torch.utils.checkpoint import checkpoint

from datamodules.batch import IGNORE_INDEX, SupervisedBatch
from llm_modules.backbone.head import OutputHead

Divergence = Literal["forward_kl", "reverse_kl"]
LOGITS_BYTES = 64 * 2**20
"""Upper bound of the fp32 logits of a chunk: large enough to keep a GPU busy, small beside the weights."""


@dataclass(frozen=True)
class Loss:
    """The loss of one batch, as `llm_modules.causal_lm.CausalLM.loss` returns it.

    It is either a mean over tokens (give ``tokens``) or one loss per item, such as a request.

    >>> items = Loss(torch.tensor([1.0, 3.0]), per_batch=4.0, logged={"ce": torch.tensor([0.5, 1.5])})
    >>> items.mean().item(), items.to_minimise().item()
    (2.0, 1.0)
    >>> tokens = Loss(torch.tensor(2.0), tokens=torch.tensor(30), per_batch=20.0)
    >>> tokens.mean().item(), tokens.to_minimise().item()
    (2.0, 3.0)

    Attributes:
        values: Mean loss over the batch's tokens, a scalar; or the loss of each item, (items,).
        tokens: Number of tokens that a scalar is the mean over; None for losses per item.
        per_batch: Average number of tokens or items in a batch of this epoch, over all processes. With None every batch
            has the same weight.
        logged: Further values by name, scalars or (items,), whose means are logged.
        local: The same for values that some batches lack; validation does not average them over processes.
    """

    values: Tensor
    tokens: Tensor | None = None
    per_batch: float | None = None
    logged: dict[str, Tensor] = field(default_factory=dict)
    local: dict[str, Tensor] = field(default_factory=dict)

    @property
    def count(self) -> int:
        """Tokens or items in the batch."""
        return int(self.tokens) if self.tokens is not None else len(self.values)

    def mean(self) -> Tensor:
        """Mean over the batch, a scalar; this is logged."""
        return self.values.mean()

    def to_minimise(self) -> Tensor:
        """The scalar to differentiate, scaled so that every token or item of the epoch has the same weight.

        Batches are made of examples of similar length. With a mean over each batch, a token of a short answer would
        weigh more than one of a long answer, and the model would learn to be brief.
        """
        if self.tokens is None:
            return self.values.sum() / (self.per_batch or len(self.values))
        return self.values if self.per_batch is None else self.values * (self.tokens / self.per_batch)

    def log(self, write: Callable[..., None], phase: Literal["train", "val"]) -> None:
        """Log the means as ``{phase}/{name}``; ``write`` is the ``log`` of a LightningModule."""
        values = {"loss": self.mean()} | {name: value.mean() for name, value in (self.logged | self.local).items()}
        for name, value in values.items():
            write(
                f"{phase}/{name}",
                value.detach(),
                prog_bar=name == "loss",
                # Training logs single steps, for which the size has no effect; counting tokens would wait for the GPU.
                # A float: of whole numbers Lightning takes the mean over processes as a whole number, too.
                batch_size=float(max(1, self.count)) if phase == "val" else 1,
                # Other processes would wait for a value that this batch lacks.
                sync_dist=phase == "val" and name not in self.local,
                add_dataloader_idx=False,
            )


@dataclass(frozen=True)
class Likelihood:
    """Negative log-likelihood of a response in nats, and its number of tokens."""

    nll: float
    n_tokens: int


def completion_loss(decoder: nn.Module, head: OutputHead, batch: SupervisedBatch) -> Tensor:
    """Mean cross-entropy over the labelled tokens of a batch, a scalar; each position predicts the label of the next.

    ``decoder`` is the transformer without its head and returns ``last_hidden_state``.
    """
    hidden = last_hidden(decoder, batch)
    targets = batch.labels[:, 1:]
    chosen = targets != IGNORE_INDEX
    return mean_cross_entropy(hidden[:, :-1][chosen], targets[chosen], head)


def row_losses(
    decoder: nn.Module, head: OutputHead, batch: SupervisedBatch, reduction: Literal["mean", "sum"] = "mean"
) -> Tensor:
    """Cross-entropy over the labelled tokens of each row, (batch,) float32; 0 for a row without labels.

    Any function of the rows may be differentiated, such as a ratio of two. The batch must not be packed, because a
    row would hold several documents.
    """
    return row_losses_of(last_hidden(decoder, batch), batch, head, reduction)


def likelihoods(decoder: nn.Module, head: OutputHead, batch: SupervisedBatch) -> list[Likelihood]:
    """Likelihood of the labelled tokens of each row."""
    losses = row_losses(decoder, head, batch, reduction="sum")
    tokens = (batch.labels[:, 1:] != IGNORE_INDEX).sum(dim=1)
    return [Likelihood(nll=nll, n_tokens=n) for nll, n in zip(losses.tolist(), tokens.tolist(), strict=True)]


def row_losses_of(
    hidden: Tensor, batch: SupervisedBatch, head: OutputHead, reduction: Literal["mean", "sum"] = "mean"
) -> Tensor:
    """As `row_losses`, from hidden states after the final norm, (batch, seq, hidden)."""
    return target_losses(hidden[:, :-1], batch.labels[:, 1:], head, reduction)


def target_losses(
    hidden: Tensor, targets: Tensor, head: OutputHead, reduction: Literal["mean", "sum"] = "mean"
) -> Tensor:
    """As `row_losses`, from hidden states (batch, n, hidden) and the tokens that they predict, (batch, n)."""
    chosen = targets != IGNORE_INDEX
    losses = token_cross_entropy(hidden[chosen], targets[chosen], head)
    row_of = chosen.nonzero()[:, 0]
    sums = losses.new_zeros(len(targets)).index_add(0, row_of, losses)
    return sums if reduction == "sum" else sums / chosen.sum(dim=1).clamp(min=1)


def last_hidden(decoder: nn.Module, batch: SupervisedBatch) -> Tensor:
    """Hidden states after the final norm, (batch, seq, hidden)."""
    inputs = {"input_ids": batch.input_ids, "use_cache": False}
    # With an explicit None, transformers separates packed documents by their position ids.
    inputs["attention_mask"] = batch.attention_mask
    if batch.position_ids is not None:
        inputs["position_ids"] = batch.position_ids
    hidden: Tensor = decoder(**inputs).last_hidden_state
    return hidden


def token_cross_entropy(hidden: Tensor, targets: Tensor, head: OutputHead) -> Tensor:
    """Cross-entropy of each token, (tokens,) float32, in chunks; arguments as in `mean_cross_entropy`."""
    if targets.numel() == 0:
        return hidden.flatten(1).sum(dim=1).float() * 0.0
    rows = max(1, LOGITS_BYTES // (4 * head.vocab_size))

    def losses_of(part: Tensor, wanted: Tensor) -> Tensor:
        return cross_entropy(head(part).float(), wanted, reduction="none")

    if targets.numel() <= rows:
        return losses_of(hidden, targets)
    if any(parameter.requires_grad for parameter in head.parameters()):
        # The weight of each token in the head's gradient is known in the backward pass only: the head runs again.
        parts = [
            checkpoint(losses_of, chunk, targets[part], use_reentrant=False) for part, chunk in _chunks(hidden, rows)
        ]
        return torch.cat(parts)
    losses: Tensor = _ChunkedTokenLosses.apply(hidden, targets, losses_of, rows)
    return losses


def mean_cross_entropy(hidden: Tensor, targets: Tensor, head: OutputHead) -> Tensor:
    """Mean cross-entropy, in chunks, of hidden states (tokens, hidden) and the tokens (tokens,) that they predict."""
    if targets.numel() == 0:
        return hidden.sum() * 0.0
    rows = max(1, LOGITS_BYTES // (4 * head.vocab_size))
    if targets.numel() <= rows:
        return cross_entropy(head(hidden).float(), targets)
    parameters = [p for p in head.parameters() if p.requires_grad]
    total: Tensor = _ChunkedCrossEntropy.apply(hidden, targets, head, rows, *parameters)
    return total / targets.numel()


def token_divergence(
    hidden: Tensor, target_hidden: Tensor, head: OutputHead, divergence: Divergence = "forward_kl"
) -> Tensor:
    """KL divergence of next-token distributions at each position, (tokens,) float32, without all logits at once.

    Both hidden states are (tokens, hidden), ``target_hidden`` without gradient. ``forward_kl`` is KL(target || model),
    ``reverse_kl`` KL(model || target).
    """
    rows = max(1, LOGITS_BYTES // (8 * head.vocab_size))

    def of_chunk(part: Tensor, target: Tensor) -> Tensor:
        ours, theirs = (log_softmax(head(states).float(), dim=-1) for states in (part, target))
        pair = (ours, theirs.detach()) if divergence == "forward_kl" else (theirs.detach(), ours)
        return kl_div(*pair, log_target=True, reduction="none").sum(dim=-1)

    parts = [
        checkpoint(of_chunk, hidden[start : start + rows], target_hidden[start : start + rows], use_reentrant=False)
        for start in range(0, len(hidden), rows)
    ]
    return torch.cat(parts) if parts else hidden.sum(dim=-1)


class _ChunkedCrossEntropy(torch.autograd.Function):
    """Summed cross-entropy that computes its gradients in the forward pass, with each chunk's logits."""

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


class _ChunkedTokenLosses(torch.autograd.Function):
    """Cross-entropy of each token under a frozen head; computes its gradients in the forward pass, in chunks.

    A token's loss depends on its own hidden state only, so the backward pass just scales its gradient.
    """

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, targets: Tensor, losses_of: Callable[[Tensor, Tensor], Tensor], rows: int
    ) -> Tensor:
        wants_grad = ctx.needs_input_grad[0]
        hidden_grad = torch.empty_like(hidden) if wants_grad else None
        losses = hidden.new_empty(len(targets), dtype=torch.float32)
        for part, chunk in _chunks(hidden.detach(), rows):
            with torch.set_grad_enabled(wants_grad):
                chunk = chunk.requires_grad_(wants_grad)
                loss = losses_of(chunk, targets[part])
                losses[part] = loss.detach()
                if hidden_grad is not None:
                    (hidden_grad[part],) = torch.autograd.grad(loss.sum(), [chunk])
        if hidden_grad is not None:
            ctx.save_for_backward(hidden_grad)
        return losses

    @staticmethod
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor | None, ...]:
        (hidden_grad,) = ctx.saved_tensors
        return (hidden_grad * outer[0][:, None]).to(hidden_grad.dtype), None, None, None


def _chunks(hidden: Tensor, rows: int) -> Iterator[tuple[slice, Tensor]]:
    for start in range(0, len(hidden), rows):
        part = slice(start, start + rows)
        yield part, hidden[part]
