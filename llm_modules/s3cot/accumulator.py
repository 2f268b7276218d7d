"""Compute the direction from a stream of contrast pairs: one pass, memory independent of their number."""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.distributed import all_gather_object, get_world_size, is_available, is_initialized

from datamodules.errors import InputError
from llm_modules.s3cot.direction import Direction, anchor_layer

BLOCK_BYTES = 4 * 2**20
"""Size of the blocks in which the single differences are read back."""


class DirectionAccumulator:
    """Computes the difference in means of each layer and how well single differences agree with it.

    The cosines need the final mean, so the single differences wait in an unnamed temporary file: 4 bytes x layers x
    hidden per pair, 40 MB for 100 pairs of a 7B model. Sums are float64. With torch.distributed each process adds its
    own pairs, and all get the same result. Use it as a context manager.

    Example:
        >>> long, short = torch.ones(3, 2, 4), torch.zeros(3, 2, 4)  # 3 pairs, 2 layers, hidden size 4
        >>> with DirectionAccumulator(layers=2, hidden=4) as accumulator:
        ...     accumulator.update(positive=long, negative=short)
        ...     direction = accumulator.finish()
        >>> direction.n, direction.separation, direction.anchor
        (3, (2.0, 2.0), 0)
    """

    def __init__(self, layers: int, hidden: int, spool_dir: Path | None = None) -> None:
        """Start with empty sums; ``spool_dir`` holds the temporary file (default: the system's folder)."""
        self.shape = (layers, hidden)
        self.n = 0
        self._sum = torch.zeros(layers, hidden, dtype=torch.float64)
        self._spool = tempfile.TemporaryFile(dir=spool_dir)  # noqa: SIM115 - `close` ends it

    def __enter__(self) -> "DirectionAccumulator":
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _at: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Free the temporary file; may be called again."""
        self._spool.close()

    def update(self, positive: Tensor, negative: Tensor) -> None:
        """Add the states of some pairs, each (batch, layers, hidden) in any float dtype.

        InputError if a state is not finite.
        """
        if positive.shape != negative.shape or positive.shape[1:] != self.shape:
            raise ValueError(
                f"states {tuple(positive.shape)} and {tuple(negative.shape)}, expected (batch, *{self.shape})"
            )
        difference = (positive.float() - negative.float()).cpu()
        finite = torch.isfinite(difference).all(dim=2).all(dim=0)
        if not finite.all():
            raise InputError(
                f"the hidden states of layer {int((~finite).nonzero()[0])} are not finite numbers; "
                "load the model with model.dtype float32 or bfloat16"
            )
        self._sum += difference.double().sum(dim=0)
        self.n += len(difference)
        self._spool.write(difference.contiguous().numpy().data)

    def finish(self, consistency: float = 0.9, **origin: Any) -> Direction:
        """Return the direction of all pairs of all processes, with an `anchor_layer` of this consistency.

        ``origin`` are fields of `Direction` that record where it comes from. InputError if there are no pairs, or the
        two prompts of every pair give the same states.
        """
        gathered = _gather((self.n, self._sum))
        n = sum(count for count, _ in gathered)
        if n == 0:
            raise InputError("no contrast pairs were given; check the data's files and limits")
        mean = torch.stack([total for _, total in gathered]).sum(dim=0) / n
        if not mean.any():
            raise InputError("both prompts of every contrast pair give the same states; give two prompts that differ")

        sums = torch.zeros(2, self.shape[0], dtype=torch.float64)
        unit = torch.nn.functional.normalize(mean, dim=1)
        for block in self._spooled():
            cosine = (torch.nn.functional.normalize(block.double(), dim=2) * unit).sum(dim=2)
            sums += torch.stack([cosine.sum(dim=0), cosine.square().sum(dim=0)])
        average, square = torch.stack(_gather(sums)).sum(dim=0) / n
        cosines = tuple(average.tolist())
        return Direction(
            vectors=mean.float(),
            n=n,
            anchor=anchor_layer(cosines, consistency),
            cosine=cosines,
            cosine_variance=tuple((square - average.square()).clamp(min=0).tolist()),
            **origin,
        )

    def _spooled(self) -> Iterator[Tensor]:
        """Yield the differences of this process in blocks (pairs, layers, hidden)."""
        layers, hidden = self.shape
        row = 4 * layers * hidden
        rows = max(1, BLOCK_BYTES // row)
        self._spool.seek(0)
        while data := self._spool.read(rows * row):
            yield torch.from_numpy(np.frombuffer(data, dtype=np.float32).copy()).view(-1, layers, hidden)


def _gather(mine: Any) -> list[Any]:
    """Return the value of every process in the order of ranks, so that sums of them are equal on all."""
    if not (is_available() and is_initialized()):
        return [mine]
    everyone: list[Any] = [None] * get_world_size()
    all_gather_object(everyone, mine)
    return everyone
