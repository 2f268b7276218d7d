"""What the other processes of a run do when one of them has ended."""

import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable

_LAUNCHER, _DECISION = "ROD_LAUNCHER", "ROD_DECISION"
_SECONDS = 1.0
_LOST = re.compile(
    r"Connection closed by peer|Connection reset by peer|Broken pipe|Socket closed|recvValue failed"
    r"|remote process exited|Connection was likely closed"
)
"""What gloo, NCCL and the store say of a process that is gone."""


def follow_launcher() -> None:
    """End this process when the one that has launched it ends, if that is process 0 of the run.

    Lightning's process 0 watches those that it has launched; nobody watches process 0, and the others would wait for
    it up to half an hour. Processes that torchrun or SLURM has launched are watched by these.
    """
    launcher = os.environ.get(_LAUNCHER)
    if launcher not in (None, str(os.getpid())) and os.environ.get("LOCAL_RANK", "0") != "0":
        threading.Thread(target=_follow, args=(int(launcher or 0),), daemon=True).start()
    os.environ[_LAUNCHER] = str(os.getpid())


def forget_launcher() -> None:
    """Undo the marks of `follow_launcher` and `decide`, once this process launches no others any more."""
    os.environ.pop(_LAUNCHER, None)
    os.environ.pop(_DECISION, None)


def decide(choose: Callable[[], str]) -> str:
    """What process 0 of the run has chosen; the others, which it launches later, may find the run folder changed.

    Processes that torchrun or SLURM has launched choose each for itself.
    """
    if os.environ.get("LOCAL_RANK", "0") == "0" or _DECISION not in os.environ:
        os.environ[_DECISION] = choose()
    return os.environ[_DECISION]


def _follow(launcher: int) -> None:
    while os.getppid() == launcher:
        time.sleep(_SECONDS)
    print(f"rod: error: {lost_process()}", file=sys.stderr, flush=True)
    os._exit(1)  # a process that waits for another one does nothing else any more


def is_loss(error: BaseException) -> bool:
    """Whether an error says that another process of the run is gone; never in a run of one process."""
    # What launches several processes tells each one its rank.
    several = "LOCAL_RANK" in os.environ or int(os.environ.get("SLURM_NTASKS") or 1) > 1
    return several and isinstance(error, RuntimeError) and bool(_LOST.search(str(error)))


def await_peers(seconds: float = 60.0) -> None:
    """Let the processes that this one has launched end, too: they end if it does, and may still be closing files."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and any(child.poll() is None for child in _launched()):
        time.sleep(0.05)


def _launched() -> list["subprocess.Popen[bytes]"]:
    """The processes that Lightning has launched from this one."""
    return [child for thread in threading.enumerate() for child in getattr(thread, "_child_processes", [])]


def lost_process() -> str:
    """Which process has ended, as far as this one knows, and what to do."""
    rank = os.environ.get("LOCAL_RANK", "0")
    name = "another process of this run" if rank == "0" else "process 0 of this run, or another,"
    ended = [(i + 1, code) for i, child in enumerate(_launched()) if (code := child.poll()) is not None]
    if ended:
        name = f"process {ended[0][0]} of this run"
        name += f" (signal {-ended[0][1]})" if ended[0][1] < 0 else f" (status {ended[0][1]})"
    return (
        f"{name} has ended, and process {rank} with it; what it said stands above or in its log, nothing if it was "
        "killed or had no memory. The same command goes on, a fit with --resume auto"
    )
