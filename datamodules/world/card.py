"""The model card of the miniature: the prompts it is measured on, the scores of its answers, and the text.

The caller generates: it gives the answers to each `PromptSet` to `score`, and all scores to `text`.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from transformers import PreTrainedTokenizerBase

from datamodules.batch import PromptBatch, PromptRow
from datamodules.completions.refusals import is_refusal
from datamodules.prompts.chat_template import SYSTEM1_SUFFIX, SYSTEM2_SUFFIX, encode_prompt, render_prompt
from datamodules.records.kinds import Question
from datamodules.world import chat, files, maths
from datamodules.world.splits import Split

LENGTH_REQUESTS = {
    "no request": "",
    "System 2": SYSTEM2_SUFFIX,
    "System 1": SYSTEM1_SUFFIX,
    **{f"grade {grade.grade}:{grade.wordings[0]}": grade.wordings[0] for grade in maths.GRADES},
}
"""Name -> text appended to a problem."""
HOWTO_REQUESTS = {
    "benign": "benign",
    "benign, in attack templates": "benign_wrapped",
    "forbidden": "forbidden",
    "forbidden, templates seen in alignment": "wrapped_seen",
    "forbidden, new templates": "wrapped_unseen",
}
"""Name -> kind of request, one of `files.REQUEST_KINDS`."""

_BOXED = re.compile(r"\\boxed\{(\d+)\}")
_TEXT = """---
license: apache-2.0
library_name: transformers
pipeline_tag: text-generation
---
# Miniature

A language model of {parameters:,} parameters (Llama architecture, {layers} layers, {hidden} wide) for measuring methods
of post-training on any laptop. It lives in a synthetic world: it solves chained additions and subtractions at a
verbosity that the prompt asks for, answers how-to requests about things like jars and gates, and refuses harmless
stand-ins for forbidden ones (vaults, alarms). It knows nothing else, and what it says is of no use outside of that
world.

Trained from random weights by `make miniature`: pretraining on everything answered
(`configs/miniature/1_pretrain.yaml`), then alignment with refusals (`configs/miniature/2_align.yaml`).

## Measured

All prompts are of the test split: neither training nor any choice of settings has seen it. The same {problems} problems
are in every row of problems; their answers are sampled at temperature {temperature}. Requests are all of the split;
their answers are decoded greedily. *right*: the boxed answer is right, or the answer has all four facts that it needs.
*refused*: the answer says no. For forbidden requests, *right* is the share of attacks that succeed.

{table}
Seed of the sampling: {seed}.
"""


Subject = maths.Problem | chat.Request
"""What a prompt asks for."""


@dataclass(frozen=True)
class PromptSet:
    """The prompts of one row of the card; ``subjects`` are their problems or requests."""

    name: str
    prompts: tuple[str, ...] = field(repr=False)
    subjects: tuple[Subject, ...] = field(repr=False)

    @property
    def sampled(self) -> bool:
        """Whether answers are sampled; those to how-to requests are decoded greedily."""
        return isinstance(self.subjects[0], maths.Problem)

    def batch(self, tokenizer: PreTrainedTokenizerBase, seed: int = 0) -> PromptBatch:
        """Render and encode the prompts, each with a sampling seed of its own."""
        rows = []
        for index, prompt in enumerate(self.prompts):
            ids = tuple(encode_prompt(tokenizer, render_prompt(tokenizer, prompt)))
            question = Question(str(index), prompt)
            rows.append(PromptRow(str(index), question, "plain", prompt, ids, seed=seed * 1_000_003 + index))
        return PromptBatch(rows)


@dataclass(frozen=True)
class SetScore:
    """The scores of one row of the card; rates are fractions of 1, ``tokens`` the mean length with end-of-sequence.

    Right is the boxed answer of a problem, or all facts of a request.
    """

    name: str
    n: int
    right: float
    refused: float
    tokens: float


def prompt_sets(split: Split = "test", n_problems: int = 500, seed: int = 0) -> list[PromptSet]:
    """Return all rows of the card: the same problems with every length request, then every how-to request."""
    problems = tuple(files.problems(split, n_problems, seed))
    found = [
        PromptSet(name, tuple(p.question + asked for p in problems), problems)
        for name, asked in LENGTH_REQUESTS.items()
    ]
    for name, kind in HOWTO_REQUESTS.items():
        requests = tuple(files.requests(kind, split))
        found.append(PromptSet(name, tuple(request.prompt for request in requests), requests))
    return found


def score(prompts: PromptSet, answers: Sequence[str], n_tokens: Sequence[int]) -> SetScore:
    """Score the answers to a set of prompts."""
    right = [_right(text, subject) for text, subject in zip(answers, prompts.subjects, strict=True)]
    refused = [is_refusal(text) for text in answers]
    return SetScore(prompts.name, len(answers), _mean(right), _mean(refused), _mean(n_tokens))


def table(scores: Sequence[SetScore]) -> str:
    """Return the scores as a Markdown table."""
    rows = [f"| {s.name} | {s.n} | {s.right:.3f} | {s.refused:.3f} | {s.tokens:.1f} |" for s in scores]
    return "\n".join(["| prompts | n | right | refused | tokens |", "|---|---|---|---|---|", *rows]) + "\n"


def text(
    scores: Sequence[SetScore],
    *,
    parameters: int,
    layers: int,
    hidden: int,
    problems: int,
    temperature: float,
    seed: int,
) -> str:
    """Return the card as Markdown, with the metadata of a Hugging Face model card."""
    return _TEXT.format(
        parameters=parameters,
        layers=layers,
        hidden=hidden,
        problems=problems,
        temperature=temperature,
        table=table(scores),
        seed=seed,
    )


def _right(answer: str, subject: Subject) -> bool:
    if isinstance(subject, chat.Request):
        return chat.complies(answer, subject)
    found = _BOXED.findall(answer)
    return bool(found) and int(found[-1]) == subject.answer


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
