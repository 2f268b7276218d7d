"""One output projection with the weights of both responders and a gate for each (paper, sec. 3.3)."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from llm_modules.mogu.router import RouterPair


class GateRecord:
    """The gates of one forward pass, by layer."""

    def __init__(self) -> None:
        self._by_layer: dict[int, Tensor] = {}

    def add(self, layer: int, gates: Tensor) -> None:
        """Store the gates of a layer, (batch, seq, 2)."""
        self._by_layer[layer] = gates

    def without_gradient(self) -> list[int]:
        """Layers whose gates carry no gradient."""
        return [layer for layer, gates in self._by_layer.items() if not gates.requires_grad]

    def stacked(self) -> Tensor:
        """All gates, (layers, batch, seq, 2) by ascending layer, glad first; RuntimeError if no mixture has run."""
        if not self._by_layer:
            raise RuntimeError("no gates were computed: no mixture has run in this pass")
        return torch.stack([self._by_layer[layer] for layer in sorted(self._by_layer)])


class MixtureControl:
    """Settings of the next forward pass, shared by all mixtures of one model.

    Attributes:
        active: Whether to mix at all; otherwise each projection is the base model's, bit for bit.
        rows: Rows of the batch to mix, (batch,) bool, or tokens, (batch or 1, seq) bool; the others are the base
            model's. All by default.
        forced: Constant gates (glad, unwilling) instead of the routers'.
        record: Receives the gates of the pass.
    """

    def __init__(self) -> None:
        self.active = True
        self.rows: Tensor | None = None
        self.forced: tuple[float, float] | None = None
        self.record: GateRecord | None = None

    @contextmanager
    def set(
        self,
        active: bool = True,
        rows: Tensor | None = None,
        forced: tuple[float, float] | None = None,
        record: GateRecord | None = None,
    ) -> Iterator[None]:
        """Apply the arguments within the block; afterwards restore what was set before, also on error."""
        before = self.active, self.rows, self.forced, self.record
        self.active, self.rows, self.forced, self.record = active, rows, forced, record
        try:
            yield
        finally:
            self.active, self.rows, self.forced, self.record = before


class Joined(NamedTuple):
    """The two matrices that a mixture multiplies with: the first product gives ``A h`` and all gates.

    A small model spends more time on starting operations than on arithmetic: two products are faster than many.
    """

    first: Tensor  # (2 * (r_g + r_u) + 2, in): A_g over A_u, the gate of each rank, glad's gate, unwilling's
    bias: Tensor | None  # (2 * (r_g + r_u) + 2,)
    second: Tensor  # (out, r_g + r_u): B_g beside B_u, times alpha / r


class Mixture(nn.Module):
    """``(w_g + w_u) W_o h + s_g w_g B_g A_g h + s_u w_u B_u A_u h`` in place of ``W_o h`` (paper).

    Both responders are one product of rank ``r_g + r_u``, with the gates in the middle. Adapters and gates are computed
    in their own type (fp32, also over a quantised or bf16 base), the sum in the type of the base.

    Attributes:
        base: The base model's projection, of any kind; its bias is part of ``W_o h``.
    """

    down: Tensor  # (r_g + r_u, in): A_g over A_u
    up: Tensor  # (out, r_g + r_u): B_g beside B_u
    scale: Tensor  # (r_g + r_u,): alpha / r of each responder
    gate_of: Tensor  # (r_g + r_u,): 0 for a rank of glad, 1 for a rank of unwilling

    def __init__(
        self,
        base: nn.Module,
        layer: int,
        glad: tuple[Tensor, Tensor, float],
        unwilling: tuple[Tensor, Tensor, float],
        routers: RouterPair,
        control: MixtureControl,
    ) -> None:
        """Wrap a projection; responders are A (r, in), B (out, r) and alpha / r."""
        super().__init__()
        self.base, self.layer, self.routers, self.control = base, layer, routers, control
        ranks = len(glad[0]), len(unwilling[0])
        self.ranks = ranks
        self.down = nn.Parameter(torch.cat([glad[0], unwilling[0]]), requires_grad=False)
        self.up = nn.Parameter(torch.cat([glad[1], unwilling[1]], dim=1), requires_grad=False)
        scales = [glad[2]] * ranks[0] + [unwilling[2]] * ranks[1]
        self.register_buffer("scale", torch.tensor(scales, dtype=self.up.dtype, device=self.up.device), False)
        self.register_buffer("gate_of", torch.tensor([0] * ranks[0] + [1] * ranks[1], device=self.up.device), False)
        self._joined: Joined | None = None

    @property
    def in_features(self) -> int:
        """Inputs of the projection."""
        return int(self.down.shape[1])

    @property
    def out_features(self) -> int:
        """Outputs of the projection."""
        return int(self.up.shape[0])

    def forward(self, hidden: Tensor) -> Tensor:
        """Outputs (batch, seq, out) of the projection's inputs (batch, seq, in)."""
        base: Tensor = self.base(hidden)
        control = self.control
        if not control.active:
            return base
        if torch.is_autocast_enabled(hidden.device.type):
            # Gates of bfloat16 come in steps of 1/256, too coarse to be pulled towards 0 and 1.
            with torch.autocast(hidden.device.type, enabled=False):
                mixed = self._mix(hidden, base)
        else:
            mixed = self._mix(hidden, base)
        if control.rows is None:
            return mixed
        rows = control.rows
        return torch.where(rows.view(*rows.shape, *[1] * (base.ndim - rows.ndim)), mixed, base)

    @property
    def is_joined(self) -> bool:
        """Whether the matrices are formed already (`join`)."""
        return self._joined is not None

    def responder(self, index: int) -> tuple[Tensor, Tensor, float]:
        """A, B and alpha / r of glad (0) or unwilling (1)."""
        own = self.gate_of == index
        return self.down[own], self.up[:, own], float(self.scale[own][0])

    def fold(self) -> None:
        """Replace the routers by equivalent logistic units and `join`: for inference."""
        self.routers = self.routers.folded()
        self.join()

    @torch.no_grad()
    def join(self) -> None:
        """Form the matrices once for all passes; call it again after a change of weights."""
        self._joined = self._join()

    def unjoin(self) -> None:
        """Form the matrices in every pass again, so that the routers can be trained."""
        self._joined = None

    def _join(self) -> Joined:
        weight, bias = self.routers.matrix()
        weight = weight.to(self.down.dtype)
        if bias is not None:
            bias = bias.to(self.down.dtype)
            bias = torch.cat([self.down.new_zeros(len(self.down)), bias[self.gate_of], bias])
        return Joined(torch.cat([self.down, weight[self.gate_of], weight]), bias, self.up * self.scale)

    def _mix(self, hidden: Tensor, base: Tensor) -> Tensor:
        first, bias, second = self._joined or self._join()
        ranks = second.shape[1]
        inner, by_rank, gates = linear(hidden.to(first.dtype), first, bias).split((ranks, ranks, 2), dim=-1)
        if self.control.forced is None:
            by_rank, gates = by_rank.sigmoid(), gates.sigmoid()
        else:
            forced = gates.new_tensor(self.control.forced)
            by_rank, gates = forced[self.gate_of], forced.expand_as(gates)
        if self.control.record is not None:
            self.control.record.add(self.layer, gates)
        return _weighed(base, gates, inner * by_rank, second)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "Mixture":
        """Move everything to a device, but only the base to another type (a Trainer's precision may ask for one)."""

        def moved(tensor: Tensor) -> Tensor:
            return fn(tensor).to(tensor.dtype)

        self.base._apply(fn, recurse)
        super()._apply(moved, recurse)
        if self._joined is not None:
            first, bias, second = self._joined
            self._joined = Joined(moved(first), None if bias is None else moved(bias), moved(second))
        return self

    def merge(self, *_args: object, **_options: object) -> None:
        """Raise RuntimeError: the weights of a mixture differ for every token."""
        raise RuntimeError(MERGE_REFUSED)


def _weighed(base: Tensor, gates: Tensor, inner: Tensor, second: Tensor) -> Tensor:
    """``(w_g + w_u) W_o h`` and the adapters' part, ``second`` times their gated inner values, in the base's type."""
    return torch.addcmul(linear(inner, second).to(base.dtype), base, gates.sum(dim=-1, keepdim=True).to(base.dtype))


MERGE_REFUSED = (
    "a MoGU cannot be merged into its base: its responders have another weight for every token; "
    "save it as a MoGU folder (rod export --format mogu) and load that with MoGUModel.from_pretrained"
)

SAVE_REFUSED = (
    "this model holds the mixtures of a MoGU: other programs would load the saved files with new random output "
    "projections; save a MoGU folder (rod export --format mogu, or MoGUModel.save_pretrained), or remove the mixtures "
    "with MoGUModel.unload()"
)
