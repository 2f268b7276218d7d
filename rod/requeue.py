"""Jobs of SLURM that put themselves back into the queue."""

import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from lightning.pytorch import Trainer
from lightning.pytorch.plugins.environments import SLURMEnvironment
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from lightning.pytorch.utilities.exceptions import SIGTERMException


@contextmanager
def requeueing(trainer: Trainer) -> Iterator[None]:
    """Let SLURM's requeue signal stop the run within the block as SIGTERM does, and then queue the job again.

    Lightning's own handler saves a checkpoint at once, which may be in the middle of an optimizer step, and one of the
    whole model also where nothing is trained. A handler that stands here already is left alone by it.
    """
    environment = trainer._accelerator_connector.cluster_environment
    if (
        not isinstance(environment, SLURMEnvironment)
        or not environment.auto_requeue
        or environment.requeue_signal is None
        or threading.current_thread() is not threading.main_thread()
    ):
        yield
        return
    asked = False

    def stop(*_: object) -> None:
        nonlocal asked
        asked = True
        if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
            raise SIGTERMException  # nothing has been begun that would have to end in order
        os.kill(os.getpid(), signal.SIGTERM)

    before = signal.signal(environment.requeue_signal, stop)
    try:
        yield
    except SIGTERMException:
        if asked and trainer.is_global_zero:
            _requeue()
        raise
    finally:
        signal.signal(environment.requeue_signal, before)


def _requeue() -> None:
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    job = f"{array}_{task}" if array else os.environ["SLURM_JOB_ID"]
    try:
        subprocess.run(["scontrol", "requeue", job], check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        rank_zero_warn(f"job {job} is not queued again: {error}; submit it again, it goes on by itself")
    else:
        rank_zero_info(f"job {job} is queued again")
