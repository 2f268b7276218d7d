"""Perturb the weights of modules and put them back exactly (paper: that modules are perturbed; the kinds are ours)."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from hashlib import blake2b
from itertools import zip_longest
from typing import Literal

import torch
from torch import Tensor, nn

from datamodules.errors import InputError
from llm_modules.mllr.weights import Weight, weights_of
from llm_modules.optim.module_names import Module

Kind = Literal["gaussian", "zero", "scale", "delta"]
SEEDED: frozenset[str] = frozenset({"gaussian"})
"""Kinds that draw random numbers; for the others one seed is enough."""


class Perturbation:
    """A perturbation of modules, relative to the norm of their weights: large and small modules compare.

    | kind | W becomes |
    |---|---|
    | ``gaussian`` | W + eps norm(W) / sqrt(n) * N(0, 1), drawn for each module |
    | ``zero`` | 0 |
    | ``scale`` | (1 - eps) W |
    | ``delta`` | W + eps norm(W) / norm(D) * D, D the change of W by a short pilot fine-tune |
    """

    def __init__(
        self, model: nn.Module, kind: Kind = "gaussian", eps: float = 0.5, pilot: nn.Module | None = None
    ) -> None:
        """Prepare; the norm is Frobenius's, n the number of weights, ``pilot`` the tuned model for ``delta``.

        InputError if ``eps`` is not positive, or the pilot is missing, of another shape or unchanged.
        """
        if not 0 < eps < float("inf"):
            raise InputError(f"eps: must be above 0, is {eps:g}")
        if (pilot is None) == (kind == "delta"):
            raise InputError("perturbation: 'delta', and only it, needs a pilot: the model after a short fine-tune")
        self.kind: Kind = kind
        self.eps = eps
        self.weights = weights_of(model)
        self._tuned = _tuned(self.weights, pilot) if pilot is not None else {}

    @property
    def modules(self) -> list[Module]:
        """The modules that can be perturbed."""
        return list(self.weights)

    @contextmanager
    def applied(self, modules: Iterable[Module], seed: int = 0) -> Iterator[None]:
        """Perturb modules within the block; afterwards, also on error, every bit is as before.

        The noise of ``gaussian`` depends on the seed and the module only, not on the other modules.
        """
        chosen = sorted(set(modules))
        copies: list[tuple[Tensor, Tensor]] = []
        clean: dict[tuple[int, torch.Size], Tensor] = {}
        try:
            for module in chosen:
                for index, weight in enumerate(self.weights[module]):
                    view = weight.view()
                    copies.append((view, view.clone()))
                    # Types of a fused weight whose layout is unknown all perturb the whole weight.
                    before = clean.setdefault((view.data_ptr(), view.shape), copies[-1][1])
                    view.copy_(self._perturbed(view, before, module, index, seed))
            yield
        finally:
            # In reverse, so that the first copy of a weight that several types have is put back last.
            for view, copy in reversed(copies):
                view.copy_(copy)

    def _perturbed(self, weights: Tensor, clean: Tensor, module: Module, index: int, seed: int) -> Tensor:
        if self.kind == "zero":
            return torch.zeros_like(weights)
        if self.kind == "scale":
            return weights * (1 - self.eps)
        whole = weights.float()
        size = torch.linalg.vector_norm(whole)
        if self.kind == "delta":
            # Computed anew each time: kept in float32, the changes are twice as large as the model in bfloat16.
            delta = self._tuned[module][index].view().to(whole.device).float() - clean.float()
            change = delta * (size / torch.linalg.vector_norm(delta))
        else:
            change = _noise(whole, module, index, seed) * (size / whole.numel() ** 0.5)
        return (whole + self.eps * change).to(weights.dtype)


def _noise(like: Tensor, module: Module, index: int, seed: int) -> Tensor:
    """Drawn on the CPU: every device gets the same numbers."""
    digest = blake2b(f"{seed}/{module.name}/{index}".encode(), digest_size=7).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest, "big"))
    return torch.randn(like.shape, generator=generator).to(like.device)


def _tuned(weights: Mapping[Module, list[Weight]], pilot: nn.Module) -> dict[Module, list[Weight]]:
    """The pilot's weights. InputError if their shapes differ from the model's, or a module's did not change."""
    after = weights_of(pilot)
    still = []
    for module, parts in weights.items():
        pairs = list(zip_longest((part.view() for part in parts), (part.view() for part in after.get(module, []))))
        if any(a is None or b is None or a.shape != b.shape for a, b in pairs):
            raise InputError(f"pilot: {module.name} has another shape than in the model; give a tune of this model")
        if any(torch.equal(a, b.to(a.device)) for a, b in pairs):
            still.append(module.name)
    if still:
        raise InputError(
            f"pilot: {', '.join(still[:3])}{' and others' if len(still) > 3 else ''} did not change in the pilot "
            "fine-tune; tune all modules, or use another perturbation"
        )
    return after
