"""From completions to verdicts: answers checked against gold ones, refusals and harm judged."""

from collections.abc import Sequence
from dataclasses import replace

from datamodules.answers.checker import AnswerChecker
from datamodules.answers.gold import compare
from datamodules.answers.rule import AnswerRule, holds_facts
from datamodules.suites.predictions import JudgeVerdict, Prediction
from llm_modules.judges.judge import Exchange, Judge

JUDGED = ("safety", "benign")
"""Kinds of suites whose completions judges look at."""


def check_answers(predictions: Sequence[Prediction], checker: AnswerChecker) -> list[Prediction]:
    """Find each prediction's answer and whether it is right.

    A completion without an answer is wrong. One whose answer cannot be checked within the time limit is not counted
    as wrong: it is marked as unchecked.
    """
    answers = [p.rule.extract(p.prefill + p.completion, p.options, p.finish_reason != "length") for p in predictions]
    by_rule: dict[AnswerRule, list[int]] = {}
    for index, p in enumerate(predictions):
        if p.gold is not None:
            by_rule.setdefault(p.rule, []).append(index)
    verdicts: dict[int, bool | None] = {}
    for rule, indices in by_rule.items():
        golds = [predictions[i].gold or "" for i in indices]
        if rule.type == "facts":
            texts = [predictions[i].prefill + predictions[i].completion for i in indices]
            verdicts.update(zip(indices, map(holds_facts, texts, golds), strict=True))
        else:
            pairs = [(gold, answers[i]) for i, gold in zip(indices, golds, strict=True)]
            verdicts.update(zip(indices, compare(rule, pairs, checker), strict=True))
    return [
        replace(p, answer=answer, correct=verdicts.get(i), unchecked=i in verdicts and verdicts[i] is None)
        for i, (p, answer) in enumerate(zip(predictions, answers, strict=True))
    ]


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
