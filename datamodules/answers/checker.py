"""Cutting answers out of completions, and deciding whether they are right."""

import logging
import os
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Lock

from datamodules.answers.plain import LONGEST, choice, number, quick_verdict, unwrap
from datamodules.answers.process import Worker
from datamodules.errors import InputError

__all__ = ["AnswerChecker", "extract_boxed", "quick_verdict"]

_log = logging.getLogger(__name__)

_BOX_TOKENS = re.compile(r"(?P<box>\\{1,2}(?:boxed|fbox)\s*\{)|\\.|[{}]", re.DOTALL)


def extract_boxed(text: str) -> str | None:
    r"""What stands in the last balanced ``\boxed{}`` or ``\fbox{}``; None if there is none, or only empty ones.

    Of nested boxes the inner one counts. Escaped braces are text. One pass, linear in the length of ``text``.
    """
    open_braces: list[tuple[bool, int]] = []  # (is a box, where its content starts)
    last = (-1, -1)
    for token in _BOX_TOKENS.finditer(text):
        if token["box"] or token[0] == "{":
            open_braces.append((token["box"] is not None, token.end()))
        elif token[0] == "}" and open_braces:
            is_box, start = open_braces.pop()
            if is_box and start > last[0] and text[start : token.start()].strip():
                last = (start, token.start())
    return text[last[0] : last[1]].strip() if last[0] >= 0 else None


class AnswerChecker:
    """Decides whether predicted answers equal gold ones: by text where that is enough, else by math-verify.

    math-verify runs in worker processes, started when first needed, because some answers take forever: a comparison
    over its time limit is given up. Answers that are too long, too deep or too large (see `hard_answers`) are given up
    untried, unless their text decides. May be used from any thread and any process.

    Args:
        workers: Processes; by default one a core, at most 4.
        time_limit: Seconds of processor time for one comparison.

    Attributes:
        timed_out: Comparisons so far that were given up: untried, at the time limit, or because a worker crashed.
    """

    def __init__(self, workers: int | None = None, time_limit: float = 1.0):
        self.time_limit = time_limit
        self.timed_out = 0
        self._idle = [Worker(time_limit) for _ in range(workers or min(4, os.cpu_count() or 1))]
        self._lock = Lock()

    def __enter__(self) -> "AnswerChecker":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """End the worker processes; a later check starts new ones."""
        with self._lock:
            for worker in self._idle:
                worker.stop()

    def check(self, pairs: Sequence[tuple[str, str | None]]) -> list[bool]:
        """Whether each (gold, predicted) is a right answer, in order. No prediction, or no verdict, is wrong.

        The order within a pair matters: gold ``1 < x < 2`` accepts the interval ``(1, 2)``, not the other way round.
        """
        return [bool(verdict) for verdict in self.check_each(pairs)]

    def check_each(self, pairs: Sequence[tuple[str, str | None]]) -> list[bool | None]:
        """As `check`, but None where the comparison was given up. A missing prediction is False."""
        verdicts: dict[tuple[str, str], bool | None] = {}
        for gold, predicted in pairs:
            if predicted is not None and (gold, predicted) not in verdicts:
                verdicts[gold, predicted] = quick_verdict(gold, predicted)
        undecided = sorted(pair for pair, verdict in verdicts.items() if verdict is None)
        verdicts.update(zip(undecided, self._ask(undecided), strict=True))
        return [False if predicted is None else verdicts[gold, predicted] for gold, predicted in pairs]

    def readable(self, golds: Sequence[str]) -> list[bool]:
        """Whether each gold answer is a number, a letter or anything that math-verify can read."""
        unclear = sorted({gold for gold in golds if number(unwrap(gold)) is None and choice(unwrap(gold)) is None})
        said = dict(zip(unclear, self._ask([(gold, None) for gold in unclear]), strict=True))
        return [bool(said.get(gold, True)) and bool(gold.strip()) for gold in golds]

    def check_gold(self, golds: Sequence[str]) -> None:
        """Raise InputError if a gold answer is neither a number, a letter nor anything math-verify can read."""
        bad = sorted({gold for gold, fine in zip(golds, self.readable(golds), strict=True) if not fine})
        if bad:
            some = ", ".join(repr(gold[:60]) for gold in bad[:5])
            raise InputError(
                f"gold answers: {len(bad)} cannot be read as a number, a letter or mathematics, among them {some}; "
                "name the field that holds the bare answer, and cut it out with a pattern if it stands in a text"
            )

    def _ask(self, requests: Sequence[tuple[str, str | None]]) -> list[bool | None]:
        """What the workers say to each request, in order; None where one had to be given up."""
        said: dict[tuple[str, str | None], bool | None] = dict.fromkeys(requests)
        possible = [pair for pair in requests if not any(text is not None and too_hard(text) for text in pair)]
        if not requests:
            return []
        with self._lock:
            said.update(self._share_out(possible))
            given_up = [request for request in requests if said[request] is None]
            self.timed_out += len(given_up)
        if given_up:
            some = "; ".join(f"{predicted!r:.60} against gold {gold!r:.60}" for gold, predicted in given_up[:3])
            _log.warning("no verdict within %g s on %d answers, as %s", self.time_limit, len(given_up), some)
        return [said[request] for request in requests]

    def _share_out(
        self, requests: Sequence[tuple[str, str | None]]
    ) -> Iterator[tuple[tuple[str, str | None], bool | None]]:
        """Requests with what a worker says to them."""
        crowd = self._idle[: len(requests)]
        if not crowd:
            return
        # Neighbours share their gold answer: each worker takes short runs of them.
        size = max(1, min(32, len(requests) // len(crowd)))
        runs = iter([requests[i : i + size] for i in range(0, len(requests), size)])
        next_run = Lock()

        def work(worker: Worker) -> Iterator[tuple[tuple[str, str | None], bool | None]]:
            while True:
                with next_run:
                    run = next(runs, None)
                if run is None:
                    return
                yield from ((request, worker.ask(request)) for request in run)

        with ThreadPoolExecutor(len(crowd)) as threads:
            for part in threads.map(lambda worker: list(work(worker)), crowd):
                yield from part


DEEPEST = 12
"""Brackets within brackets. The deepest of 9,832 published answers has 5; each level doubles the time of the parser."""


LARGEST_EXPONENT = 10_000
"""A power of ten with it still takes milliseconds."""


MOST_DIGITS = 1000


_POWER = r"\s{0,3}(?:\^|\*\*)[\s{(]{0,9}"


_TOWER = re.compile(rf"\d{{1,9}}[\s)}}]{{0,9}}(?:{_POWER}-?\d{{1,{MOST_DIGITS}}}[\s)}}]{{0,9}})+")


_FACTORIAL = re.compile(r"\d{6,}\s?!|!\s?\)?\s?!|\\binom\s?\{?\s?\d{6,}")


def too_hard(text: str) -> bool:
    """Whether an answer is not worth trying. Linear in its length."""
    return (
        len(text) > LONGEST
        or _depth(text) > DEEPEST
        or re.search(rf"\d{{{MOST_DIGITS},}}", text) is not None
        or _FACTORIAL.search(text) is not None
        or any(_too_large(match[0]) for match in _TOWER.finditer(text))
    )


def _depth(text: str) -> int:
    depth = deepest = 0
    for sign in text:
        if sign in "({[":
            depth += 1
            deepest = max(deepest, depth)
        elif sign in ")}]":
            depth -= 1
    return deepest


def _too_large(tower: str) -> bool:
    """Whether the exponent of a number, as in ``9^{9^9}``, is too large to work the power out."""
    base, *steps = [int(digits[:50]) for digits in re.findall(r"\d+", tower)]
    exponent = steps.pop()
    for step in reversed(steps):
        if step > 1 and exponent > 40:
            return True
        exponent = step**exponent if step > 1 else step
    return base > 1 and exponent > LARGEST_EXPONENT
