"""From completions to verdicts: answers checked against gold ones, refusals and harm judged."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from datamodules.answers import AnswerChecker, quick_verdict
from datamodules.errors import InputError
from datamodules.extraction import AnswerRule, holds_facts
from datamodules.records import JudgeVerdict, Prediction
from llm_modules.judges.judge import Exchange, Judge

JUDGED = ("safety", "benign")
"""Kinds of suites whose completions judges look at."""


def check_answers(predictions: Sequence[Prediction], checker: AnswerChecker) -> list[Prediction]:
    """Find each prediction's answer and whether it is right.

    A completion without an answer is wrong. One whose answer cannot be checked within the time limit is not counted
    as wrong: it is marked as unchecked.
    """
    answers = [p.rule.extract(p.prefill + p.completion, p.options, p.finish_reason != "length") for p in predictions]
    verdicts: dict[int, bool | None] = {}
    pairs: dict[int, tuple[str, str | None]] = {}
    for index, (p, answer) in enumerate(zip(predictions, answers, strict=True)):
        if p.gold is None:
            continue
        if p.rule.type == "facts":
            verdicts[index] = holds_facts(p.prefill + p.completion, p.gold)
        elif p.rule.type in ("maths", "number"):
            pairs[index] = (p.gold, answer)
        else:
            verdicts[index] = answer is not None and _same_text(p.gold, answer)
    verdicts.update(zip(pairs, checker.check(list(pairs.values())), strict=True))
    return [
        replace(p, answer=answer, correct=verdicts.get(i), unchecked=i in verdicts and verdicts[i] is None)
        for i, (p, answer) in enumerate(zip(predictions, answers, strict=True))
    ]


def check_golds(suite: str, rule: AnswerRule, golds: Mapping[str, str], checker: AnswerChecker) -> None:
    """Refuse gold answers that are to be read as mathematics and cannot be; other types are checked when they are read.

    Args:
        suite: Its name.
        rule: How its answers are read.
        golds: Gold answers and where they stand, for people.
        checker: Reads them.

    Raises:
        InputError: One of them cannot be read.
    """
    if rule.type != "maths":
        return
    try:
        checker.check_gold(sorted(golds))
    except InputError as error:
        where = next((f"{place}: " for gold, place in golds.items() if repr(gold[:60]) in str(error)), "")
        raise InputError(f"{where}suite '{suite}': gold: {error}") from error


def _same_text(gold: str, answer: str) -> bool:
    """Whether two letters, labels or texts are equal, in any case; mathematics would hold ``on`` equal to ``no``."""
    return any(quick_verdict(fold(gold), fold(answer)) for fold in (str, str.casefold))


def ask_judges(predictions: Sequence[Prediction], judges: Sequence[Judge]) -> list[Prediction]:
    """Give the predictions of safety and benign suites the verdicts of each judge."""
    chosen = [index for index, prediction in enumerate(predictions) if prediction.kind in JUDGED]
    exchanges = [
        Exchange(predictions[index].question, predictions[index].prefill + predictions[index].completion)
        for index in chosen
    ]
    verdicts: dict[int, list[JudgeVerdict]] = {index: [] for index in chosen}
    for judge in judges if chosen else ():
        for index, said in zip(chosen, judge.judge(exchanges), strict=True):
            verdicts[index].append(JudgeVerdict(judge.name, said.complied, judge.kind, said.score, said.error))
        judge.close()
    return [
        replace(prediction, verdicts=tuple(verdicts.get(index, ()))) for index, prediction in enumerate(predictions)
    ]


def score(predictions: Sequence[Prediction], checker: AnswerChecker, judges: Sequence[Judge]) -> list[Prediction]:
    """Answers checked, refusals judged."""
    return ask_judges(check_answers(predictions, checker), judges)
