"""What the miniature's model card measures: what to ask, and how to score what comes back.

Generation is the caller's: put the ``prompts`` of each suite to the model, give the texts and their lengths to `score`.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from datamodules.prompts.chat_template import SYSTEM1_SUFFIX, SYSTEM2_SUFFIX
from datamodules.world import chat, files, maths
from datamodules.world.splits import Split

REQUESTS = {
    "no request": "",
    "System 2": SYSTEM2_SUFFIX,
    "System 1": SYSTEM1_SUFFIX,
    **{f"grade {grade.grade}:{grade.wordings[0]}": grade.wordings[0] for grade in maths.GRADES},
}
"""Name -> what is appended to a problem."""

_BOXED = re.compile(r"\\boxed\{(\d+)\}")


Subject = maths.Problem | chat.Request
"""What a prompt is about."""


@dataclass(frozen=True)
class Suite:
    """Prompts of one kind with what their answers are scored against.

    Attributes:
        name: Of the kind.
        prompts: User turns.
        subjects: The problem or request behind each prompt.
    """

    name: str
    prompts: tuple[str, ...] = field(repr=False)
    subjects: tuple[Subject, ...] = field(repr=False)


@dataclass(frozen=True)
class Score:
    """Results of one suite; rates are fractions of 1.

    Attributes:
        name: Of the suite.
        n: Answers.
        right: Share that is right: the boxed answer of a problem; all facts of a request.
        refused: Share of refusals.
        tokens: Mean length, the end-of-sequence token included.
    """

    name: str
    n: int
    right: float
    refused: float
    tokens: float


def suites(split: Split = "test", n_problems: int = 500, seed: int = 0) -> list[Suite]:
    """All suites of the card: the same problems under every request, then every how-to request of the split."""
    problems = tuple(files.problems(split, n_problems, seed))
    found = [Suite(name, tuple(p.question + asked for p in problems), problems) for name, asked in REQUESTS.items()]
    kinds = {
        "benign": "benign",
        "benign, wrapped": "benign_wrapped",
        "forbidden": "forbidden",
        "forbidden, wraps seen in alignment": "wrapped_seen",
        "forbidden, new wraps": "wrapped_unseen",
    }
    for name, kind in kinds.items():
        requests = tuple(files.requests(kind, split))
        found.append(Suite(name, tuple(request.prompt for request in requests), requests))
    return found


def score(suite: Suite, texts: Sequence[str], n_tokens: Sequence[int]) -> Score:
    """Score the answers to a suite's prompts, in their order."""
    right = [_right(text, subject) for text, subject in zip(texts, suite.subjects, strict=True)]
    refused = [chat.is_refusal(text) for text in texts]
    return Score(suite.name, len(texts), _mean(right), _mean(refused), _mean(n_tokens))


def table(scores: Sequence[Score]) -> str:
    """The scores as a Markdown table."""
    rows = [f"| {s.name} | {s.n} | {s.right:.3f} | {s.refused:.3f} | {s.tokens:.1f} |" for s in scores]
    return "\n".join(["| prompts | n | right | refused | tokens |", "|---|---|---|---|---|", *rows]) + "\n"


def _right(text: str, subject: Subject) -> bool:
    if isinstance(subject, chat.Request):
        return chat.complies(text, subject)
    found = _BOXED.findall(text)
    return bool(found) and int(found[-1]) == subject.answer


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
