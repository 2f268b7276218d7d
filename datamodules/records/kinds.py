"""The record types that several methods share: one dataclass for each kind of line in a JSONL file."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from datamodules.records.requests import Request, earlier_turns, template_arguments
from datamodules.records.turns import Turn

System = Literal["system1", "system2", "plain"]
"""The instruction that a question is asked with: be brief, reason step by step, or none."""


@dataclass(frozen=True)
class Question(Request):
    """A problem and, if known, its right answer; in a chat of several turns the last request, and the turns before.

    An empty answer, as tables have it, is none.
    """

    id: str
    question: str
    gold: str | None = None
    earlier: tuple[Turn, ...] = earlier_turns()

    def __post_init__(self) -> None:
        if self.gold is not None and not self.gold.strip():
            object.__setattr__(self, "gold", None)


@dataclass(frozen=True)
class Trace(Request):
    r"""One sampled chain of thought.

    ``alpha`` is the steering strength; at 0 the trace is the model's own, *initial* chain of thought. ``layers`` are
    the decoder layers steered, and ``layer_set`` is the name that the run gives them: "" for the callback's own layers
    and at alpha 0, None in files without this field. ``n_tokens`` counts the generated tokens, end-of-sequence
    included. ``answer`` is the content of the last ``\boxed{}``; ``correct`` says if it equals ``gold``. Both are None
    if there is nothing to read or to compare. ``engine`` is what generated it, with its version. ``steered_places`` are
    the tokens times layers that something was added to, and ``steered_size`` the mean norm of it over that of the
    residual stream there; None without steering, and in files without these fields. ``chat_template_kwargs`` are those
    that the prompt was rendered with.
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
    engine: str | None = None
    steered_places: int | None = None
    steered_size: float | None = None
    earlier: tuple[Turn, ...] = earlier_turns()
    chat_template_kwargs: Mapping[str, Any] = template_arguments()


@dataclass(frozen=True)
class Instruction(Request):
    """A request and the response to learn."""

    id: str
    prompt: str
    response: str
    system: str | None = None
    earlier: tuple[Turn, ...] = earlier_turns()

    request_field = "prompt"
    response_field = "response"
