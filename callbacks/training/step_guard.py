"""Losses and gradients that are no numbers, and losses that diverge."""

from collections import deque
from collections.abc import Iterable
from math import inf, isfinite
from typing import Any, Literal

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, distributed, nn
from torch.nn.utils import get_total_norm
from torch.optim import Optimizer

from datamodules.errors import InputError

WINDOW = 10
"""Optimizer steps over which the loss is averaged to see whether it diverges (ours)."""
_SHOWN = 8
_REMEDY = (
    "lower the rate (model.optimizer.lr), lengthen the warm-up (model.schedule) or set trainer.gradient_clip_val to 1"
)


class StepGuard(Callback):
    """Stops a fit before a NaN or infinite loss or gradient reaches the weights, and warns if the loss diverges.

    Both are looked at once before each optimizer step. With several processes all of them decide alike. A loss
    diverges if in each of 10 steps it is more than twice the lowest mean over 10 steps so far (at first: than the first
    loss) and 1 more: batches of different kinds have different losses, and few of a kind may come first. With
    ``16-mixed`` precision the gradients are left to Lightning's scaler, which expects infinite ones.
    """

    def __init__(self, non_finite: Literal["stop", "skip"] = "stop", most_skips: int = 5) -> None:
        """Choose what happens at a loss or gradient that is not finite.

        Args:
            non_finite: ``stop`` ends the fit with the ids of the batch; ``skip`` leaves the weights and the optimizer's
                state as they are, warns, and logs the number so far as ``train/skipped_steps``.
            most_skips: With ``skip``: most steps in a row; the next one stops the fit.

        Raises:
            InputError: ``most_skips`` is below 1.
        """
        if most_skips < 1:
            raise InputError(f"step_guard.most_skips: must be 1 or more, is {most_skips}")
        self.non_finite, self.most_skips = non_finite, most_skips
        self.n_skipped = 0
        self._in_a_row = 0
        self._losses: list[tuple[int, Tensor]] = []  # batch and loss since the last step
        self._recent: deque[float] = deque(maxlen=WINDOW)
        self._lowest = inf
        self._told = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forget an earlier fit."""
        self.n_skipped = self._in_a_row = 0
        self._losses.clear()
        self._recent.clear()
        self._lowest, self._told = inf, False

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Tensor) -> None:
        """Keep the loss, on its device: it is read at the step."""
        self._losses.append((trainer.fit_loop.batch_idx, loss.detach()))

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        """Look at the losses and gradients of the step.

        Raises:
            InputError: One is not finite, and the step is not to be skipped.
        """
        scales = getattr(trainer.precision_plugin, "scaler", None) is not None
        largest = torch.tensor(0.0) if scales else _largest_gradient(pl_module.parameters())
        batches, losses = [batch for batch, _ in self._losses], [loss for _, loss in self._losses]
        self._losses.clear()
        *values, gradient = torch.stack([value.float().to(largest.device) for value in [*losses, largest]]).tolist()
        is_bad = not all(map(isfinite, [*values, gradient]))
        if trainer.world_size > 1:
            flag = torch.tensor(float(is_bad), device=trainer.strategy.root_device)
            is_bad = bool(trainer.strategy.reduce(flag, reduce_op="max"))
        if is_bad:
            self._refuse(trainer, optimizer, batches, values, gradient)
            pl_module.log("train/skipped_steps", float(self.n_skipped), on_step=True, on_epoch=False)
            return
        self._in_a_row = 0
        if trainer.is_global_zero:
            self._watch(trainer, optimizer)

    def _refuse(
        self, trainer: Trainer, optimizer: Optimizer, batches: list[int], losses: list[float], gradient: float
    ) -> None:
        """Skip the step of all processes, or stop them."""
        bad = [batch for batch, loss in zip(batches, losses, strict=True) if not isfinite(loss)]
        loss = next((loss for loss in losses if not isfinite(loss)), None)
        own = loss, gradient, _ids(trainer, bad), _ids(trainer, batches)
        everyone: list[Any] = [own]
        if trainer.world_size > 1:
            everyone = [None] * trainer.world_size
            distributed.all_gather_object(everyone, own)
        with_loss = [one for one in everyone if one[0] is not None]
        what = f"the loss is {with_loss[0][0]:g}" if with_loss else "the loss is finite, but a gradient is not"
        # Infinite gradients without an infinite loss may come from any batch of the step.
        ids = [name for one in with_loss for name in one[2]] or [name for one in everyone for name in one[3]]
        told = f"step {trainer.global_step}: {what}, in the batch of {_shown(ids)}"
        self.n_skipped += 1
        self._in_a_row += 1
        if self.non_finite == "stop" or self._in_a_row > self.most_skips:
            row = f" ({self.most_skips} steps before it were skipped)" if self.non_finite == "skip" else ""
            raise InputError(
                f"{told}{row}; the weights are those of the step before. Look at these records and {_REMEDY}; "
                "--step_guard.non_finite skip leaves such steps out"
            )
        # Without gradients an optimizer changes neither weights nor state.
        optimizer.zero_grad(set_to_none=True)
        rank_zero_warn(f"{told}; skipped (the {self.n_skipped}. of this fit)")

    def _watch(self, trainer: Trainer, optimizer: Optimizer) -> None:
        """Warn once if the loss diverges."""
        logged = trainer.callback_metrics.get("train/loss")
        if logged is None or self._told:
            return
        self._recent.append(float(logged))
        if self._lowest == inf:
            self._lowest = self._recent[0]
        if len(self._recent) < WINDOW:
            return
        mean = sum(self._recent) / WINDOW
        if min(self._recent) > 2 * self._lowest + 1:
            self._told = True
            last = trainer.global_step
            rates = sorted({f"{group['lr']:.3g}" for group in optimizer.param_groups})
            rank_zero_warn(
                f"the training loss diverges: {mean:.4g} on average over steps {last - WINDOW + 1} to {last}, "
                f"{self._lowest:.4g} before; the rate is now {', '.join(rates)}: stop the fit and {_REMEDY}"
            )
        self._lowest = min(self._lowest, mean)


def _largest_gradient(parameters: Iterable[nn.Parameter]) -> Tensor:
    """The largest absolute value of all gradients (of this process's shards), a scalar; NaN if one is NaN.

    A norm of squares can overflow where no gradient is infinite.
    """
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    local = [grad.to_local() if hasattr(grad, "to_local") else grad for grad in gradients]
    local = [grad for grad in local if grad.numel()]
    return get_total_norm(local, norm_type=inf) if local else torch.tensor(0.0)


def _ids(trainer: Trainer, batches: Iterable[int]) -> list[str]:
    """The ids of the records in this process's batches of the epoch."""
    loader: Any = trainer.train_dataloader
    if hasattr(loader, "ids"):
        return [name for batch in batches for name in loader.ids(batch)]
    return [f"batch {batch}" for batch in batches]


def _shown(ids: list[str]) -> str:
    more = f" and {len(ids) - _SHOWN} more" if len(ids) > _SHOWN else ""
    return ", ".join(ids[:_SHOWN]) + more
