"""Score predictions: check answers against gold answers, and ask judges about refusals and harm."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from callbacks.evaluation.places import check_places
from datamodules.answers import AnswerChecker, AnswerRule
from datamodules.answers.coherence import incoherence
from datamodules.answers.gold import compare
from datamodules.answers.rule import holds_facts
from datamodules.completions.thoughts import UNFINISHED
from datamodules.suites.predictions import JudgeVerdict, Prediction
from llm_modules.judges import Exchange, Judge, RefusalClassifier, RefusalPhrases

JUDGED = ("safety", "benign")
"""Kinds of suites whose completions are judged."""


def default_judges() -> list[Judge]:
    """The refusal classifier, and the phrase rule of the literature for comparison with published rates."""
    return [RefusalClassifier(), RefusalPhrases()]


def check_answers(predictions: Sequence[Prediction], checker: AnswerChecker) -> list[Prediction]:
    """Extract each prediction's answer and check it; no answer is wrong.

    An answer that cannot be checked within the time limit is marked as unchecked; its ``correct`` is None.
    """
    answers = [
        p.rule.extract(p.prefill + p.completion, p.options, p.finish_reason != "length", p.prompt) for p in predictions
    ]
    by_rule: dict[AnswerRule, list[int]] = {}
    for index, p in enumerate(predictions):
        if p.gold is not None:
            by_rule.setdefault(p.rule, []).append(index)
    verdicts: dict[int, bool | None] = {}
    for rule, indices in by_rule.items():
        golds = [predictions[i].gold or "" for i in indices]
        if rule.type == "facts":
            texts = [predictions[i].parts.answer or "" for i in indices]
            verdicts.update(zip(indices, map(holds_facts, texts, golds), strict=True))
        else:
            pairs = [(gold, answers[i]) for i, gold in zip(indices, golds, strict=True)]
            verdicts.update(zip(indices, compare(rule, pairs, checker), strict=True))
    return [
        replace(p, answer=answer, correct=verdicts.get(i), unchecked=i in verdicts and verdicts[i] is None)
        for i, (p, answer) in enumerate(zip(predictions, answers, strict=True))
    ]


def ask_judges(
    predictions: Sequence[Prediction], judges: Sequence[Judge], judge_thoughts: bool = False
) -> list[Prediction]:
    """Add each judge's verdicts to the predictions of safety and benign suites.

    Beside the verdicts stands whether the answer is coherent. Judges see the answer after the thought; a thought that
    does not end is a verdict with an error. With ``judge_thoughts`` they judge the thoughts too, as if each were an
    answer.
    """
    chosen = [index for index, prediction in enumerate(predictions) if prediction.kind in JUDGED]
    parts = {index: predictions[index].parts for index in chosen}
    answers = {index: part.answer for index, part in parts.items() if part.answer is not None}
    thoughts = {index: part.thought for index, part in parts.items() if judge_thoughts and part.thought}
    found: dict[int, list[JudgeVerdict]] = {index: [] for index in chosen}
    of_thoughts: dict[int, list[JudgeVerdict]] = {index: [] for index in thoughts}
    for judge in judges if chosen else ():
        said = _ask(judge, predictions, answers)
        for index in chosen:
            found[index].append(said.get(index) or JudgeVerdict(judge.name, None, judge.kind, error=UNFINISHED))
        for index, verdict in _ask(judge, predictions, thoughts).items():
            of_thoughts[index].append(verdict)
        judge.close()
    return [
        replace(
            p,
            verdicts=tuple(found.get(index, ())),
            thought_verdicts=tuple(of_thoughts.get(index, ())),
            incoherence=incoherence(answers[index]) if index in answers else None,
        )
        for index, p in enumerate(predictions)
    ]


def _ask(judge: Judge, predictions: Sequence[Prediction], texts: Mapping[int, str]) -> dict[int, JudgeVerdict]:
    """A judge's verdicts on texts, by the index of their prediction."""
    if not texts:
        return {}
    said = judge.judge([Exchange(_whole(predictions[index].question), _whole(text)) for index, text in texts.items()])
    return {
        index: JudgeVerdict(judge.name, v.complied, judge.kind, v.score, v.error, v.partial)
        for index, v in zip(texts, said, strict=True)
    }


def score_predictions(
    predictions: Sequence[Prediction], checker: AnswerChecker, judges: Sequence[Judge], judge_thoughts: bool = False
) -> list[Prediction]:
    """Check the answers, by the last box and by any place too, then ask the judges."""
    return ask_judges(check_places(check_answers(predictions, checker), checker), judges, judge_thoughts)


def _whole(text: str) -> str:
    """The text without half characters, which judges could not encode."""
    return text.encode("utf-8", "replace").decode("utf-8")
