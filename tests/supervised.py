"""A data module of fixed random examples, for tests of training."""

from collections.abc import Sequence

import torch
from torch import nn

from datamodules.batch import IGNORE_INDEX
from datamodules.training.packing import Example
from datamodules.training.supervised import SupervisedData


class RandomExamples(SupervisedData):
    """``n`` examples of 6 to 12 byte tokens whose first three carry no loss."""

    def __init__(
        self, n: int = 12, batch_size: int | None = 2, seed: int | None = None, max_tokens: int | None = None
    ) -> None:
        super().__init__(batch_size=batch_size, seed=seed, max_tokens=max_tokens)
        self.n = n

    def _examples(self, n: int, seed: int) -> list[Example]:
        generator = torch.Generator().manual_seed(seed)
        lengths = torch.randint(6, 13, (n,), generator=generator).tolist()
        rows = [torch.randint(0, 256, (length,), generator=generator).tolist() for length in lengths]
        return [Example(tuple(row), (IGNORE_INDEX,) * 3 + tuple(row[3:])) for row in rows]

    def train_examples(self, stage: int) -> Sequence[Example]:
        """The same examples in each stage."""
        return self._examples(self.n, self.seed)

    def val_examples(self) -> Sequence[Example]:
        """Four others."""
        return self._examples(4, self.seed + 1)


def parameter_sum(module: nn.Module) -> float:
    """A number that differs when any trainable parameter does."""
    return float(sum(p.detach().double().sum() for p in module.parameters() if p.requires_grad))
