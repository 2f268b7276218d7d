"""Records of the compression curriculum."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Variant:
    """A chain of thought for the same question as an initial one; ``length_ratio`` is Len-R (paper), in tokens."""

    text: str
    n_tokens: int
    alpha: float
    length_ratio: float


@dataclass(frozen=True)
class CurriculumItem:
    """A question whose traces passed the filter: the initial trace and its variants, none of them longer.

    ``id`` is that of the question, ``initial`` the completion at alpha = 0, ``initial_tokens`` its length.
    """

    id: str
    question: str
    gold: str | None
    initial: str
    initial_tokens: int
    variants: tuple[Variant, ...]
