"""What a MoGU is made of besides its weights, as it stands in ``mogu.json``."""

from dataclasses import dataclass
from typing import Literal, get_args

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


def check_mode(mode: Mode, m: int, key: str = "model.") -> None:
    """Raise InputError, with ``key`` before the option, where there is no such mode or ``m`` is no number of tokens."""
    if mode not in (modes := get_args(Mode)):
        raise InputError(f"{key}mode: there is no '{mode}'; give one of {', '.join(modes)}")
    if not isinstance(m, int) or m < 0:
        raise InputError(f"{key}m: {m!r} is no number of tokens; give 1 or more (paper: 5)")
    if mode in ("first_m", "keep_cache") and m == 0:
        raise InputError(f"{key}m: mode '{mode}' without any token is the base model; set {key}mode: off for that")
