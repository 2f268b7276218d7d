"""Boxes are found, answers compared, and nothing that a model writes can hang the run."""

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from datamodules.answers import AnswerChecker, extract_boxed
from datamodules.answers.hard import too_hard
from datamodules.answers.plain import quick_verdict
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
        (r"\boxed 5", "5"),
        (r"$\boxed7$", "7"),
        (r"\boxed x+1", "x"),
        (r"\boxed{4} then \boxed -5", "-5"),
        ("5", None),
        ("", None),
    ],
)
def test_the_last_balanced_box(text: str, answer: str | None) -> None:
    assert extract_boxed(text) == answer


@pytest.mark.parametrize("piece", ["\\boxed{", "\\boxed{}", "\\", "{", "}", "\\boxed", "\\boxed ", "\\fbox{{}", " "])
def test_hostile_text_takes_linear_time(piece: str) -> None:
    text = "\\boxed{1}" + piece * (100_000 // len(piece))
    start = time.process_time()
    extract_boxed(text)
    quick_verdict("5", text)
    quick_verdict("5", "$" * 100_000)
    quick_verdict("5", "\\(" * 30_000 + "\\)" * 30_000)
    quick_verdict("5", "a" + piece * (100_000 // len(piece)) + "b")
    too_hard("1" + text)
    assert time.process_time() - start < 2


@pytest.mark.parametrize(
    ("gold", "predicted", "verdict"),
    [
        ("18", "18.0", True),
        ("18", "$18.00", True),
        ("1,234", "1234", True),
        ("1{,}234", r"1,\!234", True),
        ("50", r"50\%", False),
        (r"50\%", "50", True),
        ("-5", "−5", True),
        (".5", "0.50", True),
        ("025", "25", True),
        ("18", "19", False),
        ("0.333", "0.3333", False),
        ("9" * 50, "9" * 49 + "8", False),
        ("0.5", r"50\%", True),
        ("18", "18 dollars", True),
        ("18", "19 dollars", False),
        ("18", "18 million", False),
        ("18", "18 or 19", None),
        ("2", "2 pi", None),
        ("18", r"18 \text{ dollars}", True),
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
        ("1/3", "0.333333", True),
        (r"\sqrt{12}", r"2\sqrt{3}", None),
        ("(1,2)", "[1,2]", None),
        ("(1,234)", "1234", None),
        (r"1\frac12", r"\frac32", True),
        (r"30^\circ", "30", True),
        (r"30^\circ", "31", False),
        (r"3\text{ cm}", r"4 \text{cm}", False),
        (r"3\text{ cm}", r"3\text{ m}", False),
        (r"3\text{ million}", "3", False),
        (r"\frac{1}{0}", "1", None),
        ("2x", "2", None),
        ("5", "5k", False),
        ("1/2x", "0.5x", None),
        ("x(x+1)", "x^2+x", None),
        ("a+b", "b+a", None),
        ("xe", "ex", None),
        (r"\sin x", r"\sin x + 0", None),
        ("((x^{100})^{100})^{100}", "x", None),
    ],
)
def test_what_plain_text_decides(gold: str, predicted: str, verdict: bool | None) -> None:
    assert quick_verdict(gold, predicted) is verdict


@pytest.mark.parametrize(
    ("gold", "predicted", "verdict"),
    [
        (r"2\sqrt{3}", r"3\sqrt{2}", False),
        (r"(1, \frac{1}{2})", "(1,0.5)", True),
        ("(1,2)", "(2,1)", False),
        ("(1,2)", "3", False),
        ("2^{-1}", "0.5", True),
        ("2^{2^{2}}", "16", True),
        ("x+1", "1+x", True),
        ("x^2 - 1", "(x-1)(x+1)", True),
        (r"\frac{x+1}{2}", "0.5x + 0.5", True),
        ("x^2y", "yx^2", True),
        ("x^2 - 1", "x^2 + 1", False),
        ("2x", "3x", False),
        ("(x, 2y)", "(x, 3y)", False),
        ("x^{100}", "x^{99}x", True),
        ("x+1 dollars", "x+1", True),
    ],
)
def test_what_text_leaves_to_mathematics(gold: str, predicted: str, verdict: bool, checker: AnswerChecker) -> None:
    assert quick_verdict(gold, predicted) is None
    assert checker.check_each([(gold, predicted)]) == [verdict]


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


SLOW = r"\sum_{n=1}^{10^9} \frac{1}{n^2}"
"""Short and harmless to look at, but math-verify would take hours."""
HOSTILE = [
    "9**9**9**9",
    "9^{9^{9^{9^9}}}",
    "123456789^{9999}^{99}",
    "10^{1000000}",
    "(((9!)!)!)!",
    "99999999!",
    "7" * 100_000,
    "x+" * 50_000 + "x",
    "\\frac{1}{" * 10_000 + "1" + "}" * 10_000,
    "\\frac{1}{" * 20 + "1" + "}" * 20,
    "{" * 20 + "1" + "}" * 20,
    "{" * 100_000,
    "\\sqrt" * 20_000,
    "(" * 50_000 + ")" * 50_000,
]


def test_hostile_answers_are_given_up_untried() -> None:
    with AnswerChecker(workers=1) as checker:
        start = time.process_time()
        verdicts = checker.check_each([(gold, text) for gold in ("3", r"\frac{x}{2}", "(1,2)") for text in HOSTILE])
        assert verdicts == [None] * 3 * len(HOSTILE)
        assert checker.timed_out == 3 * len(HOSTILE)
        assert checker.check([("3", text) for text in HOSTILE]) == [False] * len(HOSTILE)
        assert checker._idle[0]._process is None
        assert time.process_time() - start < 2


def test_large_but_harmless_answers_are_tried(checker: AnswerChecker) -> None:
    pairs = [("2^{10}", "1024"), ("4^{500}", "2^{1000}"), ("x^{2^3}", "x^8"), ("10^{100}", "10^{10^2}")]
    assert checker.check_each(pairs) == [True] * len(pairs)


def test_equal_text_needs_no_mathematics() -> None:
    with AnswerChecker() as checker:
        assert checker.check([(text, text) for text in (SLOW, "7" * 100_000, "9^{9^9}")]) == [True] * 3


def test_an_answer_over_the_time_limit_is_given_up_and_told_apart(caplog: pytest.LogCaptureFixture) -> None:
    with AnswerChecker(workers=2, time_limit=0.5) as checker:
        checker.check([("a+1", "1+a"), ("a+2", "2+a")])
        processes = [worker._process for worker in checker._idle]
        pairs = [("3", SLOW), ("a+3", "3+a"), ("4", SLOW), ("a+1", "a"), ("5", None)]
        assert checker.check_each(pairs) == [None, True, None, False, False]
        assert checker.check(pairs) == [False, True, False, False, False]
        assert checker.timed_out == 4
        assert [worker._process for worker in checker._idle] == processes  # only their children ended
    assert r"no verdict within 0.5 s on 2 answers, such as '\\sum" in caplog.text


def test_a_worker_that_dies_is_replaced() -> None:
    with AnswerChecker(workers=1) as checker:
        assert checker.check([("a+1", "1+a")]) == [True]
        process = checker._idle[0]._process
        assert process is not None
        process.kill()
        process.wait()
        assert checker.check_each([("a+1", "1+a")]) == [None]
        assert checker.timed_out == 1
        assert checker.check([("a+1", "1+a")]) == [True]


def test_no_process_before_one_is_needed_and_none_after_the_end() -> None:
    with AnswerChecker() as checker:
        assert checker.check([("5", "5.0"), ("A", "(B)"), ("x", None)]) == [True, False, False]
        assert all(worker._process is None for worker in checker._idle)
        checker.check([("a+1", "1+a")])
        (process,) = [worker._process for worker in checker._idle if worker._process]
        if sys.platform == "linux":
            child = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text(encoding="ascii").strip()
            assert child
    assert process.poll() is not None
    if sys.platform == "linux":
        status = Path(f"/proc/{child}/stat")
        wait = time.monotonic() + 20
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            while ") Z " not in status.read_text(encoding="ascii"):
                assert time.monotonic() < wait
                time.sleep(0.01)


def test_it_works_in_threads(checker: AnswerChecker) -> None:
    with ThreadPoolExecutor(4) as threads:
        results = list(
            threads.map(lambda n: checker.check([("a+1", f"(a+1){n}/{n}"), ("a+1", f"a+{n}")]), range(2, 10))
        )
    assert results == [[True, False]] * 8


def test_it_works_in_a_script_from_standard_input_anywhere(tmp_path: Path) -> None:
    script = (
        "from datamodules.answers.checker import AnswerChecker\n"
        "with AnswerChecker(1) as checker: print(checker.check([('a+1', '1+a')]))"
    )
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[3])}
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
