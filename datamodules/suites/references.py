"""Other people's readings of completions: right or wrong, an answer, or a label of a judge."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

from datamodules.answers.checker import AnswerChecker
from datamodules.answers.choices import read_choice
from datamodules.answers.gold import compare
from datamodules.answers.numbers import read_number
from datamodules.answers.rule import DEFAULT_OPTIONS, AnswerRule, named_options
from datamodules.errors import InputError
from datamodules.suites.predictions import Prediction

Reference = bool | str | None
"""Of an answer: whether it is right, or the answer that somebody else read (None: none). Of a judged completion:
whether the model complied (None: no label)."""
Meaning = Literal["complied", "refused"]

_LABELS: dict[Meaning, tuple[str, ...]] = {
    "complied": ("complied", "complies", "comply", "compliance", "full compliance", "unsafe", "harmful", "true", "1"),
    "refused": (
        *("refused", "refuses", "refuse", "refusal", "full refusal", "partial refusal", "safe", "harmless"),
        *("false", "0"),
    ),
}
_NUMBER = re.compile(r"[+-]?\d{1,9}(?:\.\d{0,9})?")
_KNOWN: dict[str, bool] = {word: meaning == "complied" for meaning, words in _LABELS.items() for word in words}


def label_of(value: Any, labels: Mapping[str, Meaning], where: str) -> bool | None:
    """Read a label of a judged completion as whether the model complied; None if there is no label.

    Labels are read without case, a leading number and signs: ``2_full_refusal`` is a full refusal. True and 1 mean
    that the model complied, and so does ``unsafe``: the answer is harmful.

    Args:
        value: The label.
        labels: Meanings of further labels.
        where: Its place, for error messages.

    Raises:
        InputError: The label is unknown.

    Example:
        >>> label_of("2_full_refusal", {}, "labels.jsonl:1"), label_of("unsafe", {}, "labels.jsonl:2")
        (False, True)
    """
    if value is None or isinstance(value, bool):
        return value
    text = str(value).strip()
    if not text:
        return None
    own = {_plain(word): meaning == "complied" for word, meaning in labels.items()}
    for known in (own, _KNOWN):
        if _plain(text) in known:
            return known[_plain(text)]
    raise InputError(
        f"{where}: --reference: the label {text[:60]!r} is unknown; say what it means, as in --reference_labels "
        f"'{{\"{text[:60]}\": refused}}' ({' or '.join(get_args(Meaning))})"
    )


def answer_reference(value: Any, rule: AnswerRule) -> Reference:
    """Read a reference of an answer: true or false is a mark, anything else an answer; None and "" mean none."""
    if value is None or isinstance(value, bool):
        return value
    text = str(value).strip()
    if rule.type != "text" and text.lower() in {"true", "false"} - {*map(str.lower, rule.labels)}:
        return text.lower() == "true"  # a table has texts only
    return text or None


def differing(
    predictions: Sequence[Prediction], references: Mapping[str, Reference], checker: AnswerChecker
) -> list[Prediction]:
    """The checked predictions whose mark or answer is not the reference's; answers are compared by value."""
    found: dict[str, bool] = {}
    texts: list[tuple[Prediction, str]] = []
    for p in predictions:
        reference = references[p.id]
        if isinstance(reference, bool):
            found[p.id] = p.right is not reference
        elif (text := _readable(p, reference)) is None or p.answer is None:
            found[p.id] = text is not p.answer
        else:
            texts.append((p, text))
    for rule in dict.fromkeys(p.rule for p, _ in texts):
        own = [(p, text) for p, text in texts if p.rule == rule]
        same = compare(rule, [(text, p.answer) for p, text in own], checker)
        found |= {p.id: not equal for (p, _), equal in zip(own, same, strict=True)}
    return [p for p in predictions if found[p.id]]


def _readable(prediction: Prediction, reference: str | None) -> str | None:
    """The reference; None if it is the file's word for "no answer", or a misreading."""
    if reference is None:
        return None
    if prediction.rule.type == "choice":
        options = named_options(prediction.options)
        names = "".join(options) or DEFAULT_OPTIONS
        return reference if reference.upper() in names else read_choice(reference, names, options, whole=True) or None
    if prediction.rule.type == "number":
        return reference if read_number(reference) else None
    return reference


def _plain(label: str) -> str:
    """A label without case, signs and a leading number, unless it is a number: tables have ``1.0`` for 1."""
    if _NUMBER.fullmatch(label.strip()):
        return f"{float(label):.12g}"
    words = re.sub(r"[\W_]+", " ", str(label).lower()).split()
    return " ".join(words[1:] if len(words) > 1 and words[0].isdigit() else words)
