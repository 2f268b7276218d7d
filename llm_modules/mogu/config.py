"""What a MoGU is made of besides its weights, as it stands in ``mogu.json``."""

from dataclasses import dataclass
from typing import Literal

from datamodules.errors import InputError

Mode = Literal["first_m", "keep_cache", "always", "off", "glad", "unwilling"]
"""How the mixture takes part in generation.

``first_m``: the first m tokens come from it, then the base model reads prompt and tokens anew and goes on (paper).
``keep_cache``: the base model goes on from the keys and values that the mixture has computed (ours). ``always``: every
token (ours). ``off``: the base model. ``glad``, ``unwilling``: one responder alone, always.
"""

FORCED = {"glad": (1.0, 0.0), "unwilling": (0.0, 1.0)}
"""Modes with constant gates (glad, unwilling)."""


@dataclass(frozen=True)
class RouterConfig:
    """Shape of the routers.

    Attributes:
        layers: Decoder layers with a mixture, counted from 0; all by default (paper). MoGUv2 takes some.
        target: The projection in each of them, found by itself by default: the attention output projection (paper).
        d_router: Inner width of the factored routers (paper: 512); 0 trains each as one logistic unit.
        bias: Whether the logistic units have a bias (paper: none).
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
                raise InputError("model.router.layers: names no layer; leave it out for all of them")
            object.__setattr__(self, "layers", tuple(sorted(set(self.layers))))


def check_m(mode: Mode, m: int) -> None:
    """Raise InputError where ``m`` is no number of tokens."""
    if m < 0:
        raise InputError(f"model.m: {m} is no number of tokens; give 0 or more")
    if mode in ("first_m", "keep_cache") and m == 0:
        raise InputError(f"model.m: mode '{mode}' without any token is the base model; set model.mode: off for that")
