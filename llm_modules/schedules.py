"""Learning-rate schedules that know the length of the run."""

import math
from collections.abc import Callable

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

ScheduleCallable = Callable[[Optimizer, int], LRScheduler]
"""Makes a schedule from the optimiser and the number of optimiser steps of the run.

Any torch schedule whose second argument is that number fits, such as ``CosineAnnealingLR``.
Schedules must multiply the rate of each group and never overwrite it, or groups with rates of their own lose them.
"""


class WarmupCosine(LambdaLR):
    """Linear warm-up, then half a cosine down to ``final`` times the rate."""

    def __init__(self, optimizer: Optimizer, total_steps: int, warmup: float = 0.1, final: float = 0.0) -> None:
        """Make the schedule.

        Args:
            optimizer: Whose groups' rates are multiplied.
            total_steps: Optimiser steps of the run.
            warmup: Share of the steps over which the rate rises from 0.
            final: What the multiplier ends at.
        """
        warm_steps = max(1, round(warmup * total_steps))

        def multiplier(step: int) -> float:
            if step < warm_steps:
                return (step + 1) / (warm_steps + 1)
            progress = min(1.0, (step - warm_steps) / max(1, total_steps - warm_steps))
            return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * progress))

        super().__init__(optimizer, multiplier)


class WarmupConstant(LambdaLR):
    """Linear warm-up, then the full rate to the end."""

    def __init__(self, optimizer: Optimizer, total_steps: int, warmup: float = 0.1) -> None:
        """Make the schedule; arguments as in ``WarmupCosine``."""
        warm_steps = round(warmup * total_steps)
        super().__init__(optimizer, lambda step: min(1.0, (step + 1) / (warm_steps + 1)))
