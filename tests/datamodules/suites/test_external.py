"""Outputs that came with their authors' marks: ours agree, but where ``docs/answer_checking.md`` says why not."""

import importlib.util
import sys
from collections import Counter
from pathlib import Path
from types import ModuleType

import pytest

from datamodules.answers.checker import AnswerChecker


@pytest.fixture(scope="module")
def external() -> ModuleType:
    path = Path(__file__).resolve().parents[3] / "benchmarks" / "external_answers.py"
    spec = importlib.util.spec_from_file_location("external_answers", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["external_answers"] = module  # its dataclasses look themselves up there
    spec.loader.exec_module(module)
    return module


def test_every_vote_on_gpt_is_reproduced(external: ModuleType, checker: AnswerChecker, shared_data: Path) -> None:
    outputs = list(external.concise_cot(shared_data, "theirs"))
    assert len(outputs) == 19_943
    assert [output.ours for output in outputs] == [output.vote for output in outputs]
    assert external.judged(outputs, external.CHOICE, checker) == [output.theirs for output in outputs]


@pytest.mark.slow
def test_our_rule_differs_where_the_votes_miss_the_answer(
    external: ModuleType, checker: AnswerChecker, shared_data: Path
) -> None:
    outputs = list(external.concise_cot(shared_data, "ours"))
    verdicts = external.judged(outputs, external.CHOICE, checker)
    assert Counter(
        (o.theirs, verdict) for o, verdict in zip(outputs, verdicts, strict=True) if o.theirs != verdict
    ) == {
        (False, True): 140,
        (True, False): 23,
    }
    differing = [output for output in outputs if output.ours != output.vote]
    kinds = Counter((output.vote is None, output.ours is None, 'Answer("' in output.text) for output in differing)
    assert kinds == {
        (True, False, True): 129,
        (True, False, False): 88,
        (False, True, True): 58,
        (False, False, True): 1,
    }


@pytest.mark.slow
def test_prose_without_the_formatted_answer_seldom_misleads(external: ModuleType, shared_data: Path) -> None:
    outputs = [output for output in external.concise_cot(shared_data, "prose") if output.vote is not None]
    stated = [output for output in outputs if output.ours is not None]
    assert len(stated) > 5000
    assert sum(output.ours != output.vote for output in stated) < len(stated) / 500


def test_every_mark_on_gpt_3_is_reproduced(external: ModuleType, checker: AnswerChecker, shared_data: Path) -> None:
    outputs = list(external.gpt3_gsm8k(shared_data))
    assert len(outputs) == 4 * 1319
    assert external.judged(outputs, external.NUMBER, checker) == [output.theirs for output in outputs]


def test_every_mark_on_llama_is_reproduced(external: ModuleType, checker: AnswerChecker, shared_data: Path) -> None:
    outputs = list(external.chain_of_draft(shared_data))
    assert len(outputs) == 500
    assert external.judged(outputs, external.NUMBER, checker) == [output.theirs for output in outputs]
    for task, count in (("sports", 252), ("date", 250)):
        result = external.contradictions(shared_data, task)
        assert (result.outputs, result.unread, result.found) == (count, 0, [])


def test_answers_that_a_log_wrongly_counts_as_errors(
    external: ModuleType, checker: AnswerChecker, shared_data: Path
) -> None:
    outputs = list(external.chain_of_draft_errors(shared_data))
    verdicts = external.judged(outputs, external.NUMBER, checker)
    right = [(o.gold, o.ours) for o, verdict in zip(outputs, verdicts, strict=True) if verdict]
    assert (len(outputs), right) == (446, [
        ("4", "4"), ("1430", "1430"), ("9500", "9500"), ("118000", "118000"), ("260", "260"), ("7425", "7425.00"),
        ("9500", "9500"),
    ])  # fmt: skip
