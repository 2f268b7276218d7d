"""Which split a problem or a topic belongs to: a function of what it says, never of how it is worded."""

from hashlib import blake2b
from typing import Literal

Split = Literal["train", "dev", "test"]


def split_of(canonical: str, *, dev: float, test: float) -> Split:
    """The split of whatever ``canonical`` names, by its hash: same text, same split, for ever.

    Args:
        canonical: The content without its wording, such as ``12+5-3`` or ``open jar``.
        dev: Share of all contents that belongs to dev.
        test: Share that belongs to test; the rest is train.
    """
    position = int.from_bytes(blake2b(canonical.encode(), digest_size=8).digest(), "big") / 2**64
    if position < dev:
        return "dev"
    return "test" if position < dev + test else "train"
