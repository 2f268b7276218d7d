"""Boxes are found, answers compared, and nothing that a model writes can hang the run."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from datamodules.answers import AnswerChecker, extract_boxed, quick_verdict
from datamodules.errors import InputError


@pytest.fixture(scope="module")
def checker() -> Iterator[AnswerChecker]:
    with AnswerChecker(workers=2, time_limit=20) as checker:
        yield checker


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"so \boxed{5}", "5"),
        (r"\boxed{4}, no: \boxed{5}.", "5"),
        (r"\boxed{\frac{1}{2}} and \boxed{5", r"\frac{1}{2}"),
        (r"\fbox{7}", "7"),
        (r"\boxed {7}", "7"),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        (r"\boxed{a\}b}", r"a\}b"),
        (r"x \\ \boxed{3} \\", "3"),
        (r"\boxed{\boxed{5}}", "5"),
        (r"{ ( \boxed{ 6 } ", "6"),
        ("} \\boxed{\n6\n} }", "6"),
        (r"\boxed{5} within \boxed{}", "5"),
        (r"within \boxed{}", None),
        (r"\boxed{5", None),
        (r"\boxed 5", None),
        ("5", None),
        ("", None),
    ],
)
def test_the_last_balanced_box(text: str, answer: str | None) -> None:
    assert extract_boxed(text) == answer


@pytest.mark.parametrize("piece", ["\\boxed{", "\\boxed{}", "\\", "{", "}", "\\boxed", "\\boxed ", "\\fbox{{}", " "])
def test_hostile_text_takes_linear_time(piece: str) -> None:
    text = "\\boxed{1}" + piece * (100_000 // len(piece))
    start = time.perf_counter()
    extract_boxed(text)
    quick_verdict("5", text)
    quick_verdict("5", "$" * 100_000)
    quick_verdict("5", "\\(" * 30_000 + "\\)" * 30_000)
    assert time.perf_counter() - start < 2


@pytest.mark.parametrize(
    ("gold", "predicted", "verdict"),
    [
        ("18", "18.0", True),
        ("18", "$18.00", True),
        ("1,234", "1234", True),
        ("1{,}234", r"1,\!234", True),
        ("50", r"50\%", True),
        ("-5", "−5", True),
        (".5", "0.50", True),
        ("025", "25", True),
        ("18", "19", False),
        ("0.333", "0.3333", False),
        ("9" * 50, "9" * 49 + "8", False),
        ("0.5", r"50\%", None),
        ("18", "18 dollars", None),
        ("A", "(A)", True),
        ("A", "A.", True),
        ("(B)", r"\text{B}", True),
        ("C", "C: 12 cm", True),
        ("C", "**C**", True),
        ("A", "B", False),
        ("A", "a", False),
        ("A", "12 cm", False),
        (r"\frac{1}{2}", r"$\dfrac{1}{2}$", True),
        (r"\left( 3, 4 \right)", "(3,4)", True),
        ("12 13", "1213", None),
        ("x+1", "1+x", None),
    ],
)
def test_what_plain_text_decides(gold: str, predicted: str, verdict: bool | None) -> None:
    assert quick_verdict(gold, predicted) is verdict


def test_mathematics_decides_the_rest(checker: AnswerChecker) -> None:
    right = [
        (r"\frac12", "0.5"),
        ("0.5", r"50\%"),
        ("x^2+2x+1", "(x+1)^2"),
        ("18", r"18 \text{ dollars}"),
        ("1/3", "2/6"),
    ]
    wrong = [(r"\frac12", "0.51"), ("x+1", "x+2"), ("b + c", "b + m"), ("2", None), ("2", "a } {")]
    assert checker.check(right + wrong) == [True] * len(right) + [False] * len(wrong)


def test_the_order_of_a_pair_matters(checker: AnswerChecker) -> None:
    assert checker.check([("1 < x < 2", "(1, 2)"), ("(1, 2)", "1 < x < 2")]) == [True, False]


def test_a_hung_worker_is_ended_replaced_and_counted() -> None:
    endless = ["9^{9^{9^{9^9}}}", "x+" * 30_000 + "x", "\\frac{1}{" * 3_000 + "1" + "}" * 3_000]
    with AnswerChecker(workers=2, time_limit=1) as checker:
        start = time.perf_counter()
        verdicts = checker.check([("3", text) for text in [*endless, "9**9**9**9", "{" * 50_000]] + [("1/3", "2/6")])
        assert verdicts == [False] * 5 + [True]
        assert time.perf_counter() - start < 20
        assert 3 <= checker.timed_out <= 5


def test_a_worker_that_dies_is_replaced() -> None:
    with AnswerChecker(workers=1) as checker:
        assert checker.check([("1/3", "2/6")]) == [True]
        process = checker._idle[0]._process
        assert process is not None
        process.kill()
        process.wait()
        assert checker.check([("1/3", "3/9")]) == [False]
        assert checker.timed_out == 1
        assert checker.check([("1/3", "3/9")]) == [True]


def test_no_process_before_one_is_needed_and_none_after_the_end() -> None:
    with AnswerChecker() as checker:
        assert checker.check([("5", "5.0"), ("A", "(B)"), ("x", None)]) == [True, False, False]
        assert all(worker._process is None for worker in checker._idle)
        checker.check([("1/3", "2/6")])
        (process,) = [worker._process for worker in checker._idle if worker._process]
    assert process.poll() is not None


def test_it_works_in_threads(checker: AnswerChecker) -> None:
    with ThreadPoolExecutor(4) as threads:
        results = list(threads.map(lambda n: checker.check([("1/3", f"{n}/{3 * n}"), ("1/3", f"{n}/5")]), range(2, 10)))
    assert results == [[True, False]] * 8


def test_it_works_in_a_script_from_standard_input_anywhere(tmp_path: Path) -> None:
    script = (
        "from datamodules.answers import AnswerChecker\n"
        "with AnswerChecker(1) as checker: print(checker.check([('1/3', '2/6')]))"
    )
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    done = subprocess.run(
        [sys.executable, "-"], input=script, capture_output=True, text=True, cwd=tmp_path, env=env, check=True
    )
    assert done.stdout == "[True]\n"


def test_gold_that_nobody_can_read(checker: AnswerChecker) -> None:
    checker.check_gold(["5", "A", r"\frac{1}{2}", "a + b + c", r"\dfrac{1}{29,\!322,\!216}", r"30^\circ.", "Evelyn"])
    with pytest.raises(InputError, match=r"2 cannot be read .* among them ' ', '\\\\frac\{'"):
        checker.check_gold(["5", " ", "\\frac{"])


def test_published_answers_are_read_and_equal_themselves(checker: AnswerChecker, shared_data: Path) -> None:
    lines = (shared_data / "math500" / "test.jsonl").read_text(encoding="utf-8").splitlines()[:100]
    golds = [json.loads(line)["answer"] for line in lines]
    checker.check_gold(golds)
    solutions = [extract_boxed(json.loads(line)["solution"]) for line in lines]
    assert all(checker.check(list(zip(golds, solutions, strict=True))))
    shifted = golds[1:] + golds[:1]
    equal = [pair for pair in zip(golds, shifted, strict=True) if checker.check([pair]) == [True]]
    assert equal == [("5", "x=5")]
