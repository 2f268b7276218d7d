"""Cutting answers out of completions, and deciding whether they are right."""

import json
import logging
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path
from threading import Lock

from datamodules.errors import InputError

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


_WRAPPED = re.compile(
    r"\$([^$]*)\$|\\\((.*)\\\)|\*\*([^*]*)\*\*|\\(?:text|textbf|textit|textrm|mathrm|mathbf|mbox)\s*\{([^{}]*)\}",
    re.DOTALL,
)
_CHOICE = re.compile(r"\(?([A-Z])\)?[.:)]?|\(([A-Z])\)\s.*|([A-Z])[.:)]\s.*", re.DOTALL)
_NUMBER = re.compile(r"([+-]?)(\d{1,3}(?:,\d{3})+|\d+|(?=\.\d))(\.\d*)?")
_LOOK_ONLY = re.compile(r"\\left(?![a-zA-Z])|\\right(?![a-zA-Z])|\\[!,;: ]|(?<=\\)[dt](?=frac)|\s+(?=\W)|(?<=\W)\s+")


def quick_verdict(gold: str, predicted: str) -> bool | None:
    r"""Whether two answers are equal, where plain text decides it: numbers, letters of multiple choice, equal texts.

    A gold answer that is one capital letter is a choice: ``A``, ``(A)``, ``A.``, ``A: 12 cm``, ``\text{A}`` are equal.
    Numbers are compared exactly, without their ``$``, ``%``, thousands commas and trailing ``.0``.

    Returns:
        None if it takes mathematics to decide.
    """
    gold, predicted = _unwrap(gold), _unwrap(predicted)
    if choice := _choice(gold):
        return _choice(predicted) == choice
    first, second = _number(gold), _number(predicted)
    if first is not None and second is not None:
        if first[0] == second[0]:
            return True
        return False if first[1] == second[1] else None  # 50 % and 0.5
    return True if _LOOK_ONLY.sub("", gold) == _LOOK_ONLY.sub("", predicted) else None


def _unwrap(text: str) -> str:
    """The text without the mark-up round it."""
    text = _tidy(text)
    for _ in range(4):  # deeper ones are no answers, and would take long
        if (match := _WRAPPED.fullmatch(text)) is None:
            break
        text = next(group for group in match.groups() if group is not None).strip()
    return text


def _tidy(text: str) -> str:
    """The text without punctuation at its end and without marked thousands commas; math-verify cannot read them."""
    text = text.strip()
    if text[-1:] in (".", ",", ";") and text[-2:-1] != "\\":
        text = text[:-1].rstrip()
    return text.replace(",\\!", "").replace("{,}", "").replace("\\!", "")


def _choice(text: str) -> str | None:
    match = _CHOICE.fullmatch(text)
    return next(group for group in match.groups() if group) if match else None


def _number(text: str) -> tuple[Decimal, bool] | None:
    """The value of a plain number as written, and whether a percent sign follows it."""
    plain = text.replace("\\$", "").replace("$", "").replace("−", "-")
    bare = plain.removesuffix("%").removesuffix("\\").strip()
    match = _NUMBER.fullmatch(bare)
    if match is None:
        return None
    sign, whole, fraction = match.groups()
    return Decimal(sign + (whole.replace(",", "") or "0") + (fraction or "")), plain.endswith("%")


class AnswerChecker:
    """Decides whether predicted answers equal gold ones: by text where that is enough, else by math-verify.

    math-verify runs in worker processes, started when first needed, because some answers take forever: a worker over
    its time limit is ended and replaced, and its answer counts as wrong. May be used from any thread and any process.

    Args:
        workers: Processes; by default one a core, at most 4.
        time_limit: Seconds for one comparison.

    Attributes:
        timed_out: Comparisons so far that were given up, at the time limit or because a worker crashed.
    """

    def __init__(self, workers: int | None = None, time_limit: float = 5.0):
        self.time_limit = time_limit
        self.timed_out = 0
        self._idle = [_Worker(time_limit) for _ in range(workers or min(4, os.cpu_count() or 1))]
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
        """Whether each (gold, predicted) is a right answer, in order. A missing prediction is wrong.

        The order within a pair matters: gold ``1 < x < 2`` accepts the interval ``(1, 2)``, not the other way round.
        """
        verdicts: dict[tuple[str, str], bool | None] = {}
        for gold, predicted in pairs:
            if predicted is not None and (gold, predicted) not in verdicts:
                verdicts[gold, predicted] = quick_verdict(gold, predicted)
        undecided = sorted(pair for pair, verdict in verdicts.items() if verdict is None)
        verdicts.update(zip(undecided, self._ask(undecided), strict=True))
        return [predicted is not None and bool(verdicts[gold, predicted]) for gold, predicted in pairs]

    def check_gold(self, golds: Sequence[str]) -> None:
        """Raise InputError if a gold answer is neither a number, a letter nor anything math-verify can read."""
        unclear = sorted({gold for gold in golds if _number(_unwrap(gold)) is None and _choice(_unwrap(gold)) is None})
        readable = self._ask([(gold, None) for gold in unclear])
        bad = [gold for gold, fine in zip(unclear, readable, strict=True) if not (fine and gold.strip())]
        if bad:
            some = ", ".join(repr(gold[:60]) for gold in bad[:5])
            raise InputError(
                f"gold answers: {len(bad)} cannot be read as a number, a letter or mathematics, among them {some}; "
                "name the field that holds the bare answer, and cut it out with a pattern if it stands in a text"
            )

    def _ask(self, requests: Sequence[tuple[str, str | None]]) -> list[bool]:
        """What the workers say to each request, in order; False where one had to be given up."""
        if not requests:
            return []
        with self._lock:
            crowd = self._idle[: len(requests)]
            # Neighbours share their gold answer: each worker takes short runs of them.
            size = max(1, min(32, len(requests) // len(crowd)))
            runs = iter([requests[i : i + size] for i in range(0, len(requests), size)])
            next_run = Lock()

            def work(worker: _Worker) -> Iterator[tuple[tuple[str, str | None], bool | None]]:
                while True:
                    with next_run:
                        run = next(runs, None)
                    if run is None:
                        return
                    yield from ((request, worker.ask(request)) for request in run)

            with ThreadPoolExecutor(len(crowd)) as threads:
                said = dict(pair for part in threads.map(lambda worker: list(work(worker)), crowd) for pair in part)
            given_up = [request for request in requests if said[request] is None]
            self.timed_out += len(given_up)
        for gold, predicted in given_up:
            _log.warning("no verdict within %g s on %.80r against gold %.80r", self.time_limit, predicted, gold)
        return [bool(said[request]) for request in requests]


class _Worker:
    """One process of ``answer_worker.py``, started when first asked and again after it ended."""

    def __init__(self, time_limit: float):
        self._time_limit = time_limit
        self._process: subprocess.Popen[str] | None = None

    def ask(self, request: tuple[str, str | None]) -> bool | None:
        """The worker's verdict, or None if it ended without one."""
        gold, predicted = request
        line = json.dumps([_tidy(gold), None if predicted is None else _tidy(predicted)])
        process = self._process = self._process or self._start()
        assert process.stdin
        assert process.stdout
        try:
            process.stdin.write(line + "\n")
            process.stdin.flush()
            verdict = process.stdout.readline()
        except BrokenPipeError:
            verdict = ""
        if not verdict.endswith("\n"):
            self.stop()
            return None
        return verdict == "true\n"

    def _start(self) -> "subprocess.Popen[str]":
        script = Path(__file__).with_name("answer_worker.py")
        process = subprocess.Popen(
            # -P: the folder of the script is not for importing from.
            [sys.executable, "-P", str(script), str(self._time_limit)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            encoding="utf-8",
        )
        assert process.stdout
        greeting = process.stdout.readline().strip()
        if greeting != "ready":
            process.kill()
            raise RuntimeError(f"the process that checks answers does not start: {greeting or 'it ended'}")
        return process

    def stop(self) -> None:
        """End the process, if there is one."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None
