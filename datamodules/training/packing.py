"""Batches of tokenised examples: padded rows, or documents packed into a single row."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from datamodules.batch import IGNORE_INDEX, SupervisedBatch
from datamodules.padding import pad_prompts, pad_rows


@dataclass(frozen=True)
class Example:
    """A tokenised sequence to learn. ``labels`` are the ids to predict, and ``IGNORE_INDEX`` on the prompt.

    Labels are aligned with the ids: ``labels[i]`` is ``input_ids[i]`` or ignored. The model shifts them. ``record``
    is the id or the place of the record that it is made of, for messages.
    """

    input_ids: tuple[int, ...]
    labels: tuple[int, ...]
    record: str = field(default="", kw_only=True)

    @property
    def n_targets(self) -> int:
        """Number of tokens to predict; no token predicts the first."""
        return sum(label != IGNORE_INDEX for label in self.labels[1:])

    @property
    def longest(self) -> int:
        """Tokens of the longest sequence that the example has in a batch."""
        return len(self.input_ids)


def pad(examples: Sequence[Example], pad_id: int = 0, mean_targets: float | None = None) -> SupervisedBatch:
    """Pad examples on the right to the longest, one in each row.

    Shapes: all (len(examples), longest).

    >>> batch = pad([Example((5, 6, 7), (-100, 6, 7)), Example((8, 9), (-100, 9))])
    >>> batch.input_ids.tolist(), batch.labels.tolist()
    ([[5, 6, 7], [8, 9, 0]], [[-100, 6, 7], [-100, 9, -100]])
    """
    ids, mask = pad_prompts([e.input_ids for e in examples], pad_id)
    labels = pad_rows([e.labels for e in examples], IGNORE_INDEX)
    return SupervisedBatch(ids, labels, mask, mean_targets=mean_targets)


def pack(examples: Sequence[Example], mean_targets: float | None = None) -> SupervisedBatch:
    """Pack examples end to end into a single row, in which no document sees another.

    Positions restart at every document and there is no attention mask. From such positions transformers builds a
    block-diagonal mask, but only if the model is called with ``use_cache=False``. With an attention mask, even of
    ones, or with a cache, documents leak into each other. The first label of each document is ignored, because the
    last token of the previous document would predict it.

    Shapes: all (1, total length).

    >>> batch = pack([Example((5, 6, 7), (-100, 6, 7)), Example((8, 9), (-100, 9))])
    >>> batch.input_ids.tolist(), batch.position_ids.tolist()
    ([[5, 6, 7, 8, 9]], [[0, 1, 2, 0, 1]])
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
