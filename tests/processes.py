"""Processes of their own for tests: forked from one that has imported torch and Lightning, so that a start is cheap.

Torch and Lightning take seconds to import. The server imports them once for each worker of pytest; what it forks has
none of the worker's state.
"""

import atexit
import multiprocessing
import os
import socket
import sys
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(
    ["rod.cli", "peft", "transformers.models.llama.modeling_llama", "tests.callbacks.evaluation.evaluation_run"]
)


class Processes:
    """A function in one process, or in several that Lightning takes for the ranks of one run."""

    def __init__(self, function: Callable[..., Any], *args: Any, ranks: int = 1, log: Path, cwd: Path = ROOT) -> None:
        """Start.

        Args:
            function: A function of a module; what it returns is the exit status.
            args: Its arguments.
            ranks: Number of processes.
            log: File that their output is added to.
            cwd: Their working directory.
        """
        self.log = log
        self._all: list[BaseProcess] = []
        port = _free_port()
        for rank in range(ranks):
            environment = dict(os.environ)
            if ranks > 1:
                environment |= {"LOCAL_RANK": str(rank), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
            process = _CONTEXT.Process(target=_enter, args=(function, args, environment, rank, log, cwd), daemon=False)
            process.start()
            self._all.append(process)

    def running(self) -> bool:
        """Whether any of them is."""
        return any(process.is_alive() for process in self._all)

    def kill(self) -> None:
        """End all of them at once, as a lack of power would."""
        for process in self._all:
            process.kill()
        for process in self._all:
            process.join()

    def wait(self, timeout: float = 200) -> int:
        """The first exit status that is not 0; after ``timeout`` seconds they are killed, and that is one."""
        for process in self._all:
            process.join(timeout)
        self.kill()
        return next((process.exitcode for process in self._all if process.exitcode), 0)

    def succeed(self) -> None:
        """Wait, and fail with the end of the log if one of them has failed."""
        status = self.wait()
        assert status == 0, f"{status}: {self.log.read_text()[-4000:]}"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _enter(
    function: Callable[..., Any],
    args: tuple[Any, ...],
    environment: dict[str, str],
    rank: int,
    log: Path,
    cwd: Path,
) -> None:
    from lightning.fabric.utilities.rank_zero import rank_zero_only

    vars(rank_zero_only)["rank"] = rank  # Lightning reads it when it is imported
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(cwd)
    with log.open("ab") as file:
        for output in (1, 2):
            os.dup2(file.fileno(), output)
    try:
        status = function(*args)
    finally:
        sys.stdout.flush()
        atexit._run_exitfuncs()  # multiprocessing leaves them out
    sys.exit(status)
