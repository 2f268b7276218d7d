"""What the shared callbacks know of a callback that steers generation."""

from abc import abstractmethod
from dataclasses import dataclass

from lightning.pytorch import Callback, Trainer

from callbacks.trainer_parts import callbacks_of


@dataclass(frozen=True)
class SteeringIdentity:
    """The part of the steering that completions depend on, beside the strength and layer set of each row.

    Attributes:
        direction: SHA-256 of the direction's file; None without steering, as the others.
        positions: Token positions that are steered.
        layers: Layer set of rows that name none.
        random_direction: Whether random vectors replace the direction.
    """

    direction: str | None = None
    positions: str | None = None
    layers: str | None = None
    random_direction: bool | None = None


class SteeringCallback(Callback):
    """A callback that applies ``alpha`` and ``layer_set`` of each `PromptRow`; `steering_of` finds it."""

    @abstractmethod
    def layers_of(self, layer_set: str) -> tuple[int, ...]:
        """Return the decoder layers that a row's layer set stands for."""

    @abstractmethod
    def identity(self) -> SteeringIdentity:
        """Return the values recorded beside completions; a run with others must not be mixed with them."""


def steering_of(trainer: Trainer) -> SteeringCallback | None:
    """Return the callback that steers this run, if there is one."""
    return next((callback for callback in callbacks_of(trainer) if isinstance(callback, SteeringCallback)), None)
