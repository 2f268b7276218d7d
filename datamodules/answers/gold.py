"""Compare answers with gold answers by their type, and check beforehand that each gold answer can be compared."""

import re
from collections.abc import Sequence

from datamodules.answers.checker import AnswerChecker
from datamodules.answers.normal import without_commands
from datamodules.answers.numbers import read_number
from datamodules.answers.rule import DEFAULT_OPTIONS, AnswerRule, Options, named_options
from datamodules.errors import InputError

_READ_AS = {
    "maths": "read as a number, a letter or mathematics",
    "number": "read as a number",
    "choice": "the name of an option",
    "label": "one of the labels",
    "text": "compared: it is empty",
}

_AROUND = " \t\n.()"
_QUOTED = re.compile(r"\A[\"'“‘«](.*)[\"'”’»]\Z", re.DOTALL)


def compare(rule: AnswerRule, pairs: Sequence[tuple[str, str | None]], checker: AnswerChecker) -> list[bool | None]:
    """Check (gold, predicted) pairs; None if the checker gave up. A missing prediction is wrong.

    Option names, labels and texts are compared without case, spaces, full stop and quotation marks; numbers and
    mathematics by ``checker``. Of type ``number``, gold answers are read as answers are, without unit; so is the
    percent sign of an answer to a gold number without one.
    """
    if rule.type == "maths":
        return checker.check_each(pairs)
    if rule.type == "number":
        return _compare_numbers(pairs, checker)
    return [predicted is not None and _key(gold) == _key(predicted) for gold, predicted in pairs]


def _compare_numbers(pairs: Sequence[tuple[str, str | None]], checker: AnswerChecker) -> list[bool | None]:
    read = [(read_number(gold) or gold, None if said is None else read_number(said) or said) for gold, said in pairs]
    verdicts = checker.check_each(read)
    percent = [i for i, (gold, said) in enumerate(read) if said and said.endswith("%") and "%" not in gold]
    bare = checker.check_each([(read[i][0], (read[i][1] or "").removesuffix("%")) for i in percent])
    for i, verdict in zip(percent, bare, strict=True):
        verdicts[i] = verdicts[i] or verdict
    return verdicts


def require_gold(
    rule: AnswerRule,
    golds: Sequence[str],
    checker: AnswerChecker,
    options: Sequence[Options] | None = None,
    places: Sequence[str] | None = None,
) -> None:
    """Check that every gold answer can be compared with answers of the rule's type.

    ``options`` has the options of each choice, ``places`` the place of each gold answer: ``test.jsonl:3: gold``.
    InputError if a gold answer cannot be compared; the message names its place.
    """
    if rule.type == "maths" and places is None:
        checker.check_gold(golds)
        return
    bad = [i for i, good in enumerate(readable(rule, golds, checker, options)) if not good]
    if not bad:
        return
    first = bad[0]
    where = places[first] if places else "gold answers"
    known = ""
    if rule.type == "choice":
        known = " " + ", ".join(named_options(options[first]) if options else DEFAULT_OPTIONS)
    elif rule.type == "label":
        known = " " + ", ".join(rule.labels)
    more = f"; nor can {len(bad) - 1} more of {len(golds)}" if len(bad) > 1 else ""
    raise InputError(
        f"{where}: {golds[first][:60]!r} cannot be {_READ_AS[rule.type]}{known}{more}; name the field that holds the "
        "bare answer, extract it from a longer text with a pattern, or choose another answer type"
    )


def readable(
    rule: AnswerRule, golds: Sequence[str], checker: AnswerChecker, options: Sequence[Options] | None = None
) -> list[bool]:
    """Whether each gold answer can be compared with answers of the rule's type; ``options`` as in `require_gold`."""
    if rule.type == "maths":
        return checker.readable(golds)
    return [_readable(rule, gold, options[i] if options else ()) for i, gold in enumerate(golds)]


def _readable(rule: AnswerRule, gold: str, options: Options) -> bool:
    if rule.type == "choice":
        return _key(gold) in {_key(name) for name in named_options(options) or DEFAULT_OPTIONS}
    if rule.type == "label":
        return _key(gold) in map(_key, rule.labels)
    if rule.type == "number":
        return bool(read_number(gold))
    return bool(gold.strip())


def _key(text: str) -> str:
    """The text for comparison: without case, text commands, punctuation and quotation marks around it, extra spaces."""
    bare = _QUOTED.sub(r"\1", without_commands(text).strip(_AROUND))
    return " ".join(bare.casefold().strip(_AROUND).split())
