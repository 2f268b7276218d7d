"""The engine ``vllm`` without vLLM: what is asked of the process, what it answers, and what goes wrong."""

import gc
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
import torch
from torch import Tensor

from datamodules.errors import InputError
from llm_modules.backbone.loading import without_weights
from llm_modules.generation import Completion, GenerationListener, Steered
from llm_modules.generation.remote_steering import RemoteSteering
from llm_modules.generation.vllm_process import FOLDER, visible_devices, vllm_version, worker_environment
from tests.llm_modules.generation.vllm_runs import engine, fake_python


@pytest.fixture
def python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    vllm_version.cache_clear()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))  # of the logs
    return fake_python(tmp_path)


class Recorder(GenerationListener):
    def __init__(self) -> None:
        self.rows: list[int] = []
        self.tokens = 0

    def tokens_generated(self, number: int) -> None:
        self.tokens += number

    def row_finished(self, row: int, completion: Completion) -> None:
        self.rows.append(row)


def test_rows_come_back_in_order_and_are_reported_as_they_end(python: Path) -> None:
    made, recorder = engine(python, slots=2, max_new_tokens=3), Recorder()
    made.listeners.append(recorder)
    prompts = [[9, 10 * row] for row in range(1, 12)]
    found = made.generate(prompts, max_new_tokens=[2] * 10 + [5])
    assert [done.token_ids for done in found[:2]] == [(11, 12), (21, 22)]
    assert (found[-1].n_tokens, found[-1].finish_reason) == (5, "length")
    assert (sorted(recorder.rows), recorder.tokens) == (list(range(11)), 25)
    assert all(done.steered is None for done in found)
    assert made.generate([[1, 0]])[0] == Completion((1, 2), "stop"), "the same process goes on"
    assert made.description == "vllm 0.32.0"
    made.close()


def test_strengths_go_with_each_row(python: Path) -> None:
    made = engine(python, max_new_tokens=2)
    with RemoteSteering(without_weights("miniature"), torch.ones(6, 128), "all") as steering:
        made.listeners.append(steering)
        strengths = torch.zeros(3, 6)
        strengths[1, 2:4] = -0.5
        steering.set_strengths(strengths)
        found = made.generate([[30, 40]] * 3)
    assert [done.steered for done in found] == [Steered(0, 0.0), Steered(2 * 3, 0.25), Steered(0, 0.0)]
    made.close()
    with pytest.raises(InputError, match=r"direction: vectors \(5, 128\) do not fit a model of \(6, 128\)"):
        RemoteSteering(without_weights("miniature"), torch.ones(5, 128), "all")


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("start", r"vLLM failed: ValueError: Model architectures \['Foo'\] are not supported for now.; rows that were"),
        ("kill 2", r"ended by signal 9 \(as the system does .* out of memory\); its last line: the last line"),
        ("memory 2", r"CUDA out of memory.*\(out of memory: lower model.generation.slots, or max_model_len or gpu_mem"),
    ],
)
def test_a_process_that_ends_is_told_with_its_last_words(
    python: Path, monkeypatch: pytest.MonkeyPatch, what: str, message: str
) -> None:
    monkeypatch.setenv("FAKE_VLLM", what)
    made, recorder = engine(python, slots=1, max_new_tokens=2), Recorder()
    made.listeners.append(recorder)
    with pytest.raises(InputError, match=message) as error:
        made.generate([[9, 10]] * 5)
    assert len(recorder.rows) == (0 if what == "start" else 2), "complete rows were handed on"
    log = Path(str(error.value).rpartition("log: ")[2].rstrip(")"))
    assert log.is_file()
    monkeypatch.delenv("FAKE_VLLM")
    assert len(made.generate([[9, 10]] * 5)) == 5, "a new process takes over"
    made.close()


def test_a_request_that_fails_alone_is_counted_and_the_others_go_on(
    python: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_VLLM", "row 1")
    made, recorder = engine(python, slots=1, max_new_tokens=2), Recorder()
    made.listeners.append(recorder)
    with pytest.raises(InputError, match=r"vllm could not complete 1 of 5 rows \(row 1: The prompt is odd.\); the oth"):
        made.generate([[9, 10]] * 5)
    assert sorted(recorder.rows) == [0, 2, 3, 4]
    made.close()


def test_a_listener_may_set_failed_rows_aside(python: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Keeps(GenerationListener):
        def __init__(self) -> None:
            self.failed: dict[int, str] = {}

        def row_failed(self, row: int, reason: str) -> bool:
            self.failed[row] = reason
            return True

    monkeypatch.setenv("FAKE_VLLM", "row 1")
    made, keeps = engine(python, slots=1, max_new_tokens=2), Keeps()
    made.listeners.append(keeps)
    found = made.generate([[9, 10 * row] for row in range(1, 4)])
    assert [done.token_ids for done in found] == [(11, 12), (31, 32)]
    assert keeps.failed == {1: "The prompt is odd."}
    made.close()


def test_a_listener_that_ends_the_call_ends_the_process(python: Path) -> None:
    class Breaks(GenerationListener):
        def row_finished(self, row: int, completion: Completion) -> None:
            raise ValueError("broken")

    made = engine(python, slots=1, max_new_tokens=2)
    made.listeners.append(Breaks())
    with pytest.raises(ValueError, match="broken"):
        made.generate([[9, 10]] * 5)
    assert made._process is None
    assert not list(python.parent.glob("*.log")), "vLLM has not failed"
    made.listeners.clear()
    assert len(made.generate([[9, 10]])) == 1
    made.close()


def test_what_needs_each_pass_is_refused(python: Path) -> None:
    class Watches(GenerationListener):
        def before_forward(self, rows: Tensor) -> None:
            pass

    made = engine(python)
    made.listeners.append(Watches())
    with pytest.raises(InputError, match=r"Watches takes part in each forward pass.*use slots or transformers"):
        made.generate([[9]])
    assert made._process is None


def test_an_environment_without_vllm_is_told_with_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    vllm_version.cache_clear()
    with pytest.raises(InputError, match=r"generation.vllm.python: '.*absent' is no Python interpreter.*'make engine'"):
        engine(tmp_path / "absent")
    empty = tmp_path / "empty"
    empty.write_text("#!/bin/sh\n")
    empty.chmod(0o755)
    with pytest.raises(InputError, match=r"'.*empty' has no vLLM; in a checkout, 'make engine' makes it"):
        engine(empty)
    monkeypatch.setenv("FAKE_VLLM_VERSION", "0.99.1")
    with pytest.warns(UserWarning, match=r"vLLM 0.99.1 is untested here \(tested: 0.32.0\)"):
        assert engine(fake_python(tmp_path)).version == "0.99.1"
    vllm_version.cache_clear()


def test_options_that_the_engine_sets_are_refused(python: Path) -> None:
    with pytest.raises(InputError, match=r"vllm.options: dtype follows from the options of model; leave it out"):
        engine(python, {"dtype": "half"})
    with pytest.raises(InputError, match=r"max_num_seqs follows from model.generation.slots"):
        engine(python, {"max_num_seqs": 3})
    with pytest.raises(InputError, match=r"max_lora_rank follows from the options of model"):
        engine(python, {"max_lora_rank": 8})
    for given in ("32k", -1):
        with pytest.raises(InputError, match=rf"options: max_model_len is '?{given}'?; give a number from 1 on"):
            engine(python, {"max_model_len": given})
    made = engine(python, {"max_model_len": 4})
    with pytest.raises(InputError, match="Prompt 0 of the batch has 5 tokens, but the model has 4"):
        made.generate([[9] * 5])


def test_each_process_of_a_machine_gets_its_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5,6,7")
    assert [visible_devices(index, 2) for index in (0, 1)] == ["4,5", "6,7"]
    with pytest.raises(InputError, match=r"3 processes of 2 devices each need 6, and this machine has 4"):
        visible_devices(2, 2)


def test_no_process_is_left(python: Path) -> None:
    made = engine(python, max_new_tokens=1)
    made.generate([[9]])
    assert made._process is not None
    process, log = made._process._process, made._process.log
    made.close()
    assert process.poll() == 0
    assert not os.path.exists(log)


def test_a_process_ends_with_its_model_and_leaves_nothing_under_it(
    python: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_VLLM", "child")
    made = engine(python, max_new_tokens=1)
    made.generate([[9]])
    assert made._process is not None
    process, log = made._process._process, made._process.log
    child = int(log.read_text().rpartition("child ")[2])
    os.kill(child, 0)
    del made  # as after an exception, when Lightning calls no teardown
    gc.collect()
    assert process.poll() == -9
    assert not log.exists()
    assert is_gone(child)


def is_gone(pid: int) -> bool:
    """Whether a process has ended; nobody may have waited for it."""
    for _ in range(100):
        stat = Path(f"/proc/{pid}/stat")
        if not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] == "Z":
            return True
        time.sleep(0.02)
    return False


def test_a_launcher_does_not_place_the_processes_of_vllm(monkeypatch: pytest.MonkeyPatch) -> None:
    launched = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_PORT", "TORCHELASTIC_RUN_ID")
    for name in launched:
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "1")
    found = worker_environment({"CUDA_VISIBLE_DEVICES": "3"})
    assert not found.keys() & set(launched)
    assert (found["VLLM_CPU_KVCACHE_SPACE"], found["CUDA_VISIBLE_DEVICES"]) == ("1", "3")
    assert found["HOME"] == os.environ["HOME"]


def test_a_message_that_is_no_json_ends_the_worker() -> None:
    run = subprocess.run([sys.executable, FOLDER], input='{"row\n', text=True, timeout=20, capture_output=True)
    assert run.returncode == 0
    assert "a message that is no JSON" in run.stderr
