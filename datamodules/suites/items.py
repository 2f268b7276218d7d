"""The items that the records of a suite become."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from string import ascii_uppercase
from typing import Any

from datamodules.answers.checker import AnswerChecker
from datamodules.answers.gold import require_gold
from datamodules.answers.rule import AnswerRule
from datamodules.errors import InputError
from datamodules.records.files import Line, kind_of
from datamodules.records.requests import Request, part_chat
from datamodules.records.turns import Turn, chat_of, is_turn
from datamodules.records.validation import BadLineError
from datamodules.suites.expressions import Expression
from datamodules.suites.suite import NO_GOLD, Suite

_OWN_LABEL = re.compile(r"\s*\(?([A-Z])[).:]\s*(.*)", re.DOTALL)


@dataclass(frozen=True)
class Item(Request):
    """One record of a suite, its expressions evaluated. ``where`` is its place for error messages."""

    id: str
    question: str
    gold: str | None = None
    options: tuple[str, ...] = ()
    group: str = ""
    response: str = ""
    where: str = field(default="", compare=False)
    cluster: str = ""
    earlier: tuple[Turn, ...] = ()


def items_of(suite: Suite, lines: Iterable[Line]) -> list[Item]:
    """Make items of a suite's records, in order.

    InputError if an expression is invalid or names a field that a record lacks, a question is empty, a gold answer is
    not among the options, an id is repeated, or no record is left.
    """
    make = ItemMaker(suite)
    items: dict[str, Item] = {}
    for line in lines:
        item = make(line)
        if item is None:
            continue
        if item.id in items:
            raise InputError(
                f"{item.where}: suite '{suite.name}': the id '{item.id}' is already taken by {items[item.id].where}; "
                "give 'id' an expression that is unique per record"
            )
        items[item.id] = item
    if not items:
        left = " for which 'keep' is true" if suite.keep else ""
        raise InputError(f"suite '{suite.name}': {suite.source.describe()} has no record{left}")
    return list(items.values())


class ItemMaker:
    """Makes items of a suite's records, one by one; None for a record that is not kept."""

    def __init__(self, suite: Suite) -> None:
        self.suite = suite
        names = ("id", "question", "gold", "options", "group", "cluster", "response", "keep")
        texts = self.texts = {name: getattr(suite, name) for name in names} | suite.source.local_expressions()
        if unknown := sorted(texts.keys() - set(names)):
            raise InputError(
                f"suite '{suite.name}': source.local.expressions: unknown name '{unknown[0]}'; "
                f"known are {', '.join(names)}"
            )
        self.expressions = {
            name: Expression(f"suite '{suite.name}': {name}", texts[name]) for name in names if texts[name]
        }

    def __call__(self, line: Line) -> Item | None:
        """The item of a record; raises `InputError` if it is wrong."""
        if "keep" in self.expressions and not self.expressions["keep"](line):
            return None
        values = {name: expression(line) for name, expression in self.expressions.items() if name != "keep"}
        earlier = self._part_chat(values, line)
        options = self._options(values.get("options"), line)
        texts = {
            name: self._text(name, values.get(name, ""), line)
            for name in ("id", "question", "group", "cluster", "response")
        }
        question = texts["question"].strip()
        if not question:
            raise self._error(line, "the question is empty")
        if self.suite.kind == "perplexity" and not texts["response"].strip():
            raise self._error(line, "the response is empty; leave such records out with 'keep'")
        return Item(
            id=texts["id"] if "id" in values else str(line.number),
            question=question,
            gold=self._gold(values["gold"], options, line) if "gold" in values else None,
            options=options,
            group=texts["group"],
            cluster=texts["cluster"],
            response=texts["response"],
            where=line.where,
            earlier=earlier,
        )

    def _part_chat(self, values: dict[str, Any], line: Line) -> tuple[Turn, ...]:
        """The turns before the last request, if the question is a chat; ``values`` gets the request in its place."""
        chat = chat_of(values.get("question"))
        if not chat or not all(map(is_turn, chat)):
            return ()
        parted: dict[str, Any] = {"question": chat, **{name: line.values.get(name) for name in ("system", "tools")}}
        try:
            part_chat(parted, "question")
        except BadLineError as error:
            raise self._error(line, f"question: {error}") from error
        values["question"] = parted["question"]
        earlier: tuple[Turn, ...] = parted["earlier"]
        return earlier

    def _error(self, line: Line, message: str) -> InputError:
        return InputError(f"{line.where}: suite '{self.suite.name}': {message}")

    def _text(self, name: str, value: Any, line: Line) -> str:
        """A text, number or truth value as text; null is an empty one."""
        if value is None:
            return ""
        if not isinstance(value, Mapping | list | tuple | set) and not callable(value):
            return str(value)
        expression = self.texts[name]
        entry = ""
        if isinstance(value, list | tuple) and value:
            entry = f"{expression}[0]" + (".content" if isinstance(value[0], Mapping) and "content" in value[0] else "")
        elif isinstance(value, Mapping) and value:
            entry = f"{expression}.{next(iter(value))}"
        remedy = f"; name an entry of it, as in '{entry}'" if entry else ""
        raise self._error(line, f"{name}: '{expression}' is not a text but {kind_of(value)}{remedy}")

    def _options(self, value: Any, line: Line) -> tuple[str, ...]:
        """The texts of the options in order, without labels of their own such as ``A)``."""
        if value is None:
            return ()
        if isinstance(value, Mapping):
            value = [value[key] for key in sorted(value)]
        if not isinstance(value, list | tuple):
            raise self._error(
                line,
                f"options: must be a list or a mapping, not {kind_of(value)}; split a text, as in "
                "\"options.split(';')\"",
            )
        texts = [self._text("options", option, line).strip() for option in value]
        labels = [_OWN_LABEL.fullmatch(text) for text in texts]
        if texts and all(m is not None and m[1] == letter for m, letter in zip(labels, ascii_uppercase, strict=False)):
            texts = [match[2] for match in labels if match is not None]
        if not 2 <= len(texts) <= len(ascii_uppercase):
            raise self._error(line, f"options: there must be 2 to 26 options, not {len(texts)}")
        return tuple(texts)

    def _gold(self, value: Any, options: tuple[str, ...], line: Line) -> str | None:
        if value is None and (self.suite.kind != "answers" or self.suite.gold == NO_GOLD):
            return None
        text = self._text("gold", value, line).strip()
        if not options:
            if self.suite.answer.type == "choice" and len(text) == 1:
                text = text.upper()
            if not text.strip(" ;"):
                raise self._error(line, "gold: the gold answer is empty; leave such records out with 'keep'")
            return text
        letters = ascii_uppercase[: len(options)]
        by_text = letters[options.index(text)] if text and text in options else None
        by_name, kind = None, ""
        if type(value) is int and 0 <= value < len(options):
            by_name, kind = letters[value], "index"
        elif len(text) == 1 and text.upper() in letters:
            by_name, kind = text.upper(), "letter"
        if by_name and by_text and by_name != by_text:
            gold, other = (f"({self.texts[name]})" for name in ("gold", "options"))
            ways = (
                f"\"'{letters}'[{gold[1:-1]}]\" if it is the index, \"{gold} ~ ''\" if it is the text"
                if kind == "index"
                else f'"\'{letters}\'.index{gold}" if it is the letter, "{other}.index{gold}" if it is the text'
            )
            raise self._error(
                line,
                f"gold: {value!r} is the {kind} of option {by_name} and the text of option {by_text}; write {ways}",
            )
        if by_name or by_text:
            return by_name or by_text
        raise self._error(
            line, f"gold: {text!r} is neither one of the letters {letters}, nor an option's text, nor its index from 0"
        )


def user_question(item: Item, suite: Suite) -> str:
    """The user turn without a System 1 or 2 instruction: question, lettered options, instruction."""
    lines = [item.question]
    lines += [f"{letter}. {text}" for letter, text in zip(ascii_uppercase, item.options, strict=False)]
    if suite.instruction:
        lines.append(suite.instruction)
    return "\n".join(lines)


def check_golds(suite: str, rule: AnswerRule, items: Sequence[Item], checker: AnswerChecker) -> None:
    """Check that every gold answer can be compared with answers of the rule's type.

    InputError if one cannot; the message names its line.
    """
    known = [item for item in items if item.gold is not None]
    require_gold(
        rule,
        [item.gold or "" for item in known],
        checker,
        options=[item.options for item in known],
        places=[f"{item.where}: suite '{suite}': gold" for item in known],
    )
