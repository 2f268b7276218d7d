"""Random numbers of the CPU and of another device go on where they were, those of each process."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from callbacks.training.random_state import RandomState


class Device:
    """Stands for `torch.mps`, whose functions take no device; `torch.cuda` has the same with the current one."""

    def __init__(self) -> None:
        self.state = torch.zeros(4, dtype=torch.uint8)

    def get_rng_state(self) -> torch.Tensor:
        return self.state.clone()

    def set_rng_state(self, state: torch.Tensor) -> None:
        self.state = state


def trainer(step: int, kind: str = "cpu", rank: int = 0) -> Any:
    strategy = SimpleNamespace(root_device=torch.device(kind))
    return SimpleNamespace(global_step=step, global_rank=rank, world_size=1, strategy=strategy)


def test_the_state_after_the_last_step_is_kept_also_between_two_steps() -> None:
    module: Any = None
    callback, run = RandomState(), trainer(3)
    callback.setup(run, module, "fit")
    torch.manual_seed(0)
    callback.on_train_batch_start(run, module, None, 0)
    expected = torch.rand(3)  # of a batch after which the optimizer waits for another
    kept = callback.state_dict()
    again = RandomState()
    again.load_state_dict(kept)
    again.on_train_start(run, module)
    assert torch.equal(torch.rand(3), expected)
    run.global_step = 4
    now = torch.get_rng_state()
    assert torch.equal(callback.state_dict()["states"][0]["cpu"], now)


def test_another_device_has_a_state_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    module: Any = None
    device = Device()
    monkeypatch.setattr(torch, "get_device_module", lambda _: device)
    callback, run = RandomState(), trainer(0, "mps")
    callback.setup(run, module, "fit")
    device.state += 7
    kept = callback.state_dict()
    device.state += 1
    again = RandomState()
    again.load_state_dict(kept)
    again.on_train_start(trainer(0), module)
    assert device.state.tolist() == [8] * 4, "a fit that goes on without the device has no state for it"
    again.on_train_start(run, module)
    assert device.state.tolist() == [7] * 4


def test_each_process_goes_on_with_its_own_and_old_checkpoints_have_none() -> None:
    module: Any = None
    callback = RandomState()
    assert callback.state_dict() == {}
    callback.load_state_dict({})
    before = torch.get_rng_state()
    callback.on_train_start(trainer(0), module)
    assert torch.equal(torch.get_rng_state(), before)
    states = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        states.append({"cpu": torch.get_rng_state()})
    callback.load_state_dict({"states": states})
    callback.on_train_start(trainer(0, rank=1), module)
    assert torch.equal(torch.get_rng_state(), states[1]["cpu"])
