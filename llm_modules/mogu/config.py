"""The settings of a MoGU besides its weights, as ``mogu.json`` stores them."""

from dataclasses import dataclass
from math import isfinite
from typing import Literal, get_args

from datamodules.errors import InputError

Mode = Literal["first_m", "keep_cache", "always", "off", "glad", "unwilling"]
"""Which generated tokens come from the mixture.

``first_m``: the first m; the base model then reads prompt and tokens again and generates the rest (paper).
``keep_cache``: the first m; the base model continues from the mixture's keys and values (ours).
``always``: all (ours). ``off``: none. ``glad``, ``unwilling``: all, from one responder alone.
"""

FORCED = {"glad": (1.0, 0.0), "unwilling": (0.0, 1.0)}
"""Modes with constant gates (glad, unwilling)."""


@dataclass(frozen=True)
class RouterConfig:
    """Shape of the routers.

    >>> RouterConfig(layers=(5, 2, 3), d_router=0, bias=True).layers
    (2, 3, 5)

    Attributes:
        layers: Decoder layers that get a mixture, counted from 0; all by default (paper).
        target: Name of the projection in each layer; by default the attention output projection (paper).
        d_router: Inner width of the factored routers (paper: 512). 0 trains each router as one logistic unit.
        bias: Whether the logistic units have a bias (paper: no).
    """

    layers: tuple[int, ...] | None = None
    target: str | None = None
    d_router: int = 512
    bias: bool = False

    def __post_init__(self) -> None:
        if self.d_router < 0:
            raise InputError(f"model.router.d_router: must be 0 (folded) or more, is {self.d_router}")
        if self.layers is not None:
            if not self.layers:
                raise InputError("model.router.layers: the list is empty; leave it out to route all layers")
            object.__setattr__(self, "layers", tuple(sorted(set(self.layers))))


def check_shift(shift: float, key: str) -> None:
    """Raise InputError if a shift of the gates is no finite number."""
    if not isinstance(shift, int | float) or not isfinite(shift):
        raise InputError(f"{key}: a finite number is expected, not {shift!r}")


def check_mode(mode: Mode, m: int, key: str = "model.") -> None:
    """Raise InputError if the mode is unknown or cannot use ``m``; ``key`` is the place they come from."""
    if mode not in (modes := get_args(Mode)):
        raise InputError(f"{key}mode: '{mode}' is unknown; use one of {', '.join(modes)}")
    if not isinstance(m, int) or m < 0:
        raise InputError(f"{key}m: {m!r} is not a number of tokens; use 1 or more (paper: 5)")
    if mode in ("first_m", "keep_cache") and m == 0:
        raise InputError(f"{key}m: mode '{mode}' with m: 0 is the base model; set {key}mode: off for that")
