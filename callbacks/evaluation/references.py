"""Agreement of answers and judges with other people's readings of the same completions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from rich.console import Console

from callbacks.columns import print_columns
from callbacks.evaluation.metrics import wilson_interval
from callbacks.evaluation.statistics import agreement_of
from datamodules.answers import AnswerChecker
from datamodules.suites.predictions import JudgeVerdict, Prediction
from datamodules.suites.references import Reference, differing

_WORDS = {True: "complied", False: "refused", None: "failed"}


@dataclass(frozen=True)
class ReferenceAgreement:
    """Agreement with the references of a suite or group.

    Attributes:
        suite, group: The completions; an empty group means all.
        judge: The judge; empty for answers.
        n: Completions with a reference and a verdict.
        agreement: Share of equal ones, with its 95 % Wilson interval ``low``, ``high``.
        kappa: Cohen's kappa of a judge; None if one side always says the same.
        confusion: Of a judge: reference (complied, refused) -> verdict (complied, refused, failed) -> count.
    """

    suite: str
    group: str
    judge: str
    n: int
    agreement: float | None
    low: float
    high: float
    kappa: float | None = None
    confusion: dict[str, dict[str, int]] = field(default_factory=dict)


Disagreement = dict[str, object]


def compare_answers(
    predictions: Sequence[Prediction], references: Mapping[str, Reference], checker: AnswerChecker
) -> tuple[list[ReferenceAgreement], list[Disagreement]]:
    """Hold checked answers against references: agreement by suite, and a line for each disagreement."""
    known = [p for p in predictions if p.id in references]
    others = differing(known, references, checker)
    agreements = []
    for suite in dict.fromkeys(p.suite for p in known):
        n, wrong = (sum(p.suite == suite for p in some) for some in (known, others))
        agreements.append(ReferenceAgreement(suite, "", "", n, 1 - wrong / n, *wilson_interval(n - wrong, n)))
    return agreements, [
        {
            "id": p.id,
            "gold": p.gold,
            "answer": p.answer,
            "correct": p.correct,
            "reference": references[p.id],
            "completion": p.completion,
        }
        for p in others
    ]


def compare_judges(
    predictions: Sequence[Prediction], references: Mapping[str, Reference]
) -> tuple[list[ReferenceAgreement], list[Disagreement]]:
    """Hold judges' verdicts against references: agreement by suite, group and judge, and a line per disagreement."""
    known = [p for p in predictions if references.get(p.id) is not None]
    parts = dict.fromkeys((p.suite, group) for p in known for group in ("", p.group))
    agreements = []
    for suite, group in sorted(parts):
        own = [p for p in known if p.suite == suite and group in ("", p.group)]
        for judge in dict.fromkeys(verdict.judge for p in own for verdict in p.verdicts):
            agreements.append(_agreement(suite, group, judge, own, references))
    return agreements, [
        {
            "id": p.id,
            "judge": verdict.judge,
            "reference": _WORDS[bool(references[p.id])],
            "verdict": _WORDS[verdict.complied],
            "score": verdict.score,
            "error": verdict.error,
            "question": p.question,
            "completion": p.completion,
        }
        for p in known
        for verdict in p.verdicts
        if verdict.complied is not references[p.id]
    ]


def print_judges(agreements: Sequence[ReferenceAgreement], console: Console) -> None:
    """Print the agreement of judges; the last columns count completions by what reference and judge say."""
    cells = [(said, judged) for said in ("complied", "refused") for judged in ("complied", "refused", "failed")]
    shown = [cell for cell in cells if cell[1] != "failed" or any(a.confusion[cell[0]]["failed"] for a in agreements)]
    headings = ["suite", "judge", "n", "agree %", "95 %", "kappa", *(f"{said},\n{judged}" for said, judged in shown)]
    rows = [
        [
            f"{a.suite} {a.group}".strip(),
            a.judge,
            f"{a.n:,}",
            "-" if a.agreement is None else f"{100 * a.agreement:.1f}",
            f"{100 * a.low:.1f}-{100 * a.high:.1f}",
            "-" if a.kappa is None else f"{a.kappa:.3f}",
            *(f"{a.confusion[said][judged]:,}" for said, judged in shown),
        ]
        for a in agreements
    ]
    caption = "the last columns count completions: reference, judge"
    print_columns(console, headings, rows, names=2, title="agreement with the reference", caption=caption)


def _agreement(
    suite: str, group: str, judge: str, predictions: Sequence[Prediction], references: Mapping[str, Reference]
) -> ReferenceAgreement:
    verdicts: list[tuple[Prediction, JudgeVerdict]] = [(p, v) for p in predictions for v in p.verdicts]
    pairs = [(bool(references[p.id]), v.complied) for p, v in verdicts if v.judge == judge]
    confusion = {said: dict.fromkeys(_WORDS.values(), 0) for said in ("complied", "refused")}
    for said, judged in pairs:
        confusion[_WORDS[said]][_WORDS[judged]] += 1
    told = [(float(said), float(judged)) for said, judged in pairs if judged is not None]
    numbers = agreement_of(np.empty(0), np.array(told, dtype=np.float64).reshape(-1, 2))
    same = sum(said == judged for said, judged in told)
    kappa = numbers["kappa"]
    return ReferenceAgreement(
        suite,
        group,
        judge,
        len(told),
        same / len(told) if told else None,
        *wilson_interval(same, len(told)),
        None if np.isnan(kappa) else kappa,
        confusion,
    )
