"""Assign contents to the splits train, dev and test, by hash and whatever their wording."""

from hashlib import blake2b
from typing import Literal

Split = Literal["train", "dev", "test"]


def split_of(canonical: str, *, dev: float, test: float) -> Split:
    """Return the split of a content such as ``open jar``, by its hash; ``dev`` and ``test`` are shares of all.

    >>> split_of("12+5-3", dev=0.05, test=0.1)
    'train'
    """
    position = int.from_bytes(blake2b(canonical.encode(), digest_size=8).digest(), "big") / 2**64
    if position < dev:
        return "dev"
    return "test" if position < dev + test else "train"
