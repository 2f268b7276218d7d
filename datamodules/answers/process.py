"""Start and ask a worker process that runs math-verify."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

from datamodules.answers.normal import clean
from datamodules.answers.plain import for_mathematics


class Worker:
    """A process that runs ``worker.py``. It starts with the first request, and again after it has died."""

    def __init__(self, time_limit: float):
        self._time_limit = time_limit
        self._process: subprocess.Popen[str] | None = None

    def ask(self, request: tuple[str, str | None]) -> bool | None:
        """Return the worker's verdict; None if it gave up or died."""
        gold, predicted = request
        line = json.dumps([clean(gold), None] if predicted is None else for_mathematics(gold, predicted))
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
        return {"true\n": True, "false\n": False}.get(verdict)

    def _start(self) -> "subprocess.Popen[str]":
        script = Path(__file__).with_name("worker.py")
        process = subprocess.Popen(
            # -P: do not import from the script's folder.
            [sys.executable, "-P", str(script), str(self._time_limit)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            encoding="utf-8",
            start_new_session=True,  # one process group with its child, so that both are killed together
        )
        assert process.stdout
        greeting = process.stdout.readline().strip()
        if greeting != "ready":
            _kill(process)
            raise RuntimeError(f"the answer-checking worker does not start: {greeting or 'it exited'}")
        return process

    def stop(self) -> None:
        """End the process."""
        if self._process is not None:
            _kill(self._process)
            self._process.communicate()
            self._process = None


def _kill(process: "subprocess.Popen[str]") -> None:
    if hasattr(os, "killpg"):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()
