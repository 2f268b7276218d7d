"""One dataclass per kind of line in a JSONL file, and the reader that validates them."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Question:
    """A problem and, where known, its right answer."""

    id: str
    question: str
    gold: str | None = None


@dataclass(frozen=True)
class Trace:
    r"""One sampled chain of thought.

    ``alpha`` is the steering strength (0 = the model's own, *initial* chain of thought), ``layers`` the decoder
    layers steered, ``n_tokens`` the generated tokens including the end-of-sequence token.
    ``layer_set`` is the name by which the run asked for the layers ("" for the callback's own and at alpha 0, None in
    files written before there was this field).
    ``answer`` is what stands in the last ``\boxed{}`` and ``correct`` whether it equals ``gold``; None where there is
    no answer or no gold.
    """

    id: str
    question_id: str
    question: str
    gold: str | None
    system: str
    alpha: float
    layers: tuple[int, ...]
    sample: int
    seed: int
    prompt: str
    completion: str
    n_tokens: int
    finish_reason: Literal["stop", "length"]
    answer: str | None
    correct: bool | None
    model: str
    layer_set: str | None = None


@dataclass(frozen=True)
class Instruction:
    """A request and the response to learn."""

    id: str
    prompt: str
    response: str
    system: str | None = None
