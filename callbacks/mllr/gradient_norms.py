"""Gradient norms by parameter group."""

from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from torch.nn.utils import get_total_norm
from torch.optim import Optimizer

from callbacks.trainer_parts import logs_now


class GroupGradientNorms(Callback):
    """Logs ``grad_norm/<group>`` before clipping, at the steps at which the trainer logs.

    Clipping goes by the norm over all groups: a group with large gradients shrinks those of the others.
    """

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        """Log the norms."""
        if not logs_now(trainer):
            return
        for index, group in enumerate(optimizer.param_groups):
            gradients = [parameter.grad for parameter in group["params"] if parameter.grad is not None]
            if gradients:
                pl_module.log(f"grad_norm/{group.get('name', index)}", _whole(get_total_norm(gradients)))


def _whole(norm: Tensor) -> Tensor:
    """The norm over all shards, if gradients are sharded."""
    return norm.full_tensor() if hasattr(norm, "full_tensor") else norm
