"""Records of a test: predictions, verdicts, likelihoods."""

from dataclasses import dataclass, field
from typing import Literal

from datamodules.answers.rule import AnswerRule


@dataclass(frozen=True)
class JudgeVerdict:
    """What a judge said of a completion: the model went along (True), did not (False), or ``error`` says why not known.

    A judge of ``kind`` refusal looks whether the model declined, one of harm whether it did what it should not have.
    """

    judge: str
    complied: bool | None
    kind: Literal["refusal", "harm"] = "refusal"
    score: float | None = None
    error: str | None = None


@dataclass(frozen=True)
class Prediction:
    """One answer of a test, its verdicts, and all that it takes to score it again.

    ``suite``, ``kind``, ``group``, ``wrap``, ``options`` and ``rule`` are those of the `Suite` that it belongs to.
    ``prefill`` is the beginning of the answer that was put into the model's mouth; ``completion`` goes on from there.
    ``correct`` is None where there is no gold answer, or where checking had to be given up (``unchecked``). Other
    fields as in `Trace`.
    """

    id: str
    completion: str
    question_id: str = ""
    question: str = ""
    gold: str | None = None
    options: tuple[str, ...] = ()
    suite: str = ""
    kind: str = "answers"
    group: str = ""
    system: str = "plain"
    wrap: str = "none"
    sample: int = 0
    seed: int = 0
    prompt: str = ""
    prefill: str = ""
    n_tokens: int | None = None
    finish_reason: Literal["stop", "length"] | None = None
    model: str = ""
    rule: AnswerRule = field(default_factory=AnswerRule)
    answer: str | None = None
    correct: bool | None = None
    unchecked: bool = False
    verdicts: tuple[JudgeVerdict, ...] = ()


@dataclass(frozen=True)
class ScoredResponse:
    """The likelihood of a given response: negative log-likelihood in nats, and the tokens it is the sum over."""

    id: str
    suite: str
    nll: float
    n_tokens: int
