"""Assign contents to the splits train, dev and test, by hash and whatever their wording."""

from hashlib import blake2b
from typing import Literal

Split = Literal["train", "dev", "test"]


def split_of(canonical: str, *, dev: float, test: float) -> Split:
    """Return the split of a content, by the hash of its canonical text.

    Args:
        canonical: The content without its wording, such as ``12+5-3`` or ``open jar``.
        dev: Share of all contents in dev.
        test: Share of all contents in test. The rest is in train.

    >>> split_of("12+5-3", dev=0.05, test=0.1)
    'train'
    """
    position = int.from_bytes(blake2b(canonical.encode(), digest_size=8).digest(), "big") / 2**64
    if position < dev:
        return "dev"
    return "test" if position < dev + test else "train"
