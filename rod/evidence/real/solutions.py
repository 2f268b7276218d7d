"""Worked solutions of arithmetic problems, in words and in three lengths."""

import ast
import operator
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import combinations

_OPERATIONS: dict[str, Callable[[Fraction, Fraction], Fraction]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
}
_SYMBOLS = {ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/"}
_WORDS = {
    "+": "Add {a} and {b}",
    "-": "Take {b} from {a}",
    "*": "Multiply {a} by {b}",
    "/": "Divide {a} by {b}",
}
_ANNOTATION = re.compile(r"<<([^<>=]+)=([^<>]+)>>")
_BINARY = re.compile(r"([\d.]+)\s*([-+*/])\s*([\d.]+)")
_NUMBER = re.compile(r"\d+(?:\.\d+)?")
_SENTENCE = re.compile(r"[^.?!]+[.?!]*")


@dataclass(frozen=True)
class WorkedStep:
    """A line of a solution: its words, and the calculations in it, such as ``("48/2", "24")``."""

    text: str
    calculations: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Solution:
    """A worked solution of a problem.

    Attributes:
        question: The problem.
        steps: Its solution, line by line.
        answer: The number at its end.
    """

    question: str
    steps: tuple[WorkedStep, ...]
    answer: str

    def long(self) -> str:
        """What is asked, numbered steps in words, and each sum of two numbers checked backwards."""
        lines = [f"The question is: {_SENTENCE.findall(self.question.strip())[-1].strip()}"]
        for number, step in enumerate(self.steps, start=1):
            lines.append(f"Step {number}: {step.text}")
            lines += [f"Check: {check}." for check in map(_checked, step.calculations) if check]
        return "\n".join([*lines, f"So the answer is \\boxed{{{self.answer}}}."])

    def plain(self) -> str:
        """The steps in words."""
        return "\n".join([*(step.text for step in self.steps), f"The answer is \\boxed{{{self.answer}}}."])

    def brief(self) -> str:
        """The calculations alone."""
        sums = [f"{left} = {right}" for step in self.steps for left, right in step.calculations]
        return "\n".join([*sums, f"\\boxed{{{self.answer}}}"])


def annotated(question: str, answer: str) -> Solution | None:
    r"""Read a solution with GSM8K's calculator annotations (``48/2 = <<48/2=24>>24``); None if it has none.

    >>> annotated("Half of 48?", "It is 48/2 = <<48/2=24>>24.\n#### 24").brief()
    '48/2 = 24\n\\boxed{24}'
    """
    body, _, final = answer.rpartition("####")
    steps = []
    for line in body.strip().splitlines():
        found = tuple((left.strip(), right.strip()) for left, right in _ANNOTATION.findall(line))
        steps.append(WorkedStep(_ANNOTATION.sub("", line).strip(), found))
    if not any(step.calculations for step in steps):
        return None
    return Solution(question, tuple(steps), final.strip().replace(",", ""))


def from_equation(question: str, equation: str) -> Solution | None:
    r"""Work an equation such as ``( ( 8.0 - 3.0 ) * 2.0 )`` out in words; None if it is not of the four operations.

    >>> print(from_equation("How many are left?", "( 8.0 - 3.0 )").plain())
    Take 3 from 8: 8 - 3 = 5.
    The answer is \boxed{5}.
    """
    steps: list[WorkedStep] = []
    value = _work(ast.parse(equation.strip(), mode="eval").body, steps)
    return None if value is None or not steps else Solution(question, tuple(steps), number_text(value))


def from_answer(question: str, answer: float) -> Solution | None:
    r"""Find the one way in which all numbers of a problem, each taken once, make its answer.

    None if there is no way, or if ways with other operations lead there too.

    >>> print(from_answer("There are 8 jars. 3 break. How many are left?", 5).brief())
    8 - 3 = 5
    \boxed{5}
    """
    numbers = [(Fraction(n), n) for n in _NUMBER.findall(question)]
    if not 2 <= len(numbers) <= 3:
        return None
    target = Fraction(str(answer))
    ways = {expression: used for value, expression, used in _combined(numbers) if value == target}
    if len(set(ways.values())) != 1:
        return None
    return from_equation(question, next(iter(ways)))


def _combined(numbers: Sequence[tuple[Fraction, str]], used: str = "") -> Iterator[tuple[Fraction, str, str]]:
    """Value, expression and sorted operations of all ways to combine the numbers; the first numbers first."""
    if len(numbers) == 1:
        yield (*numbers[0], "".join(sorted(used)))
        return
    for one, other in combinations(range(len(numbers)), 2):
        rest = [n for index, n in enumerate(numbers) if index not in (one, other)]
        for (a, left), (b, right) in ((numbers[one], numbers[other]), (numbers[other], numbers[one])):
            for symbol, apply in _OPERATIONS.items():
                if (symbol == "/" and b == 0) or (symbol in "+*" and (a, left) != numbers[one]):
                    continue
                value = apply(a, b)
                if value > 0:
                    yield from _combined([(value, f"({left} {symbol} {right})"), *rest], used + symbol)


def _work(node: ast.expr, steps: list[WorkedStep]) -> Fraction | None:
    """The value of an expression; its operations are appended to ``steps``, the inner ones first."""
    if isinstance(node, ast.Constant) and isinstance(node.value, int | float):
        return Fraction(str(node.value))
    if not isinstance(node, ast.BinOp) or type(node.op) not in _SYMBOLS:
        return None
    a, b = _work(node.left, steps), _work(node.right, steps)
    symbol = _SYMBOLS[type(node.op)]
    if a is None or b is None or (symbol == "/" and b == 0):
        return None
    value = _OPERATIONS[symbol](a, b)
    left = f"{number_text(a)} {symbol} {number_text(b)}"
    words = _WORDS[symbol].format(a=number_text(a), b=number_text(b))
    steps.append(WorkedStep(f"{words}: {left} = {number_text(value)}.", ((left, number_text(value)),)))
    return value


def _checked(calculation: tuple[str, str]) -> str | None:
    """The calculation backwards: ``24 * 2 = 48`` for ``48/2 = 24``; None if it has not two numbers or is rounded."""
    found = _BINARY.fullmatch(calculation[0])
    if not found or not _NUMBER.fullmatch(calculation[1]):
        return None
    a, symbol, b = found.groups()
    result = calculation[1]
    back = {"+": (result, "-", b), "-": (result, "+", b), "*": (result, "/", b), "/": (result, "*", b)}[symbol]
    first, second = Fraction(back[0]), Fraction(back[2])
    if (back[1] == "/" and second == 0) or _OPERATIONS[back[1]](first, second) != Fraction(a):
        return None
    return f"{back[0]} {back[1]} {back[2]} = {a}"


def number_text(value: Fraction | float) -> str:
    """A number as people write it: a whole one with all its digits, another with at most six decimals.

    >>> number_text(1201565.0), number_text(2.5), number_text(Fraction(1, 3))
    ('1201565', '2.5', '0.333333')
    """
    exact = Fraction(str(value)) if isinstance(value, float) else value
    return str(exact.numerator) if exact.denominator == 1 else f"{float(exact):.6f}".rstrip("0")
