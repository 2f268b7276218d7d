"""Learning-rate schedules of a known length."""

import math
from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

ScheduleCallable = Callable[[Optimizer, int], LRScheduler]
"""Called with the optimiser and the number of optimiser steps, returns a schedule.

Any torch schedule that takes this number as its second argument fits, such as ``CosineAnnealingLR``. A schedule must
multiply the rate of each group: one that overwrites it makes the rates of all groups equal.
"""

_PER_GROUP = {"base_lrs", "_last_lr", "lr_lambdas", "min_lrs", "max_lrs"}
"""Entries of the state of torch's schedules that have one value per group."""


def arranged_schedule(state: dict[str, Any], order: Sequence[int]) -> dict[str, Any]:
    """The stored state of a schedule for other groups: ``order`` has the index of the stored group for each group.

    That of `Multiplied` is returned as it is: it names its groups and arranges itself.
    """
    if "names" in state:
        return state
    return {key: [value[i] for i in order] if key in _PER_GROUP else value for key, value in state.items()}


class WarmupCosine(LambdaLR):
    """Linear warm-up, then half a cosine down to ``final`` times the rate."""

    def __init__(self, optimizer: Optimizer, total_steps: int, warmup: float = 0.1, final: float = 0.0) -> None:
        """Make the schedule.

        Args:
            optimizer: Whose rates are multiplied.
            total_steps: Number of optimiser steps.
            warmup: Share of the steps in which the rate rises from 0.
            final: Factor of the rate at the last step.
        """
        warm_steps = max(1, round(warmup * total_steps))

        def multiplier(step: int) -> float:
            if step < warm_steps:
                return (step + 1) / (warm_steps + 1)
            progress = min(1.0, (step - warm_steps) / max(1, total_steps - warm_steps))
            return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * progress))

        super().__init__(optimizer, multiplier)


class WarmupConstant(LambdaLR):
    """Linear warm-up, then the full rate."""

    def __init__(self, optimizer: Optimizer, total_steps: int, warmup: float = 0.1) -> None:
        """Make the schedule.

        Args:
            optimizer: Whose rates are multiplied.
            total_steps: Number of optimiser steps.
            warmup: Share of the steps in which the rate rises from 0.
        """
        warm_steps = round(warmup * total_steps)
        super().__init__(optimizer, lambda step: min(1.0, (step + 1) / (warm_steps + 1)))


class Multiplied(LRScheduler):
    """Multiplies the rates of any schedule by a factor for each group and step.

    The schedule inside sees its own rates only: if it overwrites them (a scalar minimum, a ``max_lr``) or derives them
    from the current ones, it neither erases nor compounds the factors. Between steps the groups have the products,
    which the optimiser uses and the monitor logs.

    A state is restored by the names of the groups, whose order may have changed.
    """

    def __init__(self, schedule: LRScheduler, multiplier: Callable[[dict[str, Any], int], float]) -> None:
        """Wrap a schedule before its first step; ``multiplier`` is called with a group and the step, counted from 0."""
        self.optimizer = schedule.optimizer
        self.schedule = schedule
        self.multiplier = multiplier
        self.last_epoch = 0
        self._rates = self._current()
        self._multiply()

    def step(self, epoch: int | None = None) -> None:
        """Step the schedule inside, then multiply."""
        for group, rate in zip(self.optimizer.param_groups, self._rates, strict=True):
            group["lr"] = rate
        self.schedule.step()
        self._rates = self._current()
        self.last_epoch += 1
        self._multiply()

    def get_last_lr(self) -> list[float | Tensor]:
        """The products, by group."""
        return [*self._current()]

    def state_dict(self) -> dict[str, Any]:
        """The state of the schedule inside, its rates, and the names of the groups."""
        names = [group["name"] for group in self.optimizer.param_groups]
        return {"schedule": self.schedule.state_dict(), "rates": self._rates, "step": self.last_epoch, "names": names}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the state by the names of the groups; raises ``KeyError`` if it lacks one."""
        stored = {name: index for index, name in enumerate(state_dict["names"])}
        order = [stored[group["name"]] for group in self.optimizer.param_groups]
        self.schedule.load_state_dict(arranged_schedule(state_dict["schedule"], order))
        self._rates = [state_dict["rates"][index] for index in order]
        self.last_epoch = state_dict["step"]
        self._multiply()

    def _current(self) -> list[float]:
        return [group["lr"] for group in self.optimizer.param_groups]

    def _multiply(self) -> None:
        for group, rate in zip(self.optimizer.param_groups, self._rates, strict=True):
            group["lr"] = rate * self.multiplier(group, self.last_epoch)
