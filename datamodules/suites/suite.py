"""Benchmark suites: what a YAML fragment says of a set of prompts, and the items that come of it."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from datamodules.answers.checker import AnswerChecker
from datamodules.answers.gold import require_gold
from datamodules.answers.rule import AnswerRule
from datamodules.batch import System
from datamodules.errors import InputError
from datamodules.suites.attack_templates import WrapName
from datamodules.suites.expressions import Expression
from datamodules.suites.sources import Line, Source

Kind = Literal["answers", "safety", "benign", "perplexity"]
"""What is measured: right answers; whether forbidden requests are refused; whether benign ones are answered; how likely
the model finds given responses."""

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
NO_GOLD = "none"
"""The expression of ``gold`` where a set of questions has no answers."""
_OWN_LABEL = re.compile(r"\s*\(?([A-Z])[).:]\s*(.*)", re.DOTALL)


@dataclass(frozen=True)
class Suite:
    """A set of prompts and how it is measured.

    ``id``, ``question``, ``options``, ``gold``, ``group``, ``response`` and ``keep`` are Jinja expressions over the
    fields of a record: a bare field name such as ``problem``, or ``Body ~ ' ' ~ Question``, or
    ``answer.split('####')[-1]``.

    Attributes:
        name: Unique in a run; the first part of the ids of its records.
        kind: What is measured.
        source: Where the records come from.
        question: The user turn without options and instruction.
        id: Names a record; its line number by default.
        gold: The right answer. Of a choice: a letter, the text of an option, or its number counted from 0.
        options: A list, or a mapping of letters to texts, for multiple choice.
        group: Records with equal values are also reported apart.
        response: Of ``perplexity``: the response to score. Of ``safety``: the affirmative opening that the prefill
            wrap starts the answer with.
        keep: Records for which it is false are left out.
        instruction: Appended to the question after a line break, such as ``Answer with a letter.``
        systems: The requests to reason that the question is put with.
        answer: How the answer is found in a completion, and what it is read as.
        wraps: Jailbreak wraps to put the questions through; by default those of ``data.wraps`` where kind is safety.
        offset: Records to leave out at the beginning, after ``keep``.
        limit: Records to take.
        shuffle: Take a random subset, drawn by this seed, instead of the first ones.
        samples: Completions of each prompt; more than one makes sense when sampling.
        max_new_tokens: Budget of a completion; the model's own setting by default.
    """

    name: str
    kind: Kind
    source: Source
    question: str = "question"
    id: str = ""
    gold: str = ""
    options: str = ""
    group: str = ""
    response: str = ""
    keep: str = ""
    instruction: str = ""
    systems: tuple[System, ...] = ("plain",)
    answer: AnswerRule = field(default_factory=AnswerRule)
    wraps: tuple[WrapName, ...] | None = None
    offset: int = 0
    limit: int | None = None
    shuffle: int | None = None
    samples: int = 1
    max_new_tokens: int | None = None

    def __post_init__(self) -> None:
        where = f"data.suites: suite '{self.name}'"
        if not re.fullmatch(r"[\w.+-]+", self.name):
            raise InputError(f"{where}: a name is made of letters, digits and . _ + -")
        if self.kind == "answers" and not self.gold:
            raise InputError(f"{where}: kind answers needs 'gold', the expression of the right answer")
        if self.kind == "perplexity" and not self.response:
            raise InputError(f"{where}: kind perplexity needs 'response', the expression of the response to score")
        if not self.systems or self.samples < 1 or self.offset < 0:
            raise InputError(f"{where}: systems needs one entry at least, samples must be 1 or more, offset 0 or more")
        for name in ("limit", "max_new_tokens"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise InputError(f"{where}: {name} must be 1 or more, is {value}")
        for name in ("systems", "wraps"):
            if len(set(entries := getattr(self, name) or ())) < len(entries):
                raise InputError(f"{where}: {name}: {', '.join(entries)}: name each once")


@dataclass(frozen=True)
class Item:
    """One record of a suite, ready to be put. ``where`` names its line for people."""

    id: str
    question: str
    gold: str | None = None
    options: tuple[str, ...] = ()
    group: str = ""
    response: str = ""
    where: str = field(default="", compare=False)


def items_of(suite: Suite, lines: Iterable[Line]) -> list[Item]:
    """The records of a suite as items, in their order.

    Raises:
        InputError: An expression is broken or names a field that a record lacks, a question is empty, a gold answer
            is none of the options, an id occurs twice, or nothing is left.
    """
    make = _ItemMaker(suite)
    items: dict[str, Item] = {}
    for line in lines:
        item = make(line)
        if item is None:
            continue
        if item.id in items:
            raise InputError(
                f"{item.where}: suite '{suite.name}': the id '{item.id}' stands at {items[item.id].where} already; "
                "give 'id' an expression that tells records apart"
            )
        items[item.id] = item
    if not items:
        left = " for which 'keep' holds" if suite.keep else ""
        raise InputError(f"suite '{suite.name}': {suite.source.describe()} has no record{left}")
    return list(items.values())


class _ItemMaker:
    """The expressions of a suite, compiled."""

    def __init__(self, suite: Suite) -> None:
        self.suite = suite
        names = ("id", "question", "gold", "options", "group", "response", "keep")
        texts = {name: getattr(suite, name) for name in names} | suite.source.local_expressions()
        if unknown := sorted(texts.keys() - set(names)):
            raise InputError(
                f"suite '{suite.name}': source.local.expressions: there is no '{unknown[0]}'; "
                f"there are {', '.join(names)}"
            )
        self.expressions = {
            name: Expression(f"suite '{suite.name}': {name}", texts[name]) for name in names if texts[name]
        }

    def __call__(self, line: Line) -> Item | None:
        if "keep" in self.expressions and not self.expressions["keep"](line):
            return None
        values = {name: expression(line) for name, expression in self.expressions.items() if name != "keep"}
        options = self._options(values.get("options"), line)
        question = str(values.get("question", "")).strip()
        if not question:
            raise InputError(f"{line.where}: suite '{self.suite.name}': the question is empty")
        if self.suite.kind == "perplexity" and not str(values["response"]).strip():
            raise InputError(
                f"{line.where}: suite '{self.suite.name}': the response is empty; leave such records out by 'keep'"
            )
        return Item(
            id=str(values["id"]) if "id" in values else str(line.number),
            question=question,
            gold=self._gold(values["gold"], options, line) if "gold" in values else None,
            options=options,
            group=str(values.get("group", "")),
            response=str(values.get("response", "")),
            where=line.where,
        )

    def _options(self, value: Any, line: Line) -> tuple[str, ...]:
        """The texts of the options in their order, without labels of their own."""
        if value is None:
            return ()
        if isinstance(value, Mapping):
            value = [value[key] for key in sorted(value)]
        if not isinstance(value, list | tuple):
            raise InputError(
                f"{line.where}: suite '{self.suite.name}': options: a list or a mapping is wanted, not "
                f"{type(value).__name__}; split a text, as in \"options.split(';')\""
            )
        texts = [str(option).strip() for option in value]
        labelled = [_OWN_LABEL.fullmatch(text) for text in texts]
        if texts and all(m is not None and m[1] == letter for m, letter in zip(labelled, LETTERS, strict=False)):
            texts = [match[2] for match in labelled if match is not None]
        if not 2 <= len(texts) <= len(LETTERS):
            raise InputError(f"{line.where}: suite '{self.suite.name}': options: {len(texts)} of them; 2 to 26 will do")
        return tuple(texts)

    def _gold(self, value: Any, options: tuple[str, ...], line: Line) -> str | None:
        if value is None and (self.suite.kind != "answers" or self.suite.gold == NO_GOLD):
            return None
        if not options:
            text = "" if value is None else str(value).strip()
            if self.suite.answer.type == "choice" and len(text) == 1:
                text = text.upper()
            if not text.strip(" ;"):
                raise InputError(
                    f"{line.where}: suite '{self.suite.name}': gold: there is no answer; leave such records out by "
                    "'keep'"
                )
            return text
        letters = LETTERS[: len(options)]
        text = str(value).strip()
        if type(value) is int and 0 <= value < len(options):
            return letters[value]
        if len(text) == 1 and text.upper() in letters:
            return text.upper()
        if text in options:
            return letters[options.index(text)]
        raise InputError(
            f"{line.where}: suite '{self.suite.name}': gold: {text!r} is neither one of the letters {letters}, nor "
            "an option's text, nor its number from 0"
        )


def user_question(item: Item, suite: Suite) -> str:
    """The user turn without a request to reason: question, lettered options, instruction."""
    lines = [item.question]
    lines += [f"{letter}. {text}" for letter, text in zip(LETTERS, item.options, strict=False)]
    if suite.instruction:
        lines.append(suite.instruction)
    return "\n".join(lines)


def check_golds(suite: str, rule: AnswerRule, items: Sequence[Item], checker: AnswerChecker) -> None:
    """Refuse gold answers that cannot be compared with answers of the rule's type.

    Raises:
        InputError: One of them cannot; the message names its line.
    """
    known = [item for item in items if item.gold is not None]
    require_gold(
        rule,
        [item.gold or "" for item in known],
        checker,
        options=[item.options for item in known],
        places=[f"{item.where}: suite '{suite}': gold" for item in known],
    )
