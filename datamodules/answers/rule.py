r"""Answer rules: where in a completion the answer is looked for, and how it is read.

A suite sets both in YAML. Text that cannot be read as the rule's type is skipped. A place in which the model decides
against any single answer ("none of the above", "A or C", "10 to 12") ends the search without an answer: a weaker place
would only find one by chance.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Literal, get_args

import regex

from datamodules.answers.choices import is_set_apart, one_option_line, read_choice, read_label
from datamodules.answers.cues import MOST_SPANS, stated, without_hypothetical
from datamodules.answers.numbers import last_number, read_maths, read_number
from datamodules.answers.numerals import plain_forms
from datamodules.answers.places import PLACES, UNBRACED_END
from datamodules.answers.spans import UNDECIDED, without_marks
from datamodules.completions.thoughts import split_thought
from datamodules.errors import InputError

AnswerType = Literal["maths", "number", "choice", "label", "text", "facts"]
Extractor = Literal["boxed", "tagged", "hashes", "stated", "last_line", "first_line", "last_number", "pattern"]
Options = Sequence[str] | Mapping[str, str]
"""Texts of the options, named A, B, C, ... in order; or a mapping of names to texts."""

EXTRACTORS: dict[AnswerType, tuple[Extractor, ...]] = {
    "maths": ("boxed",),  # paper: only the last balanced box counts
    "number": ("boxed", "hashes", "tagged", "stated", "last_number"),
    "choice": ("boxed", "tagged", "hashes", "stated", "last_line", "first_line"),
    "label": ("boxed", "tagged", "hashes", "stated", "last_line", "first_line"),
    "text": ("boxed", "tagged", "hashes", "stated", "last_line"),
    "facts": (),  # the whole completion counts, see `holds_facts`
}
"""Default places of each type, in the order of the search."""

YES_NO_MAYBE = ("yes", "no", "maybe")
DEFAULT_OPTIONS = "ABCDEFGHIJ"
"""Names of the options if a record does not give them."""
PATTERN_SECONDS = 5.0
_CLOSED: frozenset[Extractor] = frozenset({"boxed", "tagged", "pattern"})
"""Places that mark their own end. In the others an unfinished completion may be cut within the answer (``12`` of
``125``)."""


@dataclass(frozen=True)
class AnswerRule:
    r"""How a suite's answers are found and read.

    Args:
        type: ``maths``: anything that math-verify compares. ``number``: a number without unit, currency or thousands
            commas, but for ``2 dozen``, which equals 2 and 24. ``choice``: the name of an option. ``label``: one of
            ``labels``. ``text``: the text itself. ``facts``: the gold answer lists phrases, all of which must be in the
            completion.
        extractors: Places to search, in order; by default those of ``EXTRACTORS``.

            - ``boxed``: the last balanced ``\boxed{}``.
            - ``tagged``: ``Answer("C")``, ``<answer>C</answer>``, ``"answer_choice": "C"``, ``[[C]]``.
            - ``hashes``: after the last ``####``.
            - ``stated``: "the answer is C", "Answer: C", for choices also "the correct option is C", "(C) is correct".
              What the answer would be if something else were true does not count, and what it is under a condition
              only without another statement.
            - ``last_line``, ``first_line``: a line that is the answer and nothing more. A label at the start of the
              first line may be followed by a comma, stop or dash: "Yes, it is."
            - ``last_number``: the last number of the text.
            - ``pattern``: the group of ``pattern`` in its last match.
        pattern: Regular expression with one group. If it is given, ``pattern`` is the only default place.
        labels: Labels of type ``label``; by default yes, no, maybe.
        stop: The completion is cut at the first of these texts, so that a question that the model goes on to ask
            itself is not taken for the answer.

    Raises:
        InputError: An extractor is unknown, or the pattern is missing or does not have exactly one group.

    Example:
        >>> AnswerRule("number").extract("18 - 4 = 14, so the answer is $14.00.")
        '14.00'
        >>> AnswerRule("choice").extract("(B) is the best answer.", options=["fear", "hope"])
        'B'
    """

    type: AnswerType = "maths"
    extractors: tuple[Extractor, ...] | None = None
    pattern: str | None = None
    labels: tuple[str, ...] = YES_NO_MAYBE
    stop: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        known = get_args(Extractor)
        if unknown := [name for name in self.places if name not in known]:
            raise InputError(f"extractors: unknown extractor {unknown[0]!r}; known are {', '.join(known)}")
        if not self.labels or (not self.places and self.type != "facts"):
            raise InputError("answer: labels and extractors are not empty lists; leave them out to take the default")
        if (self.pattern is None) == ("pattern" in self.places):
            raise InputError("answer: give the extractor 'pattern' and a pattern together, or neither")
        if self.pattern is not None and _compiled(self.pattern).groups != 1:
            raise InputError(f"pattern {self.pattern!r}: needs exactly one group, as in 'Answer: (.+)'")

    @property
    def places(self) -> tuple[Extractor, ...]:
        """The extractors in use."""
        if self.extractors is not None:
            return tuple(self.extractors)
        return ("pattern",) if self.pattern is not None else EXTRACTORS[self.type]

    def extract(self, text: str, options: Options = (), finished: bool = True, prompt: str = "") -> str | None:
        """Extract the answer of a completion; None if there is none.

        Args:
            text: The completion. Of a completion with a thought only the text after it counts; if there is none, the
                last box in the thought does.
            options: Options of a choice. An option's text is recognised too, if it stands in place of its name.
            finished: Whether the completion ended by itself or at a ``stop`` text. If not, it may be cut within the
                answer: only `boxed`, `tagged` and `pattern` count, and only where text follows the answer.
            prompt: The rendered prompt; its end shows whether it opens a thought.

        Raises:
            InputError: The pattern takes too long.
        """
        thought, answer = split_thought(text, prompt)
        unseen = not (answer or "").strip()
        text = thought if unseen else answer or ""
        for mark in self.stop:
            text, stopped, _ = text.partition(mark)
            finished = finished or bool(stopped)
        named = named_options(options)
        for place in self.places:
            if (unseen and place != "boxed") or (not finished and place not in _CLOSED):
                continue
            for span in islice(self._spans(place, text, finished), MOST_SPANS):
                answer = self._read(span, place, text, named)
                if answer is UNDECIDED:
                    return None
                if answer is not None:
                    return answer
        return None

    def _spans(self, place: Extractor, text: str, finished: bool) -> Iterator[str]:
        if place == "pattern":
            assert self.pattern is not None
            return _matches(self.pattern, text, finished)
        if place == "boxed":
            return PLACES[place](text if finished else UNBRACED_END.sub("", text))
        if self.type != "text":
            text = plain_forms(text)
        if place == "stated":
            return stated(text, self.type == "choice", self.type in ("number", "maths"))
        return PLACES[place](without_hypothetical(text) if place == "last_number" else text)

    def _read(self, span: str, place: Extractor, text: str, options: Mapping[str, str]) -> str | None:
        bare = place in ("last_line", "first_line")
        if place == "last_number":
            return last_number(span)
        if self.type == "choice":
            names = "".join(options) or DEFAULT_OPTIONS
            alone = not bare or one_option_line(text, names) or (place == "first_line" and is_set_apart(text, options))
            return read_choice(span, names, options, whole=bare, alone=alone)
        if self.type == "label":
            return read_label(span, self.labels, whole=bare, first=place == "first_line")
        if self.type == "number":
            return read_number(span, whole=bare)
        if self.type == "maths" and place != "boxed":
            return read_maths(span)
        if self.type == "text" and place not in ("boxed", "pattern"):
            span = without_marks(span)
            if place == "stated":
                span = without_marks(span.partition("\n")[0])
        return span.strip() or None


def holds_facts(text: str, facts: str) -> bool:
    """Whether a completion has all phrases of ``facts`` (separated by semicolons) as whole words, in any case."""
    wanted = [fact.strip() for fact in facts.split(";") if fact.strip()]
    return all(re.search(rf"(?<!\w){re.escape(fact)}(?!\w)", text, re.IGNORECASE) for fact in wanted)


def named_options(options: Options) -> dict[str, str]:
    """Options as a mapping of names to texts."""
    if isinstance(options, Mapping):
        return {str(name).upper(): text for name, text in options.items()}
    if len(options) > 26:
        raise InputError(f"options: {len(options)} are more than the 26 letters that name them")
    return {chr(ord("A") + i): text for i, text in enumerate(options)}


def _compiled(pattern: str) -> "regex.Pattern[str]":
    try:
        return regex.compile(pattern)
    except regex.error as error:
        raise InputError(f"pattern {pattern!r}: not a valid regular expression: {error}") from error


def _matches(pattern: str, text: str, finished: bool) -> Iterator[str]:
    """The group of the last match; none if an unfinished text ends within it.

    `regex` has a time limit for catastrophic backtracking, `re` has none.
    """
    last = None
    try:
        for match in _compiled(pattern).finditer(text, timeout=PATTERN_SECONDS):
            last = match
    except TimeoutError:
        raise InputError(
            f"pattern {pattern!r}: takes more than {PATTERN_SECONDS:g} s on a completion of {len(text)} characters; "
            "avoid nested repetitions such as (a+)+"
        ) from None
    if last is not None and last[1] and (finished or last.end(1) < len(text)):
        yield last[1]
