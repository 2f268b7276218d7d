"""A command in forked processes, which need not import anything again and so are at work at once. Linux."""

import json
import os
import random
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import SimpleNamespace

from lightning.fabric.utilities.rank_zero import rank_zero_only
from lightning.pytorch.strategies.launchers import subprocess_script as launchers


class ForkedRun:
    """A command in forked processes; the first starts the other, as Lightning does."""

    def __init__(
        self,
        main: Callable[[list[str]], int],
        words: Sequence[str],
        folder: Path,
        log: str,
        *,
        ranks: int = 1,
        limit: int | None = None,
    ) -> None:
        """Start.

        Args:
            main: The command.
            words: What it is given.
            folder: Its working directory.
            log: File there to which its output is added.
            ranks: 1, or 2 processes.
            limit: Bytes that its files may have.
        """
        self.status: int | None = None
        self.several = ranks > 1
        sys.stdout.flush()
        self.process = os.fork()
        if not self.process:
            _enter(main, list(words), folder, log, self.several, limit)

    def wait(self, seconds: float | None = None) -> bool:
        """Wait until it has ended, or for some seconds; whether it has."""
        end = None if seconds is None else time.monotonic() + seconds
        while self.status is None and (end is None or time.monotonic() < end):
            done, status = os.waitpid(self.process, os.WNOHANG)
            if done:
                self.status = os.waitstatus_to_exitcode(status)
            time.sleep(0.005)
        return self.status is not None

    def tell(self, what: int, draw: random.Random) -> None:
        """Send a signal to its process; of several to all, the first or another."""
        choice = draw.randrange(3) if self.several else 0
        others = _children(self.process)[:1] if choice else []
        for process in [*([self.process] if choice < 2 or not others else []), *others]:
            with suppress(ProcessLookupError):
                os.kill(process, what)

    def ends(self, seconds: float) -> bool:
        """Whether all of its processes end within some seconds; those that do not are killed."""
        end = time.monotonic() + seconds
        self.wait(seconds)
        ended = self.status is not None
        while self.several and _session(self.process) and (ended := time.monotonic() < end):
            time.sleep(0.05)
        with suppress(ProcessLookupError):
            os.killpg(self.process, signal.SIGKILL)  # what it has started itself
        self.wait()
        return ended


def _processes() -> Iterator[tuple[int, int, int]]:
    """Process, parent and session of all that are not over."""
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            state, parent, _, session = path.read_text().rpartition(")")[2].split()[:4]
            if state not in "ZX":
                yield int(path.parent.name), int(parent), int(session)


def _session(leader: int) -> list[int]:
    return [process for process, _, session in _processes() if session == leader]


def _children(first: int) -> list[int]:
    return [process for process, parent, _ in _processes() if parent == first]


class _Forked:
    """A forked process as Lightning's observer of processes knows them."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None

    def poll(self) -> int | None:
        if self.returncode is None:
            done, status = os.waitpid(self.pid, os.WNOHANG)
            self.returncode = os.waitstatus_to_exitcode(status) if done else None
        return self.returncode

    def send_signal(self, what: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, what)


def _enter(
    main: Callable[[list[str]], int], words: list[str], folder: Path, log: str, several: bool, limit: int | None
) -> None:
    """The rest of a forked process."""
    status = 1
    try:
        os.setsid()
        os.chdir(folder)
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(output, 1)
        os.dup2(output, 2)
        if limit is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        if several:
            _prepare_second(main, words)
        status = main(words)
    except BaseException:
        traceback.print_exc()
    finally:
        with suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)


def _prepare_second(main: Callable[[list[str]], int], words: list[str]) -> None:
    """Fork the second process now; it begins when Lightning's launcher starts one, with what that gives it.

    A new start of Python would import everything again.
    """
    reading, writing = os.pipe()
    second = os.fork()
    if second:
        os.close(reading)
        vars(launchers)["subprocess"] = SimpleNamespace(Popen=partial(_begin_second, second, writing))
        return
    os.close(writing)
    given = os.read(reading, 2**20)  # ends empty if the first process does, too
    status = 0
    if given:
        os.environ.clear()
        os.environ |= json.loads(given)
        vars(rank_zero_only)["rank"] = int(os.environ["LOCAL_RANK"])  # Lightning reads it when it is imported
        status = main(words)
    os._exit(status)


def _begin_second(second: int, writing: int, command: object, env: dict[str, str], cwd: object = None) -> _Forked:
    with suppress(BrokenPipeError):  # it has been killed before it began
        os.write(writing, json.dumps(env).encode())
    return _Forked(second)
