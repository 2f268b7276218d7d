"""Worker script that runs math-verify for `datamodules.answers.checker`. It imports nothing from the project.

Its argument is the time limit in seconds. It prints ``ready`` (or the reason why it cannot start), then answers each
line of standard input, a JSON list ``[gold, predicted]``, with ``true``, ``false``, or ``null`` if it gives up.
``[gold, null]`` asks whether gold can be read as mathematics.

Python cannot interrupt a computation inside sympy. A forked child therefore does the work, and the operating system
kills it when it has used up its own processor time, so that a busy machine changes no verdict. The parent has already
done the slow import; it prints ``null`` and forks the next child in milliseconds. A child outlives its parent by one
answer at most. On systems without fork the process itself does the work, and exits at the limit.
"""

import contextlib
import faulthandler
import json
import logging
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sympy import Basic

MEMORY_LIMIT = 4 * 1024**3
"""Bytes of address space. Towers of powers fill a machine's memory before they reach the time limit."""
ROUNDED = 1e-4
"""Largest relative difference between a number and a decimal that has six equal places."""
USUAL = ("x^2 - 3x + \\frac{1}{2}", "(1, -2)", "2\\sqrt{3}", "[0, \\infty)", "x = 5", "1, 2", "18 \\text{ cm}")
"""Typical answers, read once to warm the parser up."""
WALL_FACTOR = 20
"""Wall-clock limit as a multiple of the processor limit, for an answer that waits instead of working."""


def main(time_limit: float) -> None:
    """Answer requests until standard input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which shuts its workers down
    replies = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    try:
        verdict_on = _mathematics()
    except ImportError as error:
        print(error, file=replies, flush=True)
        return
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_LIMIT, MEMORY_LIMIT))

    def serve(parent: int | None) -> None:
        while line := sys.stdin.readline():  # one request at a time, so a killed child loses no other request
            if parent is not None and os.getppid() != parent:
                return
            _start_timer(time_limit, nowhere)
            try:
                verdict: bool | None = verdict_on(*json.loads(line))
            except MemoryError:
                verdict = None
            _stop_timer()
            print(json.dumps(verdict), file=replies, flush=True)

    print("ready", file=replies, flush=True)
    if not hasattr(os, "fork"):
        serve(None)
        return
    parent = os.getpid()
    while True:
        child = os.fork()
        if child == 0:
            serve(parent)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if status == 0:
            return
        print("null", file=replies, flush=True)


def _start_timer(time_limit: float, nowhere: int) -> None:
    """Kill this process at its processor limit, or at the much longer wall-clock limit."""
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_PROF, time_limit)  # SIGPROF kills a process that does not handle it
        faulthandler.dump_traceback_later(WALL_FACTOR * time_limit, exit=True, file=nowhere)
    else:
        faulthandler.dump_traceback_later(time_limit, exit=True, file=nowhere)


def _stop_timer() -> None:
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_PROF, 0)
    faulthandler.cancel_dump_traceback_later()


def _mathematics() -> Callable[[str, str | None], bool]:
    """The function that decides on (gold, predicted). ImportError if math-verify is missing."""
    from math_verify import LatexExtractionConfig, grader, parse, verify

    logging.disable(logging.CRITICAL)
    grader.sympy_numeric_eq = _relative(grader.sympy_numeric_eq)
    latex = LatexExtractionConfig()
    unitless = LatexExtractionConfig(normalization_config=replace(latex.normalization_config, units=False))

    @lru_cache(maxsize=4096)  # answers to one question repeat, and parsing takes most of the time
    def read(text: str) -> list:
        """Parse the whole text into a sympy expression; only the text itself if it cannot be parsed.

        math-verify would go on to take the last number of such a text for its value.
        """
        found = parse(f"\\boxed{{{text}}}", [latex], parsing_timeout=None)
        if not _is_read(found):
            # math-verify takes the last letter of "b + c" for a unit, removes it and fails on the rest.
            found = parse(f"\\boxed{{{text}}}", [unitless], parsing_timeout=None)
        return [expression if isinstance(expression, str) else _with_imaginary_unit(expression) for expression in found]

    def verdict_on(gold: str, predicted: str | None) -> bool:
        if predicted is None:  # what is compared as text has a number at least
            return _is_read(read(gold)) or _is_read(parse(f"\\boxed{{{gold}}}", parsing_timeout=None))
        first, second = read(gold), read(predicted)
        if not _is_read(first + second):
            return "".join(gold.split()) == "".join(predicted.split())
        return bool(verify(first, second, timeout_seconds=None))

    for usual in USUAL:  # fills the parser's caches before the fork, for every child
        read(usual)
    return verdict_on


def _is_read(found: list) -> bool:
    """Whether math-verify found an expression, not only text."""
    return any(not isinstance(expression, str) for expression in found)


def _with_imaginary_unit(expression: "Basic") -> "Basic":
    """The expression with the imaginary unit for a free i.

    math-verify makes it a symbol, a real one in "2i" and another that is not real in "2 i".
    """
    from sympy import I, Symbol

    symbols = [symbol for symbol in expression.free_symbols if isinstance(symbol, Symbol)]
    if all(symbol.name != "i" for symbol in symbols):
        return expression
    units = {symbol: I if symbol.name == "i" else Symbol(symbol.name) for symbol in symbols}
    try:
        return expression.xreplace(units)
    except (TypeError, ValueError):  # an interval or a relation, whose ends are real
        return expression.xreplace({symbol: Symbol(symbol.name, real=True) for symbol in symbols})


def _relative(absolute: Callable[..., bool]) -> Callable[..., bool]:
    """math-verify's numerical comparison, which takes all numbers below about 1e-15 for zero, made relative.

    What it calls equal must also have a difference that is zero, or, beside a rounded decimal, small.
    """
    from sympy import Basic, Float

    def equal(first: Basic, second: Basic, *places: int) -> bool:
        if not absolute(first, second, *places):
            return False
        if not isinstance(first, Basic) or not isinstance(second, Basic):
            return True  # matrices are compared element by element, by this function
        try:
            difference = (first - second).doit()
            if difference.free_symbols:
                terms = difference.expand().as_coefficients_dict()
                return all(_is_zero(coefficient) for coefficient in terms.values())
            if not (first.has(Float) or second.has(Float)):
                return _is_zero(difference)
            size = max(abs(first.evalf()), abs(second.evalf()))
            return bool(abs(difference.evalf()) <= ROUNDED * size)
        except (ArithmeticError, AttributeError, TypeError, ValueError):
            return True

    return equal


def _is_zero(number: "Basic") -> bool:
    """Whether an exact number is zero, or cannot be told from it with a hundred digits."""
    if number.is_Rational:
        return bool(number == 0)
    parts = number.evalf(15).as_real_imag()
    return all(part == 0 or getattr(part, "_prec", 53) == 1 for part in parts)


if __name__ == "__main__":
    main(float(sys.argv[1]))
