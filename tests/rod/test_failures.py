"""What goes wrong in the machine or in the input is one line, and the same command goes on afterwards."""

import errno
import json
import resource
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

import pytest

from datamodules.errors import InputError
from datamodules.records.kinds import Question
from datamodules.records.shards import JsonlShard
from datamodules.writing import filling, replacing
from rod.__main__ import main
from rod.failures import explain_failure
from tests.conftest import ROOT
from tests.processes import Processes
from tests.rod.fits import fit_config, rod


def main_with_files_of(n: int, words: list[str]) -> int:
    """The command, whose files may have ``n`` bytes: what comes after is refused, as on a full disk."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (n, n))
    return main(words)


def limited(tmp_path: Path, n: int, *words: object) -> tuple[int, str]:
    """Run the command with files of at most ``n`` bytes; its status and the last line that it says."""
    log = tmp_path / "log.txt"
    log.unlink(missing_ok=True)
    status = Processes(main_with_files_of, n, [str(word) for word in words], log=log).wait()
    said = log.read_text()
    assert "Traceback" not in said
    return status, said.splitlines()[-1]


@pytest.mark.slow
def test_a_full_disk_while_a_checkpoint_and_an_export_are_written(tmp_path: Path) -> None:
    config = fit_config(tmp_path)
    status, said = limited(tmp_path, 12_000, "fit", "--config", config)
    checkpoint = tmp_path / "run/checkpoints/end.ckpt"
    assert status == 1
    assert said.startswith(
        f"rod: error: no space is left on the device while writing '{checkpoint}'; free some and run the"
    )
    assert list((tmp_path / "run" / "checkpoints").iterdir()) == []
    assert rod("fit", "--config", config, "--resume", "auto") == 0

    words = ["export", "--checkpoint", checkpoint, "--output", tmp_path / "model"]
    status, said = limited(tmp_path, 9_000, *words)
    assert status == 1
    assert f"rod: error: no space is left on the device while writing '{tmp_path / 'model'}'; free" in said
    assert not [path for path in tmp_path.iterdir() if "model" in path.name]
    assert rod(*words) == 0


@pytest.mark.slow
def test_a_full_disk_while_traces_are_written(tmp_path: Path) -> None:
    questions = tmp_path / "questions.jsonl"
    lines = [{"id": str(n), "question": f"{n} + 1? " + "a b c " * 40, "gold": str(n + 1)} for n in range(40)]
    questions.write_text("".join(json.dumps(line) + "\n" for line in lines))
    words = ["predict", "--config", "s3cot/3_sample", "--steer", "null", "--data.questions", questions]
    words += ["--data.alphas", "[0]", "--model.generation.max_new_tokens", 4]
    status, said = limited(tmp_path, 20_000, *words, "--trainer.default_root_dir", tmp_path / "run")
    shard = tmp_path / "run/traces/traces.rank0.jsonl"
    assert (status, f"while writing '{shard}'" in said) == (1, True)
    assert 0 < len(shard.read_text().splitlines()) < 40
    for name in ("run", "whole"):
        assert rod(*words, "--trainer.default_root_dir", tmp_path / name) == 0
    once, whole = (tmp_path / name / "traces/traces.jsonl" for name in ("run", "whole"))
    assert once.read_bytes() == whole.read_bytes()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["--trainer.strategy", "deepspeed_stage_2"],
            "trainer: To use the `DeepSpeedStrategy`, you must",
        ),
        (
            ["--trainer.devices", "0"],
            "trainer: `Trainer(devices='0')` value is not a valid input",
        ),
        (["--trainer.devices", "9999"], "trainer.devices: 9999 processes on the CPU, which has "),
        (["--trainer.barebones", "true"], "trainer: `Trainer(barebones=True, "),
        (["--trainer.accumulate_grad_batches", "0"], "trainer.accumulate_grad_batches: must be at least 1, not 0"),
        (["--trainer.check_val_every_n_epoch", "0"], "trainer.check_val_every_n_epoch: must be at least 1, not 0"),
        (["--trainer.max_epochs", "0"], "trainer.max_epochs: 0 trains nothing, and no checkpoint would be kept"),
        (["--trainer.max_steps", "0"], "trainer.max_steps: 0 trains nothing, and no checkpoint would be kept"),
        (["--ckpt_path", "best"], 'trainer: `.fit(ckpt_path="best")` is set but `ModelCheckpoint` is not'),
        (["--ckpt_path", "last"], "run' has no checkpoint called last; give its file"),
        (
            [
                "--trainer.plugins",
                "[{class_path: lightning.pytorch.plugins.precision.TransformerEnginePrecision, "
                "init_args: {weights_dtype: torch.float32}}]",
            ],
            "trainer: Requirement 'transformer_engine",
        ),
        (["--seed_everything", "-1"], "trainer: -1 is not in bounds"),
        (["--model.optimizer.lr", ".nan"], "model.optimizer: Invalid learning rate: nan"),
        (["--trainer.logger", "MLFlowLogger"], "trainer: Requirement 'mlflow>=1.0.0' not met"),
        (["--ckpt_path", "BASE"], "BASE' is a folder and no checkpoint; give it as model.backbone"),
        (["--ckpt_path", "BASE/model.safetensors"], "BASE/model.safetensors' is cut, damaged or no checkpoint"),
        (["--trainer.default_root_dir", "BASE/config.json/run"], "BASE/config.json/run'"),
    ],
)
def test_what_the_trainer_cannot_do(
    words: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = fit_config(tmp_path)
    words, said = ([word.replace("BASE", str(tmp_path / "base")) for word in words], said.replace("BASE", "base"))
    assert main(["fit", "--config", str(config), *words]) in (1, 2)
    error = [line for line in capsys.readouterr().err.splitlines() if line.startswith("rod: error: ")]
    assert len(error) == 1
    assert said in error[0]


def test_a_text_that_is_not_utf_8_is_named(tmp_path: Path) -> None:
    path = tmp_path / "refusals.txt"
    path.write_bytes("Non, désolé.\n".encode("latin-1"))
    with pytest.raises(UnicodeDecodeError) as raised:
        path.read_text(encoding="utf-8")
    status, said = explain_failure(raised.value) or (0, "")
    assert status == 2
    assert said.startswith(f"error: '{path}' is not UTF-8")


def fail(error: Exception) -> NoReturn:
    raise error


def raised_in_a_handler(handled: Exception, cause: bool = False) -> BaseException:
    """A bug that comes up while another error is handled, or is raised from it."""
    bug = RuntimeError("ours")
    try:
        try:
            raise handled
        except Exception as error:
            if cause:
                raise bug from error
            fail(bug)
    except RuntimeError as error:
        return error


def test_a_bug_keeps_its_traceback() -> None:
    for error in (ValueError("ours"), RuntimeError("x"), KeyError("k"), OSError("without a number")):
        assert explain_failure(error) is None
    encoding = UnicodeEncodeError("utf-8", "\ud800", 0, 1, "surrogates not allowed")
    assert explain_failure(encoding) is None


def test_a_bug_in_a_handler_is_not_the_error_that_was_handled() -> None:
    missing = FileNotFoundError(errno.ENOENT, "No such file", "x.json")
    for handled in (missing, InputError("data: wrong")):
        assert explain_failure(raised_in_a_handler(handled)) is None
        assert explain_failure(raised_in_a_handler(handled, cause=True)) is not None


def test_a_full_disk_is_found_behind_what_a_library_makes_of_it(tmp_path: Path) -> None:
    full = OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(RuntimeError) as raised, filling(tmp_path / "out") as folder, replacing(folder / "file"):
        raise raised_in_a_handler(full)
    status, said = explain_failure(raised.value) or (0, "")
    assert status == 1
    assert said.startswith(f"error: no space is left on the device while writing '{tmp_path / 'out'}'; free some")
    shard = JsonlShard(tmp_path / "shard.jsonl")
    shard.append(Question("q", "1 + 1?", "2"))
    shard._file.close()
    with pytest.raises(ValueError, match="closed file") as closed:
        shard.flush()
    assert closed.value.__notes__ == [f"while writing '{tmp_path / 'shard.jsonl'}'"]


def test_what_a_logger_refuses_is_one_line() -> None:
    """MLflow's and wandb's errors are of classes of their own."""
    refused = type("MlflowException", (Exception,), {"__module__": "mlflow.exceptions"})
    assert explain_failure(refused("The filesystem tracking backend is in maintenance mode")) == (
        2,
        "error: trainer.logger: The filesystem tracking backend is in maintenance mode",
    )


def test_a_reader_that_has_ended_and_ctrl_c_leave_no_traceback(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def configs(kind: type[BaseException]) -> int:
        monkeypatch.setattr("rod.parser.run_verb", lambda *_: _raise(kind))
        return main(["configs"])

    def _raise(kind: type[BaseException]) -> NoReturn:
        raise kind

    assert configs(KeyboardInterrupt) == 130
    with pytest.raises(BrokenPipeError):
        configs(BrokenPipeError)  # of another pipe than the output
    piped = subprocess.run(
        f"{sys.executable} -m rod configs | head -1", shell=True, capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert piped.stdout
    assert not piped.stderr


@pytest.mark.parametrize("key", ["optimizer", "schedule"])
def test_null_where_a_class_is_needed_is_told_before_a_model_is_loaded(
    key: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert rod("fit", "--config", fit_config(tmp_path), f"--model.{key}", "null") == 2
    assert f"model.{key}: is None; name a class" in capsys.readouterr().err
