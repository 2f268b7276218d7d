"""Muon for hidden matrices and AdamW for all other parameters, as one optimiser."""

from collections.abc import Callable, Iterable
from typing import Any, overload

import torch
from torch.optim import AdamW, Muon, Optimizer

from datamodules.errors import InputError
from llm_modules.optim.parameter_groups import ParameterGroup


class MuonAdamW(Optimizer):
    """``torch.optim.Muon`` for groups of kind ``matrices``, ``torch.optim.AdamW`` for the others.

    Small models learn from scratch about twice as fast as with AdamW alone. Schedules and the learning-rate monitor see
    ordinary groups; there is one optimiser state.

    Args:
        params: Named groups; raises ``InputError`` for anything else.
        lr: Rate of Muon.
        adamw_lr: Rate of AdamW.
        momentum: Momentum of Muon.
        betas: Betas of AdamW.
        weight_decay: Weight decay of both, for groups without their own.
    """

    def __init__(
        self,
        params: Iterable[ParameterGroup],
        lr: float = 0.015,
        adamw_lr: float = 3e-3,
        momentum: float = 0.95,
        betas: tuple[float, float] = (0.9, 0.95),
        weight_decay: float = 0.0,
    ) -> None:
        groups: list[dict[str, Any]] = []
        for group in params:
            if not isinstance(group, dict) or "kind" not in group:
                raise InputError("MuonAdamW: it needs named parameter groups, which separate matrices from embeddings")
            groups.append(dict(group))
        matrices = [group for group in groups if group["kind"] == "matrices"]
        others = [group for group in groups if group["kind"] != "matrices"]
        # The two optimisers fill in the defaults of their groups and make the steps; groups and state are shared.
        self._muon = Muon(matrices, lr, weight_decay, momentum) if matrices else None
        self._adamw = AdamW(others, adamw_lr, betas, weight_decay=weight_decay) if others else None
        super().__init__(groups, {"lr": lr})

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Update every parameter that has a gradient; returns the closure's value."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for part, kind_fits in ((self._muon, True), (self._adamw, False)):
            if part is not None:
                # Loading a state replaces these objects, so they are handed over at every step.
                part.state = self.state
                part.param_groups = [g for g in self.param_groups if (g["kind"] == "matrices") == kind_fits]
                part.step()
        return loss
