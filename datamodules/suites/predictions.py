"""Records of a test run: predictions, judges' verdicts, likelihoods of given responses."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from datamodules.answers.rule import AnswerRule
from datamodules.completions.thoughts import Split, split_thought
from datamodules.records.requests import template_arguments

BUDGETS = (32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768)
"""Token budgets at which accuracy may be measured."""


@dataclass(frozen=True)
class JudgeVerdict:
    """A judge's verdict on a completion.

    ``complied`` is True if the model did what it was asked, False if not, None if the judge could not tell; ``error``
    then says why. A judge of ``kind`` refusal looks for refusals, one of kind harm for harmful content. ``partial``
    says whether the model refused in part; None if the judge cannot tell.
    """

    judge: str
    complied: bool | None
    kind: Literal["refusal", "harm"] = "refusal"
    score: float | None = None
    error: str | None = None
    partial: bool | None = None


@dataclass(frozen=True)
class Prediction:
    """One completion of a test run, its verdicts, and everything needed to score it again.

    ``suite``, ``kind``, ``group``, ``cluster``, ``options`` and ``rule`` come from the completion's `Suite`.
    ``attack_template`` is the name of the template that the request was rendered through. ``prefill`` is the start of
    the answer that the model was given; ``completion`` continues it. The end of ``prompt`` shows whether it opens a
    thought. ``correct`` is None without a gold answer, or if the check was given up (``unchecked``). ``verdicts`` are
    about the answer after the thought, ``thought_verdicts`` about the thought, if it was to be judged. ``incoherence``
    says what makes a judged answer incoherent; empty if it is coherent, None if there is no answer or none to judge.
    ``budget_ends`` counts the characters of the completion within each of ``BUDGETS`` that it is longer than,
    ``thought_tokens`` the tokens of its thought; they are there if the tokenizer was at hand. ``right_box`` and
    ``right_any`` say of maths whether the answer in the last box, and the first in any place, is right. Other fields
    are those of `Trace`.
    """

    any_text: ClassVar[bool] = True

    id: str
    completion: str
    question_id: str = ""
    question: str = ""
    gold: str | None = None
    options: tuple[str, ...] = ()
    suite: str = ""
    kind: str = "answers"
    group: str = ""
    cluster: str = ""
    system: str = "plain"
    attack_template: str = field(default="none", metadata={"formerly": "wrap"})
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
    thought_verdicts: tuple[JudgeVerdict, ...] = ()
    incoherence: str | None = None
    budget_ends: tuple[int, ...] = ()
    thought_tokens: int | None = None
    right_box: bool | None = None
    right_any: bool | None = None
    engine: str | None = None
    steered_places: int | None = None
    steered_size: float | None = None
    chat_template_kwargs: Mapping[str, Any] = template_arguments()

    @property
    def right(self) -> bool | None:
        """Whether the answer counts as right: an unchecked one does not. None without a gold answer."""
        return False if self.unchecked else self.correct

    @property
    def unit(self) -> str:
        """What is independent of other predictions: the cluster, else the question."""
        return self.cluster or self.question_id or self.id

    @property
    def parts(self) -> Split:
        """Thought and answer of prefill and completion."""
        return split_thought(self.prefill + self.completion, self.prompt)


@dataclass(frozen=True)
class ScoredResponse:
    """Likelihood of a given response: negative log-likelihood in nats, summed over ``n_tokens`` tokens.

    ``digest`` is that of the tokens of prompt and response; empty in files of earlier versions.
    """

    id: str
    suite: str
    nll: float
    n_tokens: int
    digest: str = ""
