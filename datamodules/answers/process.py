"""One process that runs math-verify, seen from the process that asks it."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

from datamodules.answers.plain import tidy


class Worker:
    """One process of ``answer_worker.py``, started when first asked and again after it ended."""

    def __init__(self, time_limit: float):
        self._time_limit = time_limit
        self._process: subprocess.Popen[str] | None = None

    def ask(self, request: tuple[str, str | None]) -> bool | None:
        """The worker's verdict, or None if it gave up or ended without one."""
        gold, predicted = request
        line = json.dumps([tidy(gold), None if predicted is None else tidy(predicted)])
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
            # -P: the folder of the script is not for importing from.
            [sys.executable, "-P", str(script), str(self._time_limit)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            encoding="utf-8",
            start_new_session=True,  # with its child one group, to be ended together
        )
        assert process.stdout
        greeting = process.stdout.readline().strip()
        if greeting != "ready":
            _kill(process)
            raise RuntimeError(f"the process that checks answers does not start: {greeting or 'it ended'}")
        return process

    def stop(self) -> None:
        """End the process, if there is one."""
        if self._process is not None:
            _kill(self._process)
            self._process.communicate()
            self._process = None


def _kill(process: "subprocess.Popen[str]") -> None:
    """End a process and its children."""
    if hasattr(os, "killpg"):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()
