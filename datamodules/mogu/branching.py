"""Both responses to a request in one row, with the prompt in it once."""

from collections.abc import Sequence

from datamodules.batch import IGNORE_INDEX
from datamodules.mogu.batch import BranchedBatch
from datamodules.padding import pad_rows
from datamodules.training.packing import Example


def branch(pairs: Sequence[tuple[Example, Example]], pad_id: int = 0) -> BranchedBatch:
    """One row per pair: the tokens that both examples begin with, the rest of the first, the rest of the second.

    Shapes: (len(pairs), longest row), and (2 * len(pairs), most targets of an example).
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
            # The last common token predicts the first token of either rest.
            predictors[which].append([place - 1 if place <= common else place - 1 + shift for place in places])
    return BranchedBatch(
        pad_rows(ids, pad_id),
        pad_rows(positions, 0),
        pad_rows(branches, -1),
        pad_rows(targets[0] + targets[1], IGNORE_INDEX),
        pad_rows(predictors[0] + predictors[1], 0),
    )
