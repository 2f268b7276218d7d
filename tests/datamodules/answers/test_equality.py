"""Which answers are equal: by form, by unit, and by value however small, in both directions unless the gold decides."""

import pytest

from datamodules.answers.checker import AnswerChecker
from datamodules.answers.exact import exact
from datamodules.answers.normal import clean


@pytest.mark.parametrize(
    ("gold", "predicted"),
    [
        (r"\frac13", r"0.\overline{3}"),
        (r"\frac16", r"0.1\overline{6}"),
        (r"\frac13", "0.333..."),
        (r"\frac72", "3 1/2"),
        (r"\frac72", r"3\frac12"),
        ("3.5", r"3\frac{1}{2}"),
        ("3.5", "3½"),
        (r"48^\circ", "48°"),
        (r"48^{\circ}", "48 degrees"),
        ("-5", "–5"),
        ("-5", "−5"),
        ("-5", "minus 5"),
        ("x-5", "x – 5"),
        ("1000", "1 000"),
        ("1000", "1\u2009000"),
        ("1000", "1\u00a0000"),
        ("1000", r"1\,000"),
        ("1500000", "1.5e6"),
        ("1500000", "1.5 million"),
        ("12000", "12k"),
        ("21", "twenty-one"),
        ("12", "12元"),
        ("12", "12个"),
        ("12", "12 个"),
        ("12", "$12$ apples"),
        (r"\$3.60", r"$\$3.60$"),
        ("x^2", "x²"),
        ("1.5e6", "1.5 × 10⁶"),
        (r"\{(1,2),(3,4)\}", r"\{(1, 2), (3, 4)\}"),
        (r"\emptyset", r"\varnothing"),
        (r"\emptyset", "∅"),
        ("7", r"\boxed 7"),
        ("7", r"\boxed{\text{The answer is }7}"),
        ("7", "The answer is 7."),
        ("4.5e33", r"4.5 \times 10^{33}"),
        ("4.5e33", r"$4.5 \cdot 10^{33}$"),
        ("2.55e-10", "0.000000000255"),
        ("1e-3", "0.001"),
        ("5e-05", "0.00005"),
        ("10^{-3}", "1e-3"),
        (r"\text{4:30 p.m.}", "4:30 p.m."),
        (r"\text{4:30 p.m.}", r"4:30 \text{ PM}"),
        ("5 kg", "5000 g"),
        ("2 hours", "120 minutes"),
        ("2.5 hours", "2 hours and 30 minutes"),
        ("$5", "500 cents"),
        ("£5", "5 pounds"),
        (r"15 \text{ cm}^2", "15 square centimeters"),
        ("60 mph", "60 miles per hour"),
        (r"50\%", "0.5"),
        (r"\frac12", "50 percent"),
        (r"\text{even}", "Even"),
        (r"x \neq 3", "x ≠ 3"),
        ("2516_8", "2516_{8}"),
        ("A", r"\boxed{\text{(A)}}"),
    ],
)
def test_equal_by_text(gold: str, predicted: str) -> None:
    with AnswerChecker(workers=1) as checker:
        assert checker.check([(gold, predicted), (predicted, gold)]) == [True, True]
        assert checker._idle[0]._process is None


@pytest.mark.parametrize(
    ("gold", "predicted"),
    [
        ("12", r"\neq 12"),
        ("12", "≠ 12"),
        ("12", "> 12"),
        ("12", r"\geq 12"),
        ("12", r"x \not= 12"),
        (r"\{1,2\}", "(2,1)"),
        (r"\{1,2\}", "(1,2)"),
        (r"\left\{1, 2\right\}", "[1,2]"),
        ("5 kg", "5 g"),
        ("5 kg", "5 cm"),
        ("5 hours", "5 minutes"),
        ("$5", "5 cents"),
        ("$5", "€5"),
        (r"5\text{ cm}^2", r"5\text{ cm}"),
        (r"5\text{ km/h}", r"5\text{ m/s}"),
        ("5 m", "5 s"),
        (r"2\sqrt{3}\text{ m}", r"2\sqrt{3}\text{ kg}"),
        (r"100^\circ", r"100\%"),
        (r"5^\circ\text{C}", r"5^\circ\text{F}"),
        ("ABC", "BCA"),
        (r"30^\circ", "30 radians"),
        (r"\text{east}", r"\text{seat}"),
        ("10_2", "10_3"),
        ("4:30 p.m.", "4:30 a.m."),
        ("5", "5 million"),
        ("1e-10", "1e-11"),
        (r"1, 2, \ldots, n", r"1, 3, 5, \ldots, 2n-1"),
        (r"1 + 2 + \dots + n", r"1 + 3 + ... + n"),
    ],
)
def test_unequal_by_text(gold: str, predicted: str) -> None:
    with AnswerChecker(workers=1) as checker:
        assert checker.check([(gold, predicted), (predicted, gold)]) == [False, False]
        assert checker._idle[0]._process is None


@pytest.mark.parametrize(
    ("gold", "predicted", "equal"),
    [("2", r"2\%", False), (r"2\%", "2", True), (r"2\%", "0.02", True), ("0.02", r"2\%", True), ("2", "200%", True)],
)
def test_a_gold_answer_in_percent_accepts_the_number_alone(
    gold: str, predicted: str, equal: bool, checker: AnswerChecker
) -> None:
    assert checker.check([(gold, predicted)]) == [equal]


@pytest.mark.parametrize(
    ("gold", "predicted"),
    [
        (r"\frac{1}{20!}", r"\frac{1}{21!}"),
        ("1/50!", "1/52!"),
        (r"\frac{13!}{52!}", r"\frac{12!}{52!}"),
        ("e^{-100}", "e^{-101}"),
        (r"\frac{1}{3^{100}}", r"\frac{1}{3^{101}}"),
        ("(1/2)^{1000}", "(1/3)^{1000}"),
        (r"1-\frac{1}{3^{100}}", r"1-\frac1{3^{101}}"),
        ("1-e^{-100}", "1-e^{-101}"),
        (r"\frac{2^{2005}+1}{3\cdot 2^{2006}}", r"\frac{1}{3\cdot 2^{2006}}"),
        (r"\sqrt{2}\cdot 10^{-20}", r"\sqrt{3}\cdot 10^{-20}"),
        (r"x+10^{-20}", r"x+10^{-21}"),
        (r"(1, 10^{-20})", r"(1, 10^{-21})"),
        (r"x = 10^{-20}", r"x = 10^{-21}"),
        (r"\sqrt{2} \cdot 10^{-7}", "0.0000001"),
        ("0", r"\sqrt{2} \cdot 10^{-9}"),
    ],
)
def test_small_numbers_differ(gold: str, predicted: str, checker: AnswerChecker) -> None:
    assert checker.check([(gold, predicted), (predicted, gold)]) == [False, False]


@pytest.mark.parametrize(
    ("gold", "predicted"),
    [
        (r"\frac{1}{20!}", r"\frac{1}{2432902008176640000}"),
        ("e^{-100}", r"\frac{1}{e^{100}}"),
        (r"\frac{\sqrt{6}}{10^{20}}", r"\frac{\sqrt{2}\sqrt{3}}{10^{20}}"),
        (r"x+10^{-20}", r"10^{-20}+x"),
        (r"\sqrt{2}", "1.414214"),
        (r"\frac{1}{70}", "0.014286"),
        (r"2\sqrt{3}\text{ m}", r"200\sqrt{3}\text{ cm}"),
        (r"2\sqrt{3}\text{ cm}", r"2\sqrt{3}"),
        (r"\{1,2\}", "2, 1"),
        ("1,2", "2 and 1"),
        (r"\pm 3", "3, -3"),
        ("x = 5", "5"),
        (r"(1, \frac12)", "(1, 0.5)"),
    ],
)
def test_equal_numbers_stay_equal(gold: str, predicted: str, checker: AnswerChecker) -> None:
    assert checker.check([(gold, predicted)]) == [True]


def test_a_number_is_read_exactly_or_not_at_all() -> None:
    for text in ("2x", "12 13", "1,2", "1.2.3", "five apples", r"\frac{1}{0}", "", "x", "1/2x", "5!", "9" * 1001):
        assert exact(clean(text)) is None


def test_lone_surrogates_are_unequal_and_crash_nothing(checker: AnswerChecker) -> None:
    assert checker.check([("5", "\ud800"), ("\udfff", "5"), ("x+1", "\ud83d+1"), ("\ud800", "\ud800")])[3] is True
    assert checker.readable(["\ud800 5", "5"])[1] is True
