"""Filter self-sampled traces, by gold answers or by agreement without them (paper, filtering)."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from datamodules.answers import AnswerChecker, AnswerRule
from datamodules.answers.loops import has_loop
from datamodules.errors import InputError
from datamodules.records import Trace
from datamodules.records.same_text import squeeze
from datamodules.s3cot.filter_report import FilterReport, report_of
from datamodules.s3cot.records import CurriculumItem, Variant

By = Literal["gold", "agreement"]


@dataclass(frozen=True)
class Dropped:
    """A dropped trace and the reason, a key of `filter_report.REASONS`."""

    id: str
    reason: str


@dataclass(frozen=True)
class FilterResult:
    """The items to train on, every dropped trace, and the report."""

    items: list[CurriculumItem]
    dropped: list[Dropped]
    report: FilterReport


def filter_by_gold(traces: Sequence[Trace], checker: AnswerChecker, strict: bool = False) -> FilterResult:
    """Keep the traces whose answer is the gold one (paper). A question is kept only if its initial trace is.

    Traces may be of any questions, alphas, layer sets and samples. The initial trace is sample 0 at alpha = 0.
    A trace whose gold answer cannot be read is dropped. InputError if no trace has a gold answer, none can be read (if
    ``strict``: one cannot), the traces of a question come from several models or instructions, or no question is left.
    """
    golds = [trace.gold for trace in traces if trace.gold is not None]
    if not golds:
        raise InputError("filter by gold: no trace has a gold answer; filter by agreement, which needs none")
    distinct = sorted(set(golds))
    unreadable = {gold for gold, fine in zip(distinct, checker.readable(distinct), strict=True) if not fine}
    if unreadable and (strict or len(unreadable) == len(distinct)):
        checker.check_gold(golds)
    reasons = {trace.id: "unreadable_gold" for trace in traces if trace.gold in unreadable} | _own_flaws(traces)
    sound = [trace for trace in traces if trace.id not in reasons]
    for trace, right in zip(sound, _right(sound, checker), strict=True):
        if not right:
            reasons[trace.id] = "no_gold" if right is None else "wrong"
    return _result(traces, reasons, "gold", checker)


def filter_by_agreement(traces: Sequence[Trace], checker: AnswerChecker) -> FilterResult:
    """Keep the questions whose traces all give the same answer as the initial one (paper: self-consistency).

    A trace without an answer agrees with nothing. Two answers agree if either is right with the other as gold answer.
    Gold answers are used for the precision in the report only. InputError if the traces of a question come from several
    models or instructions, or no question is left.
    """
    reasons = _own_flaws(traces)
    answers = {trace.id: _answer(trace) for trace in traces}
    initials = {question_id: _initial(group) for question_id, group in _by_question(traces, checker).items()}
    compared = [(initial, trace) for trace in traces if (initial := initials[trace.question_id])]
    pairs = [(answers[initial.id], answers[trace.id]) for initial, trace in compared]
    same = checker.check([(a or "", a and b) for a, b in pairs])
    doubtful = [place for place, agrees in enumerate(same) if not agrees]
    turned = checker.check([(b or "", b and a) for a, b in map(pairs.__getitem__, doubtful)])
    for place, agrees in zip(doubtful, turned, strict=True):
        same[place] = agrees
    split = {trace.question_id for (_, trace), agrees in zip(compared, same, strict=True) if not agrees}
    for trace in traces:
        if trace.question_id in split:
            reasons.setdefault(trace.id, "disagreement")
    return _result(traces, reasons, "agreement", checker)


def _answer(trace: Trace) -> str | None:
    return AnswerRule().extract(trace.completion, prompt=trace.prompt)


def _own_flaws(traces: Sequence[Trace]) -> dict[str, str]:
    """Return the traces that are unusable whatever their answer is, with the reason (ours)."""
    flaws = {}
    for trace in traces:
        if trace.alpha != 0 and trace.steered_places == 0:
            flaws[trace.id] = "not_steered"
        elif trace.finish_reason == "length":
            flaws[trace.id] = "truncated"
        elif _answer(trace) is None:
            flaws[trace.id] = "no_boxed"
        elif has_loop(trace.completion):
            flaws[trace.id] = "repetition"
    return flaws


def _right(traces: Sequence[Trace], checker: AnswerChecker) -> list[bool | None]:
    """Return whether each trace gives its gold answer; None without one."""
    known = [trace for trace in traces if trace.gold is not None]
    verdicts = iter(checker.check([(trace.gold or "", _answer(trace)) for trace in known]))
    return [None if trace.gold is None else next(verdicts) for trace in traces]


def _by_question(traces: Sequence[Trace], checker: AnswerChecker) -> dict[str, list[Trace]]:
    groups: defaultdict[str, list[Trace]] = defaultdict(list)
    golds: defaultdict[str, dict[str, str]] = defaultdict(dict)
    for trace in traces:
        groups[trace.question_id].append(trace)
        first = groups[trace.question_id][0]
        if (trace.model, trace.system) != (first.model, first.system):
            raise InputError(
                f"traces of question '{trace.question_id}' come from several models or instructions: '{first.id}' from "
                f"{first.model}, {first.system}; '{trace.id}' from {trace.model}, {trace.system}; filter one at a time"
            )
        if squeeze(trace.asked) != squeeze(first.asked):
            raise InputError(
                f"'{trace.question_id}' names two questions: '{first.question[:60]}' and '{trace.question[:60]}'; give "
                "their data ids that differ"
            )
        if trace.gold is not None:
            golds[trace.question_id].setdefault(squeeze(trace.gold), trace.gold)
    spelled = [
        (question_id, first, other)
        for question_id, own in golds.items()
        for first, *others in [own.values()]
        for other in others
    ]
    same = checker.check([(one, other) for _, one, other in spelled])
    for (question_id, one, other), equal in zip(spelled, same, strict=True):
        if not equal:
            raise InputError(
                f"'{question_id}' has two gold answers, {one!r} and {other!r}; give the questions ids that differ, or "
                "mend one"
            )
    return groups


def _initial(group: Sequence[Trace]) -> Trace | None:
    return next((trace for trace in group if trace.alpha == 0 and trace.sample == 0), None)


def _result(traces: Sequence[Trace], reasons: dict[str, str], by: By, checker: AnswerChecker) -> FilterResult:
    """Make items of the traces without a reason against them; adds to ``reasons``."""
    items = []
    groups = _by_question(traces, checker)
    for group in groups.values():
        item = _item(group, reasons)
        if item:
            items.append(item)
    counts = Counter(reasons.values())
    if not items:
        listed = ", ".join(f"{reason} {count}" for reason, count in counts.most_common())
        raise InputError(
            f"filter by {by}: of {len(traces)} traces of {len(groups)} questions none is left ({listed}); look at the "
            "traces, sample more or with weaker alphas, or allow more new tokens if they are truncated"
        )
    kept = [trace for trace in traces if trace.id not in reasons]
    report = report_of(by, items, len(traces), len(groups), counts, _right(kept, checker))
    return FilterResult(items, [Dropped(t.id, reasons[t.id]) for t in traces if t.id in reasons], report)


def _item(group: Sequence[Trace], reasons: dict[str, str]) -> CurriculumItem | None:
    """Return the item of one question, or None; adds the question's unusable traces to ``reasons``."""
    initial = _initial(group)
    if initial is None or initial.id in reasons:
        why = "no_initial"
        if initial is not None:
            why = "initial_wrong" if reasons[initial.id] == "wrong" else "initial_unusable"
        for trace in group:
            reasons.setdefault(trace.id, why)
        return None
    variants: dict[str, Variant] = {}
    for trace in group:
        if trace is initial or trace.id in reasons:
            continue
        if trace.n_tokens > initial.n_tokens:
            reasons[trace.id] = "longer_than_initial"
        elif trace.completion in variants or (trace.alpha == 0 and trace.completion == initial.completion):
            reasons[trace.id] = "duplicate"
        else:
            ratio = trace.n_tokens / initial.n_tokens
            variants[trace.completion] = Variant(trace.completion, trace.n_tokens, trace.alpha, ratio)
    if not variants:
        reasons[initial.id] = "no_variant"
        return None
    return CurriculumItem(
        initial.question_id,
        initial.question,
        initial.gold,
        initial.completion,
        initial.n_tokens,
        tuple(variants.values()),
        initial.earlier,
    )
