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
        (r"\frac{\pi}{2}", r"\frac\pi2"),
        (r"\frac{\pi}{2}", r"\dfrac\pi 2"),
        (r"\frac{a}{b}", r"\frac ab"),
        (r"\frac{3\pi}{4}", r"\frac{3\pi}4"),
        (r"\frac{\sqrt{3}}{2}", r"\frac{\sqrt3}2"),
        (r"\sqrt{x}", r"\sqrt x"),
        (r"\sqrt[3]{2}", r"\sqrt[3]2"),
        (r"n \equiv 3 \pmod{7}", r"n\equiv 3\pmod 7"),
        ("(1,2)", r"\bigl(1,2\bigr)"),
        ("(1,2)", r"\Big( 1, 2 \Big)"),
        (r"\begin{pmatrix} 1 \\ 3 \end{pmatrix}", r"\begin{pmatrix} 1 \\[1ex] 3 \end{pmatrix}"),
        ("1+2i", r"1 + 2\mathrm{i}"),
        (r"e^{\pi i}", r"\mathrm{e}^{\pi\mathrm{i}}"),
        (r"\emptyset", r"\{ \}"),
        (r"\emptyset", "Ø"),
        (r"\emptyset", r"\text{the empty set}"),
        ("0.5", "1⁄2"),
        ("30000", "3万"),
        ("35000", "3.5万元"),
        ("5", r"\Rightarrow 5"),
        ("5", "=5"),
        ("5", "→ 5"),
        ("5", r"\therefore 5"),
        ("5", r"\sim 5"),
        ("5", r"\bf 5"),
        ("5", r"\color{blue} 5"),
        ("5", r"\Large 5"),
        ("8.24", r"\approx 8.24 \text{ mph}"),
        (r"5\text{ or more}", r"\text{at least }5"),
        (r"5\text{ or more}", r"\ge 5"),
        (r"-37_8", "-37_{8}"),
        ("101_2", r"101_{\text{two}}"),
        ("2516_8", r"2516\text{ (base 8)}"),
        ("x=101_2", "101_{(2)}"),
        ("1:2:3", "2:4:6"),
        ("2:1", "1:0.5"),
        ("15 to 20", "15–20"),
        (r"\angle ABC", r"\angle CBA"),
        (r"\triangle ABC", r"\triangle BCA"),
        ("12", "12 m^2"),
        ("12", "12 m/s"),
        ("12", "12 L"),
        ("12", "12 N"),
        ("5 L", "5000 mL"),
        ("5 degrees Celsius", r"5^\circ\text{C}"),
        ("7", "7 dozen"),
        ("84", r"7\text{ dozen}"),
        ("18", r"\text{18 eggs}"),
        ("18", r"\text{18 large eggs}"),
        ("18", "18 large brown eggs"),
        ("18", r"\textbf{18 eggs}"),
        ("18", r"\text{Total: } 18"),
        ("18", r"\text{about } 18"),
        ("18", r"\underline{18}"),
        ("400", "400 €"),
        ("400", "400€"),
        ("€400", "400 €"),
        ("400 £", "40000 pence"),
        ("$5.20", "$5 and 20 cents"),
        ("$5 and 20 cents", "520 cents"),
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
        (r"10\% \text{ increase}", r"10\% \text{ decrease}"),
        ("10% gain", "10% loss"),
        ("$5 profit", "$5 loss"),
        ("5 miles east", "5 miles west"),
        (r"30^\circ\text{ N}", r"30^\circ\text{ S}"),
        (r"90^\circ \text{ clockwise}", r"90^\circ \text{ counterclockwise}"),
        ("5 degrees Celsius", "5 degrees Fahrenheit"),
        ("5", r"5\text{ or more}"),
        ("5", r"\text{at most }5"),
        (r"5\text{ or more}", r"5\text{ or fewer}"),
        (r"\ge 5", r"\le 5"),
        (r"\ge 5", "> 5"),
        ("-37_8", "-37_5"),
        ("1.1_2", "1.1_3"),
        ("x=101_2", "x=101_3"),
        (r"101_{\text{two}}", r"101_{\text{three}}"),
        ("101_{(2)}", "101_{(3)}"),
        (r"2516\text{ base }8", "2516_9"),
        ("1:2:3", "1:3:2"),
        ("0:1:2", "0:2:1"),
        ("12:05", "12:50"),
        ("2020-01-02", "2020-02-01"),
        ("05/06/2021", "10/12/2021"),
        ("2021-05-06", "2010"),
        ("10-20", "20-30"),
        ("15 to 20", "20 to 25"),
        (r"\angle ABC", r"\angle BCA"),
        (r"\vec{AB}", r"\vec{BA}"),
        ("8", "7 dozen"),
        ("18", r"\text{19 eggs}"),
        ("18", r"\underline{19}"),
        ("400 €", "400 £"),
        ("400 €", "400 cents"),
        (r"\text{Loss: } 5", r"\text{Gain: } 5"),
        ("12", "13 N"),
        ("$5.20", "$5 and 30 cents"),
        ("3万", "3亿"),
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
        ("22500", "x = 22,500"),
        ("22500", r"\text{Profit} = \$22,500"),
        ("-22500.5", "x = -22,500.5"),
        ("x = 1, 200", "200, 1"),
        (r"\{1,2\}", "2, 1"),
        ("1,2", "2 and 1"),
        (r"\pm 3", "3, -3"),
        ("x = 5", "5"),
        (r"(1, \frac12)", "(1, 0.5)"),
        (r"-8-8\sqrt{3} i", r"-8-8i\sqrt{3}"),
        ("1+2i", r"2 \cdot i + 1"),
        ("(1, 2i)", "(1, 2 i)"),
        (r"6(\cos 30^\circ + i\sin 30^\circ)", r"3\sqrt{3}+3i"),
        (r"e^{\pi i/3}", r"\frac12+\frac{\sqrt3}{2}i"),
        (r"\frac12", r"\sin 30^\circ"),
        (r"\tan 15^\circ", r"\tan 15 degrees"),
        (r"6 \operatorname{cis} 198^\circ", r"6\operatorname{cis}198^{\circ}"),
        ("x=1, y=2", "y=2, x=1"),
        ("x=1, y=2", "(1,2)"),
        ("y=2, x=1", "(1,2)"),
        (r"x=1, y=\frac23", r"1, \frac23"),
        ("(1,2)", r"x = 1 \text{ and } y = 2"),
        ("x=1, x=2", "2,1"),
        (r"(-\infty,2]", r"x\le 2"),
        (r"(2,\infty)", "x > 2"),
        ("(1,2]", r"1 < x \le 2"),
        (r"x\ge 2", r"[2,\infty)"),
        ("y' = 3y", "3y = y'"),
        ("f'(x)=2x", "2x"),
        (r"y''+y=0", r"y + y^{\prime\prime} = 0"),
        ("7-5", "2"),
        ("5", "x^* = 5"),
        ("5", r"{\bf 5}"),
        ("5", r"\Rightarrow x=5"),
        (r"30^\circ\text{ N}", r"30^\circ"),
    ],
)
def test_equal_numbers_stay_equal(gold: str, predicted: str, checker: AnswerChecker) -> None:
    assert checker.check([(gold, predicted)]) == [True]


@pytest.mark.parametrize(
    ("gold", "predicted"),
    [
        ("2", r"\frac\pi 2"),
        (r"2007 + \frac\pi 2", r"2007 - \frac\pi 2"),
        (r"\begin{cases} x & x<0 \\ 1 & x\ge 0\end{cases}", r"\begin{cases} 5 & x<1 \\ 7 & x\ge 0\end{cases}"),
        (r"6 \operatorname{cis} 198^\circ", r"7 \operatorname{cis} 198^\circ"),
        (r"\begin{aligned}x&=1\\y&=2\end{aligned}", r"\begin{aligned}x&=5\\y&=2\end{aligned}"),
        (r"\begin{aligned}x&=1\\y&=2\end{aligned}", "2"),
        ("2", r"x \mapsto 2x"),
        (r"n \equiv 3 \pmod{7}", r"m \equiv 3 \pmod{9}"),
        (r"\begin{pmatrix} 1 \\ \phantom -1 \end{pmatrix}", r"\begin{pmatrix} 2 \\ \phantom -1 \end{pmatrix}"),
    ],
)
def test_what_mathematics_cannot_read_is_compared_as_text(gold: str, predicted: str, checker: AnswerChecker) -> None:
    assert checker.check([(gold, predicted), (predicted, gold), (gold, gold)]) == [False, False, True]
    assert checker.readable([gold]) == [True]


@pytest.mark.parametrize(
    ("gold", "predicted"),
    [
        ("22500", "x = 22,501"),
        ("22500", "x = 22, 500"),
        ("x=1,y=2", "(2,1)"),
        ("x=1,y=2", "2,1"),
        ("a=2,b=3,c=4", "(4,3,2)"),
        (r"x=1, y=\frac23", r"\frac23, 1"),
        ("x=1,y=2", "x=2,y=1"),
        ("y' = 3y", "y = 3y"),
        ("f'(x)=2x", "f(x)=2x"),
        ("f''(x)=2", "f'(x)=2"),
        ("2+3i", "3+2i"),
        ("2i", "2"),
        ("1+10^{-20}i", "1+10^{-21}i"),
        (r"(2,\infty)", r"x \ge 2"),
        (r"\sin 30^\circ", "30"),
    ],
)
def test_names_primes_and_imaginary_parts_count(gold: str, predicted: str, checker: AnswerChecker) -> None:
    assert checker.check([(gold, predicted), (predicted, gold)]) == [False, False]


def test_a_number_is_read_exactly_or_not_at_all() -> None:
    for text in ("2x", "12 13", "1,2", "1.2.3", "five apples", r"\frac{1}{0}", "", "x", "1/2x", "5!", "9" * 1001):
        assert exact(clean(text)) is None


def test_lone_surrogates_are_unequal_and_crash_nothing(checker: AnswerChecker) -> None:
    assert checker.check([("5", "\ud800"), ("\udfff", "5"), ("x+1", "\ud83d+1"), ("\ud800", "\ud800")])[3] is True
    assert checker.readable(["\ud800 5", "5"])[1] is True


@pytest.mark.parametrize(
    ("gold", "predicted", "same"),
    [
        (r"\ln 2", "ln(2)", True),
        (r"\sin x", "sin(x)", True),
        (r"\cos 2x", "cos(2x)", True),
        (r"\log_2 5", "log_2(5)", True),
        (r"x\ln x - x", "x ln(x) - x", True),
        ("e^2", "exp(2)", True),
        (r"2\sqrt{3}", "2sqrt(3)", True),
        (r"\frac{\pi}{2}", "pi/2", True),
        (r"\tan\theta", "tan(theta)", True),
        ("pi", "pie", False),
        ("tan", "sin", False),
        (r"\frac{1\pm\sqrt5}{2}", r"\frac{1+\sqrt5}{2}, \frac{1-\sqrt5}{2}", True),
        ("1+i, 1-i", r"x = 1 \pm i", True),
        (r"x=\pm2", "x=2, x=-2", True),
        (r"\pm 3", "3", False),
        (r"2\pm\sqrt3", r"2+\sqrt3", False),
        ("11", "about 11", True),
        ("18", "USD 18", True),
        ("18 EUR", "€18", True),
        ("$18", "EUR 18", False),
        (r"\text{no solution}", "There are no solutions.", True),
        ("no real solutions", r"\text{no solution}", False),
        ("1.234", "1234", False),
        ("120, 240", "x = 120,240", True),
        ("22500", "x = 22,500", True),
        ("3", r"\text{3 fifths}", False),
        ("5", r"\text{5 factorial}", False),
        ("18", r"\text{18 eggs.}", True),
        ("25", "2**5", False),
        ("32", "2**5", True),
        ("1024", "2 ** 10", True),
        ("7", "7 out of ten", False),
        ("3", r"\text{3 sixteenths}", False),
        ("3", r"\text{3 twelfths}", False),
        ("3", r"\text{3 millionths}", False),
        ("5", r"\text{5 in binary}", False),
        ("7", "7 less than x", False),
        ("7 red apples", "7 green apples", False),
        ("C5", "$C$5", True),
    ],
)
def test_plain_functions_both_signs_and_codes(gold: str, predicted: str, same: bool, checker: AnswerChecker) -> None:
    assert checker.check([(gold, predicted)]) == [same]
