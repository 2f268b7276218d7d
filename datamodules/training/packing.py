"""From tokenised examples to a batch: padded rows, documents packed into one row, or pairs that begin alike."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from datamodules.batch import IGNORE_INDEX, SupervisedBatch
from datamodules.padding import pad_prompts, pad_rows


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
    ids, mask = pad_prompts([e.input_ids for e in examples], pad_id)
    labels = pad_rows([e.labels for e in examples], IGNORE_INDEX)
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
