"""What a run folder holds: the checkpoints that are its own, those that a new run replaces, and those to go on from."""

import multiprocessing
import shutil
import time
import zipfile
from pathlib import Path

import pytest
import torch

from datamodules.errors import InputError
from rod.run_folder import checkpoints_of, difference, holds_results, newest_checkpoint
from rod.run_lock import RunLock
from rod.run_record import CONFIG, DONE, starts_of
from tests.rod.fits import fit_config, rod, stop_at

META = "meta.pt"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the configuration of a fit and its finished run."""
    folder = tmp_path_factory.mktemp("finished")
    last = {"class_path": "lightning.pytorch.callbacks.ModelCheckpoint", "init_args": {"save_last": True}}
    config = fit_config(folder, last, stop_at(folder, 1, "start", kind="Crash"))
    (folder / "stopped").touch()
    assert rod("fit", "--config", config) == 0
    return folder


@pytest.fixture
def copied(finished: Path, tmp_path: Path) -> Path:
    """A copy of that folder, whose configuration names the copy."""
    folder = tmp_path / "copy"
    shutil.copytree(finished, folder)
    for path in (folder / "fit.yaml", folder / "run" / CONFIG):
        path.write_text(path.read_text().replace(str(finished), str(folder)))
    return folder


def test_a_run_is_refused_while_another_one_works_in_its_folder(
    copied: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (copied / "stopped").touch()
    other = RunLock()
    other.acquire(copied / "run")
    before = content_of(copied / "run")
    again = ("fit", "--config", copied / "fit.yaml", "--overwrite", "true")
    assert rod(*again) == 2
    assert "another run is at work in" in capsys.readouterr().err
    assert content_of(copied / "run") == before
    other.release()
    assert rod(*again) == 0
    assert rod(*again) == 0  # in the same process


def test_a_forked_child_does_not_hold_the_folder(tmp_path: Path) -> None:
    """Workers of a DataLoader are such children, and may live longer than the run."""
    held = RunLock()
    held.acquire(tmp_path)
    child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,))
    child.start()
    try:
        held.release()
        other = RunLock()
        other.acquire(tmp_path)
        with pytest.raises(InputError, match="another run is at work"):
            RunLock().acquire(tmp_path)
        other.release()
    finally:
        child.kill()
        child.join()


def content_of(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_nested_run_and_a_folder_without_a_run_are_left_alone(copied: Path) -> None:
    run = copied / "run"
    own = sorted(checkpoints_of(run))
    assert [path.name for path in own] == ["end.ckpt", "epoch=1-step=12.ckpt", "last.ckpt"]
    nested = run / "folded"
    shutil.copytree(run, nested)
    sharded = run / "checkpoints" / "sharded.ckpt"
    sharded.mkdir()
    (sharded / META).touch()
    (run / "no.ckpt").mkdir()
    before = content_of(nested)
    assert sorted(checkpoints_of(run)) == sorted([*own, sharded])
    assert rod("fit", "--config", copied / "fit.yaml", "--overwrite", "true", "--trainer.max_epochs", 4) == 0
    assert content_of(nested) == before
    assert not sharded.exists()

    newest = newest_checkpoint(run)
    assert newest is not None
    assert newest.parent == run / "checkpoints"
    (run / CONFIG).unlink()
    assert checkpoints_of(run) == []
    stranger = run / "theirs.ckpt"
    stranger.touch()
    assert rod("fit", "--config", copied / "fit.yaml", "--overwrite", "true") == 0
    assert stranger.exists()


def test_a_fit_that_fails_before_it_trains_leaves_the_run_that_it_would_replace(copied: Path) -> None:
    (copied / "stopped").unlink()
    before = content_of(copied / "run")
    with pytest.raises(RuntimeError, match="crashed"):
        rod("fit", "--config", copied / "fit.yaml", "--overwrite", "true", "--model.optimizer.lr", 0.5)
    after = content_of(copied / "run")
    assert {path: after[path] for path in before} == before


def test_a_run_that_failed_before_its_first_result_does_not_keep_its_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config, run = fit_config(tmp_path, stop_at(tmp_path, 1, "start", kind="Crash"), max_epochs=1), tmp_path / "run"
    with pytest.raises(RuntimeError, match="crashed"):
        rod("fit", "--config", config, "--model.optimizer.lr", 0.25)
    assert rod("fit", "--config", config, "--model.optimizer.lr", 0.5) == 0
    assert "lr: 0.5" in (run / CONFIG).read_text()
    assert len(starts_of(run)) == 1, "the failed start was of another run"
    assert rod("fit", "--config", config, "--model.optimizer.lr", 0.25) == 2
    assert "holds a run with another configuration" in capsys.readouterr().err


def test_a_folder_and_a_model_that_are_spelled_otherwise_are_the_same(tmp_path: Path) -> None:
    config = fit_config(tmp_path, max_epochs=1)
    assert rod("fit", "--config", config) == 0
    text, (path, base) = config.read_text(), (tmp_path / "run" / CONFIG, tmp_path / "base")
    same = text.replace(str(tmp_path / "run"), f"{tmp_path}/./run/").replace(str(base), f"{tmp_path}/run/../base")
    assert same != text
    assert difference(path, path.read_text().replace(str(base), f"{tmp_path}/run/../base"), "fit") is None
    config.write_text(same)
    assert rod("fit", "--config", config, "--resume", "auto") == 0
    assert difference(path, path.read_text().replace(str(base), f"{tmp_path}/other"), "fit") is not None


def test_a_run_of_a_version_with_other_options_goes_on_if_they_are_off(tmp_path: Path) -> None:
    (tmp_path / CONFIG).write_text("model: {init_args: {m: 5, guided_steps: 0}, alphas: [-0.5]}")
    text = "model: {{init_args: {{m: 5, gate_shift: {}, fit_by_layers: false}}, alphas: {}}}"
    assert difference(tmp_path / CONFIG, text.format("0.0", [-0.5]), "test") is None
    assert difference(tmp_path / CONFIG, text.format("1.0", [-0.5]), "test") is not None
    assert difference(tmp_path / CONFIG, text.format("0.0", [-0.5, 0.0]), "test") is not None
    (tmp_path / CONFIG).write_text("model: {init_args: {m: 5, guided_steps: 9}, alphas: [-0.5]}")
    assert difference(tmp_path / CONFIG, text.format("0.0", [-0.5]), "test") is not None


def test_sampling_and_tests_go_on_with_other_slots_and_devices(tmp_path: Path) -> None:
    text = "model: {{init_args: {{generation: {{slots: {}, temperature: {}}}}}}}\ntrainer: {{devices: {}}}"
    (tmp_path / CONFIG).write_text(text.format(8, 0.7, 1))
    for verb in ("predict", "test"):
        assert difference(tmp_path / CONFIG, text.format(4, 0.7, 2), verb) is None
        assert difference(tmp_path / CONFIG, text.format(8, 0.5, 1), verb) is not None
    assert difference(tmp_path / CONFIG, text.format(8, 0.7, 2), "fit") is not None
    assert difference(tmp_path / CONFIG, text.format(8, 0.7, "[0, 1]") + "\n", "test") is None


def test_sampling_and_tests_go_on_under_another_strategy_and_placement(tmp_path: Path) -> None:
    text = "model: {{init_args: {{generation: {{vllm: {{options: {}}}}}}}}}\ntrainer: {{strategy: {}, devices: {}}}"
    ours = "{max_model_len: 512}"
    for before, now in (
        (("{}", "auto", "[0]"), ("{tensor_parallel_size: 2}", "ddp", "[0, 1]")),
        ((ours, "auto", 1), ("{max_model_len: 512, pipeline_parallel_size: 2}", "{class_path: FSDPStrategy}", "auto")),
    ):
        (tmp_path / CONFIG).write_text(text.format(*before))
        for verb in ("predict", "test"):
            assert difference(tmp_path / CONFIG, text.format(*now), verb) is None
        told = difference(tmp_path / CONFIG, text.format(before[0], "ddp", before[2]), "fit")
        assert told == "trainer.strategy: auto there, ddp now"
    found = difference(tmp_path / CONFIG, text.format("{max_model_len: 256}", "auto", 1), "test")
    assert found == "model.init_args.generation.vllm.options.max_model_len: 512 there, 256 now"


def test_a_part_of_an_option_is_no_option_of_another_version(tmp_path: Path) -> None:
    (tmp_path / CONFIG).write_text("data: {init_args: {seed: 0, chat_template_kwargs: null}}")
    text = "data: {init_args: {seed: 0, chat_template_kwargs: {enable_thinking: false}}}"
    assert difference(tmp_path / CONFIG, text, "fit") is not None


@pytest.mark.parametrize("damaged", [b"model: [", b"\xff\xfe", b"", b"- 1"])
def test_a_damaged_configuration_of_a_run_is_named(
    damaged: bytes, copied: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (copied / "run" / CONFIG).write_bytes(damaged)
    assert rod("fit", "--config", copied / "fit.yaml", "--resume", "auto") == 2
    assert f"run/{CONFIG}: is damaged" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "held"),
    [
        ("answers.rejected.jsonl", False),
        ("logs/version_0/hparams.yaml", False),
        ("nested/config.yaml", False),
        ("logs/version_0/metrics.csv", True),
        ("traces/traces.00.jsonl", True),
        (DONE, True),
    ],
)
def test_what_counts_as_a_result(tmp_path: Path, name: str, held: bool) -> None:
    for file in (CONFIG, "run.json", name):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).touch()
    assert holds_results(tmp_path) is held


def test_the_checkpoint_that_a_replacing_fit_starts_from_stays(copied: Path) -> None:
    words = ["--ckpt_path", "last", "--overwrite", "true", "--trainer.max_epochs", 4, "--model.optimizer.lr", 0.5]
    start = torch.load(copied / "run/checkpoints/last.ckpt", weights_only=True)
    (copied / "run/checkpoints/last.ckpt").rename(copied / "run/checkpoints/last-v1.ckpt")
    assert rod("fit", "--config", copied / "fit.yaml", *words) == 0
    assert torch.load(copied / "run/checkpoints/last-v1.ckpt", weights_only=True)["global_step"] == start["global_step"]
    assert not (copied / "run/checkpoints/epoch=1-step=12.ckpt").exists()


def test_a_job_that_was_stopped_before_it_replaced_a_run_replaces_it_when_it_starts_again(
    copied: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (copied / "stopped").unlink()
    words = ["fit", "--config", copied / "fit.yaml", "--resume", "auto", "--overwrite", "true"]
    with pytest.raises(RuntimeError, match="crashed"):
        rod(*words)
    assert (copied / "run" / DONE).exists()
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    before = (copied / "run/checkpoints/end.ckpt").stat().st_mtime_ns
    assert rod(*words) == 0
    after = (copied / "run/checkpoints/end.ckpt").stat().st_mtime_ns
    assert after > before
    assert rod(*words) == 0
    assert (copied / "run/checkpoints/end.ckpt").stat().st_mtime_ns == after, "the run is finished now"


def test_no_checkpoint_to_go_on_from(copied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = copied / "run"
    (run / DONE).unlink()
    whole, weights = run / "checkpoints/end.ckpt", run / "checkpoints/last.ckpt"
    content = torch.load(weights, weights_only=True)
    torch.save(
        {key: value for key, value in content.items() if key not in ("optimizer_states", "lr_schedulers")}, weights
    )
    for path in (whole, run / "checkpoints/epoch=1-step=12.ckpt"):
        path.write_bytes(path.read_bytes()[:-1000])
    with pytest.warns(UserWarning, match=r"end.ckpt' is cut, damaged or no checkpoint"):
        assert rod("fit", "--config", copied / "fit.yaml", "--resume", "auto") == 2
    said = capsys.readouterr().err
    assert f"--resume auto: no checkpoint in '{run}' is whole (3 of 3 are damaged or hold weights only); delete" in said
    for path in checkpoints_of(run):
        path.unlink()
    assert rod("fit", "--config", copied / "fit.yaml", "--resume", "auto") == 0


def test_the_checkpoint_that_a_fit_goes_on_from_is_read_once_for_its_checksums(
    copied: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (copied / "run" / DONE).unlink()
    checked: list[str | None] = []
    check = zipfile.ZipFile.testzip

    def counted(archive: zipfile.ZipFile) -> str | None:
        checked.append(archive.filename)
        return check(archive)

    monkeypatch.setattr(zipfile.ZipFile, "testzip", counted)
    assert rod("fit", "--config", copied / "fit.yaml", "--resume", "auto") == 0
    assert len(checked) == 1


def test_a_distributed_checkpoint_counts_as_its_keys_say(copied: Path) -> None:
    run = copied / "run"
    for path in checkpoints_of(run):
        path.unlink()
    sharded = run / "checkpoints" / "sharded.ckpt"
    sharded.mkdir()
    torch.save({"trained_parameters": [], "lr_schedulers": []}, sharded / META)
    assert newest_checkpoint(run) == sharded
    torch.save({"lr_schedulers": []}, sharded / META)
    with pytest.warns(UserWarning, match="another project"), pytest.raises(InputError, match="1 of 1 are damaged"):
        newest_checkpoint(run)


@pytest.mark.slow
def test_another_checkpoint_is_another_run_except_for_a_fit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = fit_config(tmp_path)
    assert rod("fit", "--config", config) == 0
    first = tmp_path / "run/checkpoints/end.ckpt"
    second = tmp_path / "second.ckpt"
    shutil.copyfile(first, second)
    validate = ["validate", "--config", config, "--trainer.default_root_dir", tmp_path / "validated"]
    assert rod(*validate, "--ckpt_path", first) == 0
    assert rod(*validate, "--ckpt_path", first) == 0
    capsys.readouterr()
    assert rod(*validate, "--ckpt_path", second) == 2
    assert f"another configuration (ckpt_path: {first} there, {second} now)" in capsys.readouterr().err


def test_a_checkpoint_that_another_run_removes_before_this_one_has_the_folder_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The other one ends, and removes what it would have gone on from, after this one has chosen where to start."""
    config = fit_config(tmp_path, stop_at(tmp_path, 3))
    assert rod("fit", "--config", config) == 143
    acquire = RunLock.acquire

    def late(lock: RunLock, folder: Path) -> None:
        acquire(lock, folder)
        for path in checkpoints_of(folder):
            path.unlink()

    with monkeypatch.context() as patched:
        patched.setattr(RunLock, "acquire", late)
        assert rod("fit", "--config", config, "--resume", "auto") == 2
    assert "has just removed it; give the same command again" in capsys.readouterr().err
    assert rod("fit", "--config", config, "--resume", "auto") == 0
