"""Maths answers by two rules beside the suite's own: the last box only, and any place that an answer may stand in."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache

from datamodules.answers import AnswerChecker, AnswerRule
from datamodules.answers.gold import compare
from datamodules.answers.rule import Extractor
from datamodules.suites.predictions import Prediction

_ANY: tuple[Extractor, ...] = ("boxed", "hashes", "tagged", "stated", "last_line", "last_number")
"""Places of an answer, the surest first."""


def check_places(predictions: Sequence[Prediction], checker: AnswerChecker) -> list[Prediction]:
    """Add ``right_box`` and ``right_any`` to the checked predictions of maths and number answers.

    The same completions can differ much by the two: a model that ends in "Answer: 5" has no box.
    """
    known = [i for i, p in enumerate(predictions) if p.gold is not None and p.rule.type in ("maths", "number")]
    chosen = [predictions[i] for i in known]
    box, anywhere = _right(chosen, by_box, checker), _right(chosen, by_any, checker)
    found = [replace(p, right_box=None, right_any=None) for p in predictions]
    for i, b, a in zip(known, box, anywhere, strict=True):
        found[i] = replace(found[i], right_box=b, right_any=a)
    return found


@lru_cache
def by_box(rule: AnswerRule) -> AnswerRule:
    """The rule, looking into the last box only."""
    return replace(rule, extractors=("boxed",), pattern=None)


@lru_cache
def by_any(rule: AnswerRule) -> AnswerRule:
    """The rule, looking first where it does, then in every other place."""
    return replace(rule, extractors=tuple(dict.fromkeys((*rule.places, *_ANY))))


def _right(
    predictions: Sequence[Prediction], variant: Callable[[AnswerRule], AnswerRule], checker: AnswerChecker
) -> list[bool | None]:
    """Whether each answer is right by a variant of its rule; unchecked answers are not."""
    found = [p.right for p in predictions]
    pairs: dict[AnswerRule, list[tuple[int, str | None]]] = {}
    for index, p in enumerate(predictions):
        rule = variant(p.rule)
        if rule.places == p.rule.places:
            continue
        answer = rule.extract(p.prefill + p.completion, p.options, p.finish_reason != "length", p.prompt)
        if answer != p.answer:
            pairs.setdefault(p.rule, []).append((index, answer))
    for rule, own in pairs.items():
        verdicts = compare(rule, [(predictions[i].gold or "", answer) for i, answer in own], checker)
        for (index, _), verdict in zip(own, verdicts, strict=True):
            found[index] = verdict is True
    return found
