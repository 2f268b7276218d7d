"""Accuracy under smaller token budgets, from stored completions: what a run that is cut off earlier would score."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Literal

import numpy as np

from callbacks.evaluation.scoring import check_answers
from callbacks.evaluation.statistics import Records, rate_of
from datamodules.answers import AnswerChecker
from datamodules.suites.predictions import BUDGETS, Prediction

REPORTED = tuple(budget for budget in BUDGETS if budget >= 256)
"""Budgets in ``metrics.json``."""
Method = Literal["tokens", "characters", "both"]


@dataclass(frozen=True)
class BudgetAccuracy:
    """Accuracy under a token budget.

    Attributes:
        budget: Tokens at which completions are cut off.
        accuracy, low, high: Share of right answers with its 95 % interval; of ``n`` completions.
        tokens: Mean tokens of a completion, at most the budget.
        cut: Share of completions that are longer than the budget.
        method: How those were cut: at the token, where its place in the text is stored (exact); or at the same share
            of the characters.
    """

    budget: int
    accuracy: float
    low: float
    high: float
    n: int
    tokens: float
    cut: float
    method: Method


def cut_at(prediction: Prediction, budget: int) -> Prediction:
    """The prediction as if its generation had stopped after ``budget`` tokens; not yet checked."""
    if prediction.n_tokens is None or prediction.n_tokens <= budget:
        return prediction
    end = _exact_end(prediction, budget)
    if end is None:
        end = round(len(prediction.completion) * budget / prediction.n_tokens)
    return replace(
        prediction,
        completion=prediction.completion[:end],
        n_tokens=budget,
        finish_reason="length",
        answer=None,
        correct=None,
        unchecked=False,
    )


def budget_accuracies(
    predictions: Sequence[Prediction], checker: AnswerChecker, budgets: Sequence[int] = BUDGETS
) -> list[BudgetAccuracy]:
    """Accuracy at each budget, up to the first that cuts nothing; of scored predictions with gold and token count."""
    known = [p for p in predictions if p.gold is not None and p.n_tokens is not None]
    found: list[BudgetAccuracy] = []
    for budget in sorted(budgets) if known else ():
        longer = [p for p in known if (p.n_tokens or 0) > budget]
        cut = {p.id: p for p in check_answers([cut_at(p, budget) for p in longer], checker)}
        found.append(_accuracy(budget, [cut.get(p.id, p) for p in known], longer))
        if not longer:
            break
    return found


def budgets_json(predictions: Sequence[Prediction], checker: AnswerChecker) -> list[dict[str, object]]:
    """The accuracies at budgets of every suite, system and attack template, for ``metrics.json``."""
    cells: dict[tuple[str, str, str], list[Prediction]] = {}
    for p in predictions:
        cells.setdefault((p.suite, p.system, p.attack_template), []).append(p)
    return [
        {"suite": suite, "system": system, "attack_template": template} | asdict(row)
        for (suite, system, template), own in cells.items()
        for row in budget_accuracies(own, checker, REPORTED)
    ]


def _accuracy(budget: int, predictions: Sequence[Prediction], longer: Sequence[Prediction]) -> BudgetAccuracy:
    records = Records(rate_of)
    records.update([p.id for p in predictions], [p.unit for p in predictions], [p.right for p in predictions])
    numbers = records.compute()
    exact = sum(_exact_end(p, budget) is not None for p in longer)
    method: Method = "tokens" if exact == len(longer) else "both" if exact else "characters"
    tokens = float(np.mean([p.n_tokens or 0 for p in predictions]))
    share = len(longer) / len(predictions)
    return BudgetAccuracy(
        budget, numbers["value"], numbers["low"], numbers["high"], int(numbers["n"]), tokens, share, method
    )


def _exact_end(prediction: Prediction, budget: int) -> int | None:
    """The characters within the budget, where they are stored."""
    ends = dict(zip(BUDGETS, prediction.budget_ends, strict=False))
    return ends.get(budget)
