"""From tokenised examples to a batch: padded rows, documents packed into one row, or pairs that begin alike."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from datamodules.batch import IGNORE_INDEX, BranchedBatch, SupervisedBatch


@dataclass(frozen=True)
class Example:
    """A tokenised sequence to learn; ``labels`` are the ids to predict and ``IGNORE_INDEX`` on the prompt.

    Labels are aligned with the ids (``labels[i]`` is ``input_ids[i]`` or ignored): the model shifts them.
    """

    input_ids: tuple[int, ...]
    labels: tuple[int, ...]

    @property
    def n_targets(self) -> int:
        """Tokens to predict; nothing predicts the first."""
        return sum(label != IGNORE_INDEX for label in self.labels[1:])

    @property
    def longest(self) -> int:
        """Tokens of the longest sequence that it puts into a batch."""
        return len(self.input_ids)


def pad(examples: Sequence[Example], pad_id: int = 0, mean_targets: float | None = None) -> SupervisedBatch:
    """One row per example, padded on the right to the longest.

    Shapes: all (len(examples), longest).
    """
    ids, labels = _padded([e.input_ids for e in examples], pad_id), _padded([e.labels for e in examples], IGNORE_INDEX)
    mask = _padded([[1] * len(e.input_ids) for e in examples], 0)
    return SupervisedBatch(ids, labels, mask, mean_targets=mean_targets)


def pack(examples: Sequence[Example], mean_targets: float | None = None) -> SupervisedBatch:
    """All examples end to end in a single row, none of which sees another.

    Positions restart at every document and there is no attention mask: transformers then builds the block-diagonal
    mask from the positions, but only if the model is also called with ``use_cache=False``. An attention mask, even
    of ones, or a cache makes documents leak into each other. The first label of each document is ignored, because
    what predicts it is the last token of the document before.

    Shapes: all (1, total length).
    """
    ids = [token for e in examples for token in e.input_ids]
    labels = [label for e in examples for label in (IGNORE_INDEX, *e.labels[1:])]
    positions = [position for e in examples for position in range(len(e.input_ids))]
    return SupervisedBatch(
        torch.tensor([ids]),
        torch.tensor([labels]),
        attention_mask=None,
        position_ids=torch.tensor([positions]),
        mean_targets=mean_targets,
    )


def branch(pairs: Sequence[tuple[Example, Example]], pad_id: int = 0) -> BranchedBatch:
    """One row per pair, in which the tokens that both begin with, such as a prompt, are there once.

    Shapes: (len(pairs), longest of a row), and (2 * len(pairs), most targets of an example).
    """
    ids: list[list[int]] = []
    positions: list[list[int]] = []
    branches: list[list[int]] = []
    targets: tuple[list[list[int]], list[list[int]]] = ([], [])
    predictors: tuple[list[list[int]], list[list[int]]] = ([], [])
    for pair in pairs:
        one, other = (example.input_ids for example in pair)
        common = next(
            (i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other))
        )
        ids.append([*one, *other[common:]])
        positions.append([*range(len(one)), *range(common, len(other))])
        branches.append([0] * common + [1] * (len(one) - common) + [2] * (len(other) - common))
        for which, (example, shift) in enumerate(zip(pair, (0, len(one) - common), strict=True)):
            places = [place for place, label in enumerate(example.labels) if place and label != IGNORE_INDEX]
            targets[which].append([example.labels[place] for place in places])
            # The first token after the common ones is predicted by the last of those.
            predictors[which].append([place - 1 if place <= common else place - 1 + shift for place in places])
    return BranchedBatch(
        _padded(ids, pad_id),
        _padded(positions, 0),
        _padded(branches, -1),
        _padded(targets[0] + targets[1], IGNORE_INDEX),
        _padded(predictors[0] + predictors[1], 0),
    )


def _padded(rows: Sequence[Sequence[int]], value: int) -> torch.Tensor:
    longest = max(len(row) for row in rows)
    return torch.tensor([[*row, *[value] * (longest - len(row))] for row in rows], dtype=torch.long)
