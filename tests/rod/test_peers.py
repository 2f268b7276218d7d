"""A process of a run that dies does not leave the others waiting."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from rod.__main__ import main
from rod.failures import explain_failure
from rod.peers import await_peers, decide, forget_launcher
from tests.conftest import ROOT
from tests.processes import Processes
from tests.rod.fits import fit_config, stop_at

ORPHAN = """
import os, time
from rod.peers import follow_launcher
follow_launcher()
if os.fork() == 0:
    os.environ["LOCAL_RANK"] = "1"
    time.sleep({late})
    follow_launcher()
    time.sleep(60)
os._exit(0)
"""


def test_the_others_end_with_the_first_process_also_if_it_was_gone_before_they_looked() -> None:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    for late in (0, 0.5):
        script = [sys.executable, "-c", ORPHAN.format(late=late)]
        # The pipe is open until the second process has ended.
        done = subprocess.run(script, env=environment, stderr=subprocess.PIPE, text=True, timeout=30)
        assert done.stderr.startswith("rod: error: process 0 of this run, or another, has ended, and process 1 with it")


def test_a_process_that_is_killed_ends_the_run_with_one_line(tmp_path: Path) -> None:
    config = fit_config(tmp_path, stop_at(tmp_path, 3, rank=1, name="SIGKILL"), devices=2, strategy="ddp")
    log = tmp_path / "log.txt"
    both = Processes(main, ["fit", "--config", str(config)], ranks=2, log=log)
    assert both.wait(60) == 1
    assert "rod: error: another process of this run has ended, and process 0 with it" in log.read_text()
    assert "Traceback" not in log.read_text()


def test_what_libraries_say_of_a_lost_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run of one process has lost none: then it is a download, say, that broke off."""
    for said in ("[gloo/transport/tcp/pair.cc:547] Connection closed by peer [127.0.0.1]:1234", "Broken pipe"):
        monkeypatch.delenv("LOCAL_RANK", raising=False)
        assert explain_failure(RuntimeError(said)) is None
        monkeypatch.setenv("LOCAL_RANK", "0")
        status, line = explain_failure(RuntimeError(said)) or (0, "")
        assert status == 1
        assert "has ended" in line
        assert said in line


def test_a_run_that_ends_well_waits_for_processes_that_still_close_their_files() -> None:
    done = threading.Event()
    observer = threading.Thread(target=done.wait)
    vars(observer)["_child_processes"] = [subprocess.Popen([sys.executable, "-c", "import time; time.sleep(0.5)"])]
    observer.start()
    await_peers()
    assert vars(observer)["_child_processes"][0].poll() == 0
    done.set()


def test_processes_launched_later_do_what_the_first_has_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that goes on from a checkpoint which another one, about to end, has deleted meanwhile."""
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    assert decide(lambda: "recovery.ckpt") == "recovery.ckpt"
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert decide(lambda: "done") == "recovery.ckpt"
    monkeypatch.setenv("LOCAL_RANK", "0")
    assert decide(lambda: "done") == "done"
    forget_launcher()
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert decide(lambda: "of torchrun") == "of torchrun"
    forget_launcher()
