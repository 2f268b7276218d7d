"""Comparing answers with gold ones by their type, and telling beforehand which gold answers cannot be compared."""

from collections.abc import Sequence

from datamodules.answers.checker import AnswerChecker
from datamodules.answers.numbers import read_number
from datamodules.answers.rule import LETTERS, AnswerRule, Options, named_options
from datamodules.errors import InputError

_READ_AS = {
    "maths": "read as a number, a letter or mathematics",
    "number": "read as a number",
    "choice": "the name of an option",
    "label": "one of the labels",
    "text": "compared: it is empty",
}


def compare(rule: AnswerRule, pairs: Sequence[tuple[str, str | None]], checker: AnswerChecker) -> list[bool | None]:
    """Whether each (gold, predicted) is a right answer; None where the checker gave up. No prediction is wrong.

    Names of options, labels and texts are compared as text, without case, spaces and full stop; the rest by `checker`.
    """
    if rule.type in ("maths", "number"):
        return checker.check_each(pairs)
    return [predicted is not None and _key(gold) == _key(predicted) for gold, predicted in pairs]


def require_gold(
    rule: AnswerRule,
    golds: Sequence[str],
    checker: AnswerChecker,
    options: Sequence[Options] | None = None,
    places: Sequence[str] | None = None,
) -> None:
    """Raise InputError unless every gold answer can be compared with answers of the rule's type.

    Args:
        rule: Its type decides.
        golds: Gold answers.
        checker: Reads mathematics.
        options: Of each gold answer, for choices.
        places: Where each gold answer is from, for the message: ``test.jsonl:3: answer``.
    """
    if rule.type == "maths" and places is None:
        checker.check_gold(golds)
        return
    fine = [_readable(rule, gold, options[i] if options else ()) for i, gold in enumerate(golds)]
    if rule.type == "maths":
        fine = checker.readable(golds)
    bad = [i for i, good in enumerate(fine) if not good]
    if not bad:
        return
    first = bad[0]
    where = places[first] if places else "gold answers"
    known = ""
    if rule.type == "choice":
        known = " " + ", ".join(named_options(options[first]) if options else LETTERS)
    elif rule.type == "label":
        known = " " + ", ".join(rule.labels)
    more = f"; so are {len(bad) - 1} more of {len(golds)}" if len(bad) > 1 else ""
    raise InputError(
        f"{where}: {golds[first][:60]!r} cannot be {_READ_AS[rule.type]}{known}{more}; name the field that holds the "
        "bare answer, cut it out with a pattern if it stands in a text, or choose another type of answer"
    )


def _readable(rule: AnswerRule, gold: str, options: Options) -> bool:
    if rule.type == "choice":
        return _key(gold) in {_key(name) for name in named_options(options) or LETTERS}
    if rule.type == "label":
        return _key(gold) in map(_key, rule.labels)
    if rule.type == "number":
        return bool(read_number(gold))
    return bool(gold.strip())


def _key(text: str) -> str:
    """A name or text for comparison."""
    return " ".join(text.casefold().strip(" \t\n.()").split())
