r"""The value of arithmetic such as ``\frac{3}{4}``, ``-2\sqrt{3}``, ``(1, 3)`` or ``x^2 - 1``, where it is quick.

It only decides what is beyond doubt; math-verify, which takes milliseconds for each answer, decides the rest.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction

LONGEST = 200
DEEPEST = 12
CLEARLY_DIFFERENT = 1e-4
"""Values closer than this, relative to the larger, may be roundings of each other: that is for math-verify."""
POINTS = tuple(
    {name: Fraction(top, bottom) for name, top, bottom in zip("xyznk", tops, (29, 31, 37, 41, 43), strict=True)}
    for tops in ((53, -59, 61, 67, -71), (-73, 79, 83, -89, 97), (19, 101, -23, 103, 107))
)
"""What variables stand for. Expressions with equal values at all three are the same: they are short, and these no
round numbers. Only letters that are no units, no constants and no functions."""

_TOKEN = re.compile(
    r"\s*(?:(?P<number>\d+(?:\.\d+)?|\.\d+)|(?P<frac>\\[dt]?frac)|(?P<root>\\sqrt)|(?P<pi>\\pi(?![a-zA-Z]))"
    r"|(?P<variable>[xyznk](?![a-z]{2}))|(?P<times>\\cdot|\\times|\*(?!\*))|(?P<sign>[-+/^(){}\[\],]))"
)
_TUPLE = re.compile(r"([(\[])(.*)([)\]])", re.DOTALL)


@dataclass(frozen=True)
class Value:
    """A real number: approximately, and exactly where it is rational."""

    near: float
    exact: Fraction | None = None


class _NoArithmeticError(ValueError):
    """The text is more than the closed arithmetic read here."""


def same_value(gold: str, predicted: str) -> bool | None:
    """Whether two answers have the same value; None if one is no closed arithmetic, or they are too close to tell."""
    try:
        if not any(name in gold + predicted for name in POINTS[0]):
            return _same_at(gold, predicted, {})
        verdicts = [_same_at(gold, predicted, point) for point in POINTS]
    except (_NoArithmeticError, OverflowError, ZeroDivisionError):
        return None
    return False if False in verdicts else None if None in verdicts else True


def _same_at(gold: str, predicted: str, point: Mapping[str, Fraction]) -> bool | None:
    if any((name in gold) != (name in predicted) for name in point):
        raise _NoArithmeticError  # x = 3 and 3, 5k and 5000
    first, second = _values(gold, point), _values(predicted, point)
    if isinstance(first, Value) and isinstance(second, Value):
        return _same(first, second)
    if isinstance(first, Value) or isinstance(second, Value):
        return False
    if first[0] != second[0]:
        return None  # an interval with its ends or without
    if len(first[1]) != len(second[1]):
        return False
    verdicts = [_same(*pair) for pair in zip(first[1], second[1], strict=True)]
    return False if False in verdicts else None if None in verdicts else True


def _same(first: Value, second: Value) -> bool | None:
    if first.exact is not None and first.exact == second.exact:
        return True
    apart = abs(first.near - second.near) > CLEARLY_DIFFERENT * max(abs(first.near), abs(second.near), 1e-300)
    return False if apart and math.isfinite(first.near) and math.isfinite(second.near) else None


def _values(text: str, point: Mapping[str, Fraction]) -> Value | tuple[str, list[Value]]:
    """One value, or several with the brackets round them."""
    text = text.replace("\\left", "").replace("\\right", "").strip()
    if len(text) > LONGEST:
        raise _NoArithmeticError
    match = _TUPLE.fullmatch(text)
    if match and "," in match[2]:
        parts = match[2].split(",")
        if all(re.fullmatch(r"\d{3}", part) for part in parts[1:]):
            raise _NoArithmeticError  # thousands
        return match[1] + match[3], [_Reader(part, point).read() for part in parts]
    return _Reader(text, point).read()


class _Reader:
    """Recursive descent over one expression."""

    def __init__(self, text: str, point: Mapping[str, Fraction]):
        self._point = point
        self._tokens: list[tuple[str, str]] = []
        self._at = 0
        self._depth = 0
        position = 0
        text = text.rstrip()
        while position < len(text):
            match = _TOKEN.match(text, position)
            if match is None:
                raise _NoArithmeticError
            self._tokens.append((match.lastgroup or "", match[match.lastgroup or 0]))
            position = match.end()

    def read(self) -> Value:
        """The value of the whole text."""
        value = self._sum()
        if self._at < len(self._tokens):
            raise _NoArithmeticError
        return value

    def _peek(self) -> tuple[str, str]:
        return self._tokens[self._at] if self._at < len(self._tokens) else ("", "")

    def _take(self, text: str | None = None) -> str:
        kind, token = self._peek()
        if not kind or (text is not None and token != text):
            raise _NoArithmeticError
        self._at += 1
        return token

    def _sum(self) -> Value:
        self._depth += 1
        if self._depth > DEEPEST:
            raise _NoArithmeticError
        sign = self._take() if self._peek()[1] in ("+", "-") else "+"
        total = self._product()
        total = _times(total, Value(-1.0, Fraction(-1))) if sign == "-" else total
        while self._peek()[1] in ("+", "-"):
            sign = self._take()
            term = self._product()
            total = _plus(total, _times(term, Value(-1.0, Fraction(-1))) if sign == "-" else term)
        self._depth -= 1
        return total

    def _product(self) -> Value:
        product, last, divided = self._power(), self._tokens[self._at - 1][0], False
        while True:
            kind, token = self._peek()
            if kind == "times" or token == "/":
                self._take()
                factor = self._power()
                product = _times(product, _inverse(factor) if token == "/" else factor)
                divided = token == "/"
            elif kind in ("frac", "number") or (divided and (kind in ("root", "pi", "variable") or token == "(")):
                raise _NoArithmeticError  # 1\frac12 may be a mixed number, "1 2" a list, 1/2x either
            elif kind in ("root", "pi", "variable") or (token == "(" and last != "variable"):
                product = _times(product, self._power())
            elif token == "(":
                raise _NoArithmeticError  # a function
            else:
                return product
            last = self._tokens[self._at - 1][0]

    def _power(self) -> Value:
        base = self._atom()
        if self._peek()[1] != "^":
            return base
        self._take("^")
        exponent = self._group() if self._peek()[1] == "{" else self._atom()
        if exponent.exact is None or exponent.exact.denominator != 1 or abs(exponent.exact) > 100:
            raise _NoArithmeticError
        if self._peek()[1] == "^" or (base.exact is not None and abs(base.near) > 1e6):
            raise _NoArithmeticError
        power = int(exponent.exact)
        if base.exact is not None and base.exact.denominator.bit_length() * abs(power) > 2000:
            raise _NoArithmeticError
        return Value(base.near**power, None if base.exact is None else base.exact**power)

    def _group(self) -> Value:
        self._take("{")
        value = self._sum()
        self._take("}")
        return value

    def _argument(self) -> Value:
        r"""Of a command: what is in braces, or one digit; ``\frac12`` is a half."""
        if self._peek()[1] == "{":
            return self._group()
        kind, token = self._peek()
        if kind != "number" or "." in token:
            raise _NoArithmeticError
        if len(token) == 1:
            self._take()
        else:
            self._tokens[self._at] = ("number", token[1:])
        return Value(float(token[0]), Fraction(int(token[0])))

    def _atom(self) -> Value:
        kind, token = self._peek()
        if token == "{":
            return self._group()
        self._take()
        if kind == "number":
            return Value(float(token), Fraction(token))
        if kind == "variable":
            return Value(float(self._point[token]), self._point[token])
        if kind == "pi":
            return Value(math.pi)
        if kind == "frac":
            return _times(self._argument(), _inverse(self._argument()))
        if kind == "root":
            return self._root()
        if token == "(":
            value = self._sum()
            self._take(")")
            return value
        raise _NoArithmeticError

    def _root(self) -> Value:
        if self._peek()[1] == "[":
            raise _NoArithmeticError
        inner = self._argument()
        if inner.near < 0:
            raise _NoArithmeticError
        return Value(math.sqrt(inner.near))


def _plus(first: Value, second: Value) -> Value:
    exact = None if first.exact is None or second.exact is None else first.exact + second.exact
    return Value(first.near + second.near, exact)


def _times(first: Value, second: Value) -> Value:
    exact = None if first.exact is None or second.exact is None else first.exact * second.exact
    return Value(first.near * second.near, exact)


def _inverse(value: Value) -> Value:
    if abs(value.near) < 1e-9:
        raise _NoArithmeticError
    return Value(1 / value.near, None if value.exact is None else 1 / value.exact)
