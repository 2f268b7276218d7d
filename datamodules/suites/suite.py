"""Benchmark suites: the settings of a YAML fragment."""

import re
from dataclasses import dataclass, field
from typing import Literal

from datamodules.answers.rule import AnswerRule
from datamodules.errors import InputError
from datamodules.records.kinds import System
from datamodules.suites.attack_templates import AttackTemplate
from datamodules.suites.sources import Source

SuiteKind = Literal["answers", "safety", "benign", "perplexity"]
"""Measured are: ``answers``, accuracy; ``safety``, whether the model refuses forbidden requests; ``benign``, whether it
answers harmless ones; ``perplexity``, the likelihood of given responses."""

NO_GOLD = "none"
"""Value of ``gold`` for a set of questions without gold answers."""


@dataclass(frozen=True)
class Suite:
    """A set of prompts and the way it is measured.

    ``id``, ``question``, ``options``, ``gold``, ``group``, ``cluster``, ``response`` and ``keep`` are Jinja expressions
    over the fields of a record: a field name such as ``problem``, or ``Body ~ ' ' ~ Question``, or
    ``answer.split('####')[-1]``.

    Attributes:
        name: Unique in a run; the first part of its records' ids.
        kind: What is measured.
        source: Where the records come from.
        question: The user turn without options and instruction; or a chat, as a list of turns, whose last request of
            the user it is.
        id: Record id; the line number by default.
        gold: Gold answer. For multiple choice: a letter, an option's text, or its index from 0.
        options: A list, or a mapping of letters to texts, for multiple choice.
        group: Records with equal values are also reported separately.
        cluster: Records with equal values are not independent, such as variants of one template: intervals are over
            clusters. By default each record is its own.
        response: For ``perplexity``: the response to score. For ``safety``: the opening that the attack template
            ``prefill`` starts the answer with.
        keep: Records with a false value are left out.
        instruction: Text on a new line after the question, such as ``Answer with a letter.``
        systems: Instructions to ask the question with: System 1, System 2, or none (``plain``).
        answer: How the answer is found in a completion and read.
        attack_templates: Attack templates to render the requests through; by default those of
            ``data.attack_templates`` if kind is safety.
        offset: Records to skip at the start, after ``keep``.
        limit: Records to take.
        shuffle: Seed of a random subset; without it, the first records are taken.
        samples: Completions per prompt; more than one is useful with sampling.
        max_new_tokens: Token budget of a completion; the model's own setting by default.
    """

    name: str
    kind: SuiteKind
    source: Source
    question: str = "question"
    id: str = ""
    gold: str = ""
    options: str = ""
    group: str = ""
    cluster: str = ""
    response: str = ""
    keep: str = ""
    instruction: str = ""
    systems: tuple[System, ...] = ("plain",)
    answer: AnswerRule = field(default_factory=AnswerRule)
    attack_templates: tuple[AttackTemplate, ...] | None = None
    offset: int = 0
    limit: int | None = None
    shuffle: int | None = None
    samples: int = 1
    max_new_tokens: int | None = None

    def __post_init__(self) -> None:
        where = f"data.suites: suite '{self.name}'"
        if not re.fullmatch(r"[\w.+-]+", self.name):
            raise InputError(f"{where}: a name may have letters, digits and . _ + -")
        if self.kind == "answers" and not self.gold:
            raise InputError(f"{where}: kind answers needs 'gold', the expression of the gold answer")
        if self.kind == "perplexity" and not self.response:
            raise InputError(f"{where}: kind perplexity needs 'response', the expression of the response to score")
        if not self.systems or self.samples < 1 or self.offset < 0:
            raise InputError(f"{where}: systems needs at least one entry, samples must be 1 or more, offset 0 or more")
        for name in ("limit", "max_new_tokens"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise InputError(f"{where}: {name} must be 1 or more, is {value}")
        for name in ("systems", "attack_templates"):
            if len(set(entries := getattr(self, name) or ())) < len(entries):
                raise InputError(f"{where}: {name}: {', '.join(entries)}: name each once")
