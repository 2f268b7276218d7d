"""The random numbers of a fit, which go on where they were."""

from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor


class RandomState(Callback):
    """Keeps the state of torch's random numbers in checkpoints, that of each process: dropout goes on where it was.

    What is kept is the state after the last optimizer step, where a stopped fit goes on. Data are not drawn by these
    numbers, see `SupervisedData`.
    """

    def __init__(self) -> None:
        self._trainer: Trainer | None = None
        self._step = -1
        self._own: dict[str, Tensor] = {}
        self._loaded: list[dict[str, Tensor]] = []

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Note the trainer."""
        self._trainer = trainer

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Go on from the state of a checkpoint."""
        if not self._loaded:
            return
        for kind, state in self._loaded[trainer.global_rank % len(self._loaded)].items():
            if kind == "cpu":
                torch.set_rng_state(state)
            elif trainer.strategy.root_device.type == kind:
                torch.get_device_module(kind).set_rng_state(state)  # of the current device; MPS knows no other

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Note the state after each optimizer step."""
        if trainer.global_step != self._step:
            self._step, self._own = trainer.global_step, _state(trainer.strategy.root_device)

    def state_dict(self) -> dict[str, Any]:
        """The states of all processes, which call this together."""
        trainer = self._trainer
        if trainer is None:
            return {}
        own = self._own if trainer.global_step == self._step else _state(trainer.strategy.root_device)
        states: list[Any] = [own]
        if trainer.world_size > 1:
            states = [None] * trainer.world_size
            torch.distributed.all_gather_object(states, own)
        return {"states": states}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the states of a checkpoint."""
        self._loaded = state_dict.get("states", [])


def _state(device: torch.device) -> dict[str, Tensor]:
    """The state on the CPU and, if the fit runs on another device, there, by type of device."""
    states = {"cpu": torch.get_rng_state()}
    if device.type != "cpu":
        states[device.type] = torch.get_device_module(device).get_rng_state()
    return states
