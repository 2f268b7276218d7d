"""Counts what steering adds, where, and how large it is beside the residual stream."""

from collections.abc import Sequence

import torch
from torch import Tensor

from llm_modules.generation import Steered


class SteeredPlaces:
    """Places (tokens x layers) that were steered in each row, and the mean relative size of what was added there."""

    def __init__(self, rows: int) -> None:
        self._count = torch.zeros(rows, dtype=torch.long)
        self._sum = torch.zeros(rows, dtype=torch.double)  # what it is must not depend on how rows are padded
        self._rows = torch.empty(0, dtype=torch.long)
        self._again = False
        self._shared: tuple[Tensor, Tensor] | None = None
        self._next_shared: tuple[Tensor, Tensor] | None = None
        # Of the current pass, by layer: norms of the residual stream (batch, seq), sizes of the addends (batch, 1).
        self._norms: list[Tensor] = []
        self._sizes: list[Tensor] = []
        self._is_token: Tensor | None = None

    def next_pass(self, rows: Tensor, again: bool) -> None:
        """Begin a pass of these rows, (batch,); ``again`` if it computes all that their earlier passes computed."""
        self._settle()
        self._rows, self._again = rows, again
        self._shared, self._next_shared = self._next_shared, None

    def shared_pass(self, rows: Tensor, readers: Tensor) -> None:
        """The coming pass belongs to each of ``rows``, (n,), which the row in its place in ``readers`` stands for."""
        self._next_shared = rows, readers

    def add(self, hidden: Tensor, sizes: Tensor, is_token: Tensor | None) -> None:
        """Note what is added to a layer.

        Args:
            hidden: The residual stream before, (batch, seq, hidden).
            sizes: Norms of what is added, (batch, 1); 0 in rows that are not steered.
            is_token: Which columns are tokens, (batch, seq); None if all are.
        """
        self._norms.append(torch.linalg.vector_norm(hidden, dim=-1, dtype=torch.float32))
        self._sizes.append(sizes)
        self._is_token = is_token

    def forget(self, rows: Sequence[int]) -> None:
        """Count these rows from 0."""
        self._settle()
        self._next_shared = None
        chosen = torch.tensor(rows, dtype=torch.long, device=self._count.device)
        self._count[chosen], self._sum[chosen] = 0, 0.0

    def of(self, row: int) -> Steered:
        """What was done to a row so far."""
        self._settle()
        count = int(self._count[row])
        return Steered(count, float(self._sum[row]) / count if count else 0.0)

    def _settle(self) -> None:
        """Add the current pass to the rows' sums."""
        if not self._norms:
            return
        device = self._norms[0].device
        norms = torch.stack([tensor.to(device) for tensor in self._norms])
        sizes = torch.stack([tensor.to(device) for tensor in self._sizes])
        self._norms, self._sizes = [], []
        places = (sizes > 0).expand_as(norms)
        if self._is_token is not None:
            places = places & self._is_token.to(device, torch.bool)
        relative = torch.where(places, sizes / norms.clamp(min=torch.finfo(norms.dtype).tiny), 0.0)
        rows, exact = self._rows.to(device), torch.float if device.type == "mps" else torch.double
        self._count, self._sum = self._count.to(device), self._sum.to(device, exact)
        if self._again:
            self._count[rows], self._sum[rows] = 0, 0.0
        count, total = places.sum(dim=(0, 2)), relative.sum(dim=(0, 2), dtype=exact)
        if self._shared is not None:
            every, readers = (tensor.to(device) for tensor in self._shared)
            of_reader = (readers[:, None] == rows).int().argmax(dim=1)
            rows, count, total = every, count[of_reader], total[of_reader]
        self._count.index_add_(0, rows, count)
        self._sum.index_add_(0, rows, total)
