"""Compare predicted answers with gold answers: by text where that decides, else by math-verify in worker processes."""

import logging
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Lock

from datamodules.answers.hard import too_hard
from datamodules.answers.normal import clean
from datamodules.answers.plain import choice, quick_verdict
from datamodules.answers.process import Worker
from datamodules.answers.quantities import quantity
from datamodules.errors import InputError

_log = logging.getLogger(__name__)

Request = tuple[str, str | None]
"""(gold, predicted); (gold, None) asks whether gold can be read as mathematics."""


class AnswerChecker:
    """Decides whether predicted answers equal gold answers.

    Most pairs are decided by their text. For the rest, math-verify runs in worker processes that start when first
    needed. Some answers would take forever, so a comparison over its time limit is given up; answers that are too hard
    (see `datamodules.answers.hard`) are never tried. Safe to use from any thread and any process.

    Args:
        workers: Number of processes; by default one per core, at most 4.
        time_limit: Processor seconds per comparison.

    Attributes:
        timed_out: Comparisons given up so far: too hard, over the time limit, or because a worker crashed.

    Example:
        >>> with AnswerChecker() as checker:
        ...     checker.check([("1,234", "$1234.00"), ("B", "(B)"), ("12", "13"), ("12", None)])
        [True, True, False, False]
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
        """Check (gold, predicted) pairs. A missing prediction, or a check that was given up, is wrong.

        The order within a pair matters: gold ``1 < x < 2`` accepts ``(1, 2)``, but gold ``(1, 2)`` not ``1 < x < 2``.
        """
        return [bool(verdict) for verdict in self.check_each(pairs)]

    def check_each(self, pairs: Sequence[tuple[str, str | None]]) -> list[bool | None]:
        """Like `check`, but None for a check that was given up."""
        verdicts: dict[tuple[str, str], bool | None] = {}
        for gold, predicted in pairs:
            if predicted is not None and (gold, predicted) not in verdicts:
                verdicts[gold, predicted] = quick_verdict(gold, predicted)
        undecided = sorted(pair for pair, verdict in verdicts.items() if verdict is None)
        verdicts.update(zip(undecided, self._ask(undecided), strict=True))
        return [False if predicted is None else verdicts[gold, predicted] for gold, predicted in pairs]

    def readable(self, golds: Sequence[str]) -> list[bool]:
        """Whether each gold answer is a number, a letter, or anything that math-verify can read."""
        cleaned = {gold: clean(gold) for gold in golds}
        unclear = sorted(gold for gold, text in cleaned.items() if not quantity(text).value and not choice(text))
        said = dict(zip(unclear, self._ask([(gold, None) for gold in unclear]), strict=True))
        return [bool(said.get(gold, True)) and bool(gold.strip()) for gold in golds]

    def check_gold(self, golds: Sequence[str]) -> None:
        """Raise InputError if a gold answer is not `readable`."""
        bad = sorted({gold for gold, fine in zip(golds, self.readable(golds), strict=True) if not fine})
        if bad:
            some = ", ".join(repr(gold[:60]) for gold in bad[:5])
            raise InputError(
                f"gold answers: {len(bad)} cannot be read as a number, a letter or mathematics, among them {some}; "
                "name the field that holds the bare answer, or extract it from a longer text with a pattern"
            )

    def _ask(self, requests: Sequence[Request]) -> list[bool | None]:
        """The workers' replies, in order; None for requests that were given up."""
        said: dict[Request, bool | None] = dict.fromkeys(requests)
        possible = [pair for pair in requests if not any(text is not None and too_hard(text) for text in pair)]
        if not requests:
            return []
        with self._lock:
            said.update(self._share_out(possible))
            given_up = [request for request in requests if said[request] is None]
            self.timed_out += len(given_up)
        if given_up:
            some = "; ".join(f"{predicted!r:.60} against gold {gold!r:.60}" for gold, predicted in given_up[:3])
            _log.warning("no verdict within %g s on %d answers, such as %s", self.time_limit, len(given_up), some)
        return [said[request] for request in requests]

    def _share_out(self, requests: Sequence[Request]) -> Iterator[tuple[Request, bool | None]]:
        """Deal requests out to the workers; yields each with its reply."""
        crowd = self._idle[: len(requests)]
        if not crowd:
            return
        # Neighbours share their gold answer, which a worker caches: it takes short runs of them.
        size = max(1, min(32, len(requests) // len(crowd)))
        runs = iter([requests[i : i + size] for i in range(0, len(requests), size)])
        next_run = Lock()

        def work(worker: Worker) -> Iterator[tuple[Request, bool | None]]:
            while True:
                with next_run:
                    run = next(runs, None)
                if run is None:
                    return
                yield from ((request, worker.ask(request)) for request in run)

        with ThreadPoolExecutor(len(crowd)) as threads:
            for part in threads.map(lambda worker: list(work(worker)), crowd):
                yield from part
