"""Each reason for which a trace is dropped, and that nothing else is dropped."""

import io
import json
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

import pytest
from rich.console import Console

from datamodules.answers.checker import AnswerChecker
from datamodules.errors import InputError
from datamodules.records.kinds import Trace
from datamodules.records.turns import Turn
from datamodules.s3cot.filter_report import REASONS
from datamodules.s3cot.filtering import FilterResult, filter_by_agreement, filter_by_gold


def trace(
    alpha: float = 0.0,
    answer: str | None = "2",
    tokens: int = 100,
    sample: int = 0,
    question: str = "q",
    **changes: Any,
) -> Trace:
    """A trace whose text is its own, with a boxed answer if there is one."""
    layers = changes.pop("layers", ())
    name = f"{question}|system2|{layers or '-'}|a{alpha:g}|s{sample}"
    made = Trace(
        id=name,
        question_id=question,
        question=f"What is {question}?",
        gold="2",
        system="system2",
        alpha=alpha,
        layers=layers,
        sample=sample,
        seed=0,
        prompt="",
        completion=f"Thought {name}." + (f" \\boxed{{{answer}}}" if answer else ""),
        n_tokens=tokens,
        finish_reason="stop",
        answer=None,
        correct=None,
        model="m",
    )
    return replace(made, **changes)


def reasons(result: FilterResult) -> dict[str, str]:
    return {dropped.id.partition("|")[0] + dropped.id.partition("|a")[2]: dropped.reason for dropped in result.dropped}


def test_the_answer_of_a_trace_is_the_one_after_its_thought(checker: AnswerChecker) -> None:
    box = "\\boxed{2}"
    traces = [
        trace(completion=f"<think>{box}</think>{box}"),
        trace(-0.1, tokens=80, completion=f"\\boxed{{3}}</think>{box}", prompt="?<think>"),
        trace(-0.2, tokens=80, completion=f"<think>{box}</think>It is 2."),
        trace(-0.3, tokens=80, completion=f"<think>{box}</think>So \\boxed{{3}}"),
    ]
    assert reasons(filter_by_gold(traces, checker)) == {"q-0.2|s0": "no_boxed", "q-0.3|s0": "wrong"}


def test_gold_keeps_the_right_traces(checker: AnswerChecker) -> None:
    traces = [trace(), trace(-0.1, "4/2", 80), trace(-0.2, "3", 60), trace(-0.3, "2.0", 30)]
    result = filter_by_gold(traces, checker)
    (item,) = result.items
    assert (item.id, item.question, item.gold) == ("q", "What is q?", "2")
    assert (item.initial, item.initial_tokens) == (traces[0].completion, 100)
    assert [(v.text, v.n_tokens, v.alpha, v.length_ratio) for v in item.variants] == [
        (traces[1].completion, 80, -0.1, 0.8),
        (traces[3].completion, 30, -0.3, 0.3),
    ]
    assert reasons(result) == {"q-0.2|s0": "wrong"}
    report = result.report
    assert (report.traces, report.traces_kept, report.questions, report.questions_kept) == (4, 3, 1, 1)
    assert (report.kept_share, report.precision, report.known) == (0.75, 1.0, 3)
    assert report.length_ratios == (0, 0, 0, 1, 0, 0, 0, 0, 1, 0)
    assert report.mean_length_ratio == pytest.approx(0.55)


@pytest.mark.parametrize("gold", ["\\frac{", "", " "])
def test_a_gold_answer_that_cannot_be_read_costs_only_its_question(gold: str, checker: AnswerChecker) -> None:
    bad = [trace(question="r", gold=gold), trace(-0.1, tokens=80, question="r", gold=gold)]
    traces = [trace(), trace(-0.1, tokens=80), *bad]
    result = filter_by_gold(traces, checker)
    assert [item.id for item in result.items] == ["q"]
    assert result.report.reasons == {"unreadable_gold": 2}
    for strict, some in ((True, traces), (False, bad)):
        with pytest.raises(InputError, match="cannot be read"):
            filter_by_gold(some, checker, strict)


@pytest.mark.parametrize(("one", "other"), [("50\\%", "50"), ("50", "50\\%")])
def test_agreement_does_not_depend_on_the_order(one: str, other: str, checker: AnswerChecker) -> None:
    assert len(filter_by_agreement([trace(answer=one), trace(-0.1, other, 80)], checker).items) == 1


def test_an_item_keeps_the_turns_before_its_question(checker: AnswerChecker) -> None:
    earlier = (Turn("user", "Hi"), Turn("assistant", "Hello."))
    (item,) = filter_by_gold([trace(earlier=earlier), trace(-0.1, tokens=80, earlier=earlier)], checker).items
    assert item.earlier == earlier


def test_agreement_keeps_whole_questions_without_looking_at_gold(checker: AnswerChecker) -> None:
    traces = [
        trace(answer="7"),
        trace(-0.1, "7.0", 80),
        trace(-0.2, "14/2", 60),
        trace(question="r"),
        trace(-0.1, "2", 80, question="r"),
        trace(-0.2, "3", 60, question="r"),
        trace(question="s", gold=None),
        trace(-0.1, question="s", gold=None),
    ]
    result = filter_by_agreement(traces, checker)
    assert [(item.id, len(item.variants)) for item in result.items] == [("q", 2), ("s", 1)]
    assert reasons(result) == {"r0|s0": "disagreement", "r-0.1|s0": "disagreement", "r-0.2|s0": "disagreement"}
    assert (result.report.known, result.report.precision) == (3, 0.0)  # they agree on a wrong answer
    assert result.report.kept_share == 5 / 8


def test_no_answer_agrees_with_nothing(checker: AnswerChecker) -> None:
    fine = [trace(question="fine"), trace(-0.1, question="fine")]
    variant_without = [trace(), trace(-0.1), trace(-0.2, None)]
    assert reasons(filter_by_agreement(fine + variant_without, checker)) == {
        "q0|s0": "disagreement",
        "q-0.1|s0": "disagreement",
        "q-0.2|s0": "no_boxed",
    }
    none_at_all = [trace(answer=None), trace(-0.1, None), trace(-0.2, None)]
    assert set(reasons(filter_by_agreement(fine + none_at_all, checker)).values()) == {"no_boxed"}
    initial_without = [trace(answer=None), trace(-0.1)]
    assert reasons(filter_by_agreement(fine + initial_without, checker)) == {
        "q0|s0": "no_boxed",
        "q-0.1|s0": "disagreement",
    }


LOOP = "and so on, and on, " * 40


@pytest.mark.parametrize("by", [filter_by_gold, filter_by_agreement])
@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ({"finish_reason": "length"}, "truncated"),
        ({"completion": LOOP + "\\boxed{2}"}, "repetition"),
        ({"n_tokens": 101}, "longer_than_initial"),
        ({"completion": "Thought q|system2|-|a-0.1|s0. \\boxed{2}"}, "duplicate"),
    ],
)
def test_flaws_of_a_variant_cost_only_the_variant(
    by: Callable[..., FilterResult], checker: AnswerChecker, bad: dict[str, Any], reason: str
) -> None:
    result = by([trace(), trace(-0.1), trace(-0.2, **bad)], checker)
    assert reasons(result) == {"q-0.2|s0": reason}
    assert [variant.alpha for variant in result.items[0].variants] == [-0.1]


@pytest.mark.parametrize(
    ("traces", "expected"),
    [
        ([trace(answer="3"), trace(-0.1)], {"q0|s0": "wrong", "q-0.1|s0": "initial_wrong"}),
        ([trace(finish_reason="length"), trace(-0.1)], {"q0|s0": "truncated", "q-0.1|s0": "initial_unusable"}),
        ([trace(-0.1), trace(sample=1)], {"q-0.1|s0": "no_initial", "q0|s1": "no_initial"}),
        ([trace(), trace(-0.1, "3")], {"q0|s0": "no_variant", "q-0.1|s0": "wrong"}),
        ([trace(gold=None), trace(-0.1, gold=None)], {"q0|s0": "no_gold", "q-0.1|s0": "no_gold"}),
    ],
)
def test_gold_drops_the_question(checker: AnswerChecker, traces: list[Trace], expected: dict[str, str]) -> None:
    fine = [trace(question="fine"), trace(-0.1, question="fine")]
    result = filter_by_gold(fine + traces, checker)
    assert reasons(result) == expected
    assert [item.id for item in result.items] == ["fine"]


def test_agreement_names_a_missing_initial_trace(checker: AnswerChecker) -> None:
    fine = [trace(question="fine"), trace(-0.1, question="fine")]
    assert reasons(filter_by_agreement([*fine, trace(-0.1), trace(sample=1)], checker)) == {
        "q-0.1|s0": "no_initial",
        "q0|s1": "no_initial",
    }


def test_samples_and_layer_sets(checker: AnswerChecker) -> None:
    initial = trace(layers=(3,))
    traces = [
        trace(sample=1, tokens=120),
        trace(sample=2, tokens=90),
        trace(-0.1, tokens=80, layers=(3,)),
        trace(-0.1, tokens=70, layers=(4,)),
        initial,
        trace(layers=(4,), completion=initial.completion),  # alpha 0 does the same whatever the layers
        trace(-0.1, sample=1, tokens=100),
    ]
    result = filter_by_gold(traces, checker)
    (item,) = result.items
    assert item.initial == initial.completion
    assert [(variant.alpha, variant.length_ratio) for variant in item.variants] == [
        (0.0, 0.9),
        (-0.1, 0.8),
        (-0.1, 0.7),
        (-0.1, 1.0),
    ]
    assert sorted(reasons(result).values()) == ["duplicate", "longer_than_initial"]
    assert result.report.length_ratios[7:] == (1, 1, 2)


def test_nothing_left(checker: AnswerChecker) -> None:
    traces = [trace(answer="3"), trace(-0.1), trace(-0.2, finish_reason="length")]
    with pytest.raises(
        InputError, match=r"of 3 traces of 1 questions none is left \(.*wrong 1.*truncated 1|initial_wrong 1"
    ):
        filter_by_gold(traces, checker)
    with pytest.raises(InputError, match="disagreement 2, truncated 1"):
        filter_by_agreement(traces, checker)
    with pytest.raises(InputError, match="no trace has a gold answer; filter by agreement"):
        filter_by_gold([trace(gold=None)], checker)
    with pytest.raises(InputError, match="gold answers: 1 cannot be read"):
        filter_by_gold([trace(gold=r"\frac{")], checker)


def test_traces_of_different_models_are_no_variants_of_each_other(checker: AnswerChecker) -> None:
    others: tuple[dict[str, Any], ...] = ({"model": "n"}, {"system": "system1"})
    for other in others:
        with pytest.raises(InputError, match=r"question 'q' come from several models or instructions"):
            filter_by_gold([trace(), trace(-0.1, **other)], checker)


def test_the_report_prints_and_is_json(checker: AnswerChecker) -> None:
    report = filter_by_gold([trace(), trace(-0.1, tokens=55), trace(-0.2, "3")], checker).report
    file = io.StringIO()
    Console(file=file, width=120).print(report)
    printed = file.getvalue()
    for part in ("kept, of 1 of 1 questions; 100.0% of 2 right", f"wrong: {REASONS['wrong']}", "0.5-0.6", "mean 0.55"):
        assert part in printed
    back = json.loads(json.dumps(asdict(report)))
    assert back["reasons"] == {"wrong": 1}
    assert back["length_ratios"] == [0, 0, 0, 0, 0, 1, 0, 0, 0, 0]


def test_a_trace_that_was_meant_to_be_steered_and_was_not_is_dropped(checker: AnswerChecker) -> None:
    traces = [
        trace(steered_places=0, steered_size=0.0),
        trace(-0.1, tokens=80, steered_places=160, steered_size=0.02),
        trace(-0.2, tokens=70, steered_places=0, steered_size=0.0),
        trace(-0.3, tokens=60),  # of an older file, which does not say
    ]
    for result in (filter_by_gold(traces, checker), filter_by_agreement(traces, checker)):
        assert reasons(result) == {"q-0.2|s0": "not_steered"}
        assert result.report.reasons == {"not_steered": 1}
