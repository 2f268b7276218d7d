"""Records of the compression curriculum."""

from dataclasses import dataclass

from datamodules.records.requests import Request, earlier_turns
from datamodules.records.turns import Turn


@dataclass(frozen=True)
class Variant:
    """A chain of thought for the same question as an initial one, with its length ratio in tokens (paper: Len-R)."""

    text: str
    n_tokens: int
    alpha: float
    length_ratio: float


@dataclass(frozen=True)
class CurriculumItem(Request):
    """A question with the traces that passed the filter: the initial one (alpha = 0) and variants no longer than it.

    ``id`` is the question's; ``initial`` is a completion, ``initial_tokens`` its length.
    """

    id: str
    question: str
    gold: str | None
    initial: str
    initial_tokens: int
    variants: tuple[Variant, ...]
    earlier: tuple[Turn, ...] = earlier_turns()
