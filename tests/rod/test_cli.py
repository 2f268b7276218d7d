"""The command: verbs, errors in one line, run folders, checkpoints that do not override, export."""

import importlib
import os
import re
import shutil
import subprocess
import sys
import warnings
from functools import partialmethod
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed.checkpoint
import yaml
from peft import AutoPeftModelForCausalLM, PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM

from llm_modules.backbone.loading import load_model
from rod.__main__ import LIGHTNING, VERBS, main
from rod.load import config_of, load_module
from tests.rod.fits import fit_config, rod
from tests.tiny import save_tiny


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A fit of one epoch of a LoRA adapter on a tiny model."""
    return fit_config(tmp_path, max_epochs=1)


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint of such a fit, with its base beside the run; nothing may be changed there."""
    folder = tmp_path_factory.mktemp("fitted")
    assert rod("fit", "--config", fit_config(folder, max_epochs=1)) == 0
    return folder / "run/checkpoints/end.ckpt"


def test_help_lists_the_verbs_and_loads_nothing_heavy() -> None:
    code = (
        "import sys; from rod.__main__ import main; main(['--help']);"
        "print([name for name in ('torch', 'yaml') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    headings = [line for line in done.stdout.splitlines() if line.endswith(":")]
    assert headings == ["train:", "sample and filter:", "measure:", "export:", "this repository:"]
    for verb in VERBS:
        assert f"\n  {verb} " in done.stdout
    assert done.stdout.splitlines()[-1] == "[]"


def test_the_command_does_not_need_the_figures_of_a_notebook() -> None:
    code = "import sys; from rod.__main__ import main; sys.argv = ['rod', '--version']; main(); import matplotlib"
    environment = os.environ | {"MPLBACKEND": "module://nowhere"}
    assert subprocess.run([sys.executable, "-c", code], env=environment, check=False).returncode == 0


@pytest.mark.parametrize(("words", "told"), [(["--version"], 0), (["--verbose", "--version"], 1)])
def test_notices_of_libraries_are_hidden_unless_asked_for(
    words: list[str], told: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_HUB_DISABLE_PROGRESS_BARS", raising=False)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert main(words) == 0
        for notice in (
            "`is_gradient_checkpointing` is deprecated and will be removed",
            "Total length of `list` across ranks is zero. Please make sure this was your intention.",
            "Checkpoint directory runs/a/checkpoints exists and is not empty.",
            "The number of training batches (3) is smaller than the logging interval Trainer(log_every_n_steps=10).",
        ):
            warnings.warn(notice, FutureWarning, stacklevel=1)
        warnings.warn("a warning of ours", UserWarning, stacklevel=1)
    assert len(caught) == 4 * told + 1
    assert ("HF_HUB_DISABLE_PROGRESS_BARS" in os.environ) == (not told)


def test_every_verb_has_its_module() -> None:
    for module in VERBS.values():
        assert callable(getattr(importlib.import_module(module), "main" if module == LIGHTNING else "run"))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["fitt"], "no verb 'fitt'; verbs are fit"),
        (["fit", "--config", "/no/such.yaml"], "--config: there is no file '/no/such.yaml'"),
        (["fit", "--config", "s3cot/5_curiculum"], "did you mean 's3cot/5_curriculum'?"),
        (
            ["fit", "--trainer.max_epocs", "3"],
            "trainer.max_epocs: there is no such key; did you mean 'trainer.max_epochs'?",
        ),
        (["fit", "--trainer.max_epochs", "three"], "trainer.max_epochs: a whole number is expected, not three"),
        (["fit", "--trainer.gradient_clip_val", "ab"], "trainer.gradient_clip_val: a number is expected, not ab"),
        (["fit", "--model.optimizer.lr", "ab"], "model.optimizer.lr: a number is expected, not ab"),
        (["fit", "--trainer.callbacks+=LearningRateMonitr"], "did you mean 'LearningRateMonitor' (lightning.pytorch."),
        (["fit", "--trainer.logger=CSVLoger"], "did you mean 'CSVLogger' (lightning.pytorch.loggers.CSVLogger)?"),
        (["fit", "--model.optimizer", "torch.optim.AdmW"], "did you mean 'AdamW' (torch.optim.AdamW)?"),
        (
            ["fit", "--model", "CausalLLM"],
            "model: there is no class 'CausalLLM'; did you mean 'CausalLM' (llm_modules.",
        ),
        (["fit", "--model", "llm_modules.gone.S3CoT"], "did you mean 'S3CoT' (llm_modules.s3cot.module.S3CoT)?"),
        (["fit", "--model", "nowhere.Thing"], "there is no class 'nowhere.Thing'; give its name or its dotted path"),
        (["predict", "--steer.position", "last"], "steer.position: there is no such key; did you mean 'positions'?"),
        (["predict", "--steer.positions", "first"], "steer.positions: Expected a value that is one of 'all'"),
        (["predict", "--steer.positions", "last"], "steer: the following arguments are required: direction"),
        (["fit", "--trainer.logger=TensorBoardLogger"], "logger: the following arguments are required: save_dir\n"),
        (["fit", "--model.dtype", "float31"], "model.dtype: Expected a value that is one of 'auto', 'float32'"),
        (["fit", "--model.peft.r", "ab"], "model.peft.r: a whole number is expected, not ab"),
        (["fit", "--model.pefft.r", "3"], "did you mean 'peft.r'?"),
        (
            ["fit", "--trainer.callbacks.filenam", "x"],
            "filenam: there is no such key; did you mean 'filename'?",
        ),
        (["fit", "--ckpt_path", "/no/such.ckpt"], "ckpt_path: there is no file '/no/such.ckpt'"),
        (["fit", "--model.backbone", "/no/such"], "model.backbone: there is no folder '/no/such'"),
        (["fit", "--model.adapter", "folder"], "model.peft and model.adapter: give one"),
    ],
)
def test_wrong_words_give_one_line_with_the_key(
    words: list[str], said: str, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if words[0] in ("fit", "predict"):
        words = [words[0], "--config", str(config), *words[1:]]
    assert main(words) == 2
    error = [line for line in capsys.readouterr().err.splitlines() if line.startswith("rod: error: ")]
    assert len(error) == 1
    assert said in f"{error[0]}\n"
    assert error[0].count("there is no such key") <= 1


def test_a_key_misspelt_in_a_file(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = yaml.safe_load(config.read_text())
    settings["model"]["init_args"]["optimiser"] = settings["model"]["init_args"].pop("optimizer")
    config.write_text(yaml.safe_dump(settings))
    assert rod("fit", "--config", config) == 2
    assert "model.optimiser" in capsys.readouterr().err


def test_a_class_of_an_old_path_in_a_file(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = yaml.safe_load(config.read_text())
    settings["trainer"]["callbacks"].append({"class_path": "callbacks.gone.Steer", "init_args": {"direction": "d"}})
    config.write_text(yaml.safe_dump(settings))
    assert rod("fit", "--config", config) == 2
    error = capsys.readouterr().err
    said = "there is no class 'callbacks.gone.Steer'; did you mean 'Steer' (callbacks.s3cot.steer.Steer)?"
    line = config.read_text().splitlines().index("  callbacks:") + 1
    assert f"rod: error: {config}:{line}: trainer.callbacks: {said}\n" in error


def printed(capsys: pytest.CaptureFixture[str], *words: object) -> dict:
    with pytest.raises(SystemExit):
        rod(*words, "--print_config")
    return yaml.safe_load(capsys.readouterr().out)


def test_short_keys_on_the_command_line_and_in_fragments(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """``init_args`` may be left out wherever the class is known already."""
    fragment = tmp_path / "fragment.yaml"
    fragment.write_text(
        "model: {dtype: bfloat16, optimizer: {lr: 0.25}, generation: {slots: 7}}\ndata: {val_limit: 5}\n"
    )
    words = ["--model.backbone", "other", "--model.generation.slots", 9, "--model.optimizer.weight_decay", 0.5]
    words += ["--model.peft.r", 3, "--data.items_per_stage", 11, "--trainer.callbacks.logging_interval", "epoch"]
    found = printed(capsys, "fit", "--config", "s3cot/5_curriculum", "--config", fragment, *words)
    init, data = found["model"]["init_args"], found["data"]["init_args"]
    assert (init["backbone"], init["dtype"]) == ("other", "bfloat16")
    assert (init["generation"]["slots"], init["generation"]["max_new_tokens"]) == (9, 400)
    assert init["optimizer"]["class_path"] == "torch.optim.AdamW"
    assert (init["optimizer"]["init_args"]["lr"], init["optimizer"]["init_args"]["weight_decay"]) == (0.25, 0.5)
    assert (init["peft"]["init_args"]["r"], init["peft"]["init_args"]["lora_alpha"]) == (3, 16)
    assert (data["val_limit"], data["items_per_stage"], data["selection"]) == (5, 11, "curriculum")
    assert found["trainer"]["callbacks"][-1]["init_args"]["logging_interval"] == "epoch"


def test_a_callback_is_added_by_a_flag(capsys: pytest.CaptureFixture[str]) -> None:
    stage = ["test", "--config", "s3cot/6_test", "--trainer.callbacks+=Latency"]
    added = printed(capsys, *stage)["trainer"]["callbacks"]
    assert [callback["class_path"].rpartition(".")[2] for callback in added] == ["GenerationProgress", "Latency"]


def test_a_callback_alone_is_a_list_of_one(config: Path) -> None:
    settings = yaml.safe_load(config.read_text())
    (settings["trainer"]["callbacks"],) = settings["trainer"]["callbacks"]
    config.write_text(yaml.safe_dump(settings))
    assert rod("fit", "--config", config, "--trainer.limit_train_batches", 1) == 0
    steer = ["--steer.direction", "no.safetensors"]
    assert rod("validate", "--config", config, "--trainer.limit_val_batches", 1, *steer) == 2


def test_a_checkpoint_at_an_address(
    config: Path, fitted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["validate", "--config", config, "--trainer.default_root_dir", tmp_path / "measured", "--ckpt_path"]
    assert rod(*words, f"file://{fitted}") == 0
    assert rod(*words, f"file://{tmp_path}/no.ckpt") == 2
    assert f"ckpt_path: there is no file 'file://{tmp_path}/no.ckpt'" in capsys.readouterr().err


def test_an_export_reads_the_checkpoint_before_the_model(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = yaml.safe_load(config.read_text())
    settings["model"]["init_args"]["backbone"] = "/no/such"
    config.write_text(yaml.safe_dump(settings))
    (tmp_path / "x.ckpt").touch()
    words = ["export", "--config", config, "--output", tmp_path / "out", "--checkpoint"]
    assert rod(*words, tmp_path / "x.ckpt") == 2
    assert "x.ckpt' is empty" in capsys.readouterr().err


def test_an_export_says_what_is_wrong_with_the_checkpoint_before_it_looks_for_a_configuration(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["export", "--output", tmp_path / "out", "--checkpoint"]
    assert rod(*words, tmp_path / "nope.ckpt") == 2
    assert "--checkpoint: there is no file" in capsys.readouterr().err
    (tmp_path / "text.ckpt").write_text("no checkpoint")
    assert rod(*words, tmp_path / "text.ckpt") == 2
    assert "text.ckpt' is cut, damaged or no checkpoint" in capsys.readouterr().err


def test_a_distributed_checkpoint_is_exported(fitted: Path, tmp_path: Path) -> None:
    shutil.copy(config_of(fitted), tmp_path)
    checkpoint, sharded = fitted, tmp_path / "sharded.ckpt"
    content = torch.load(checkpoint, weights_only=True)
    torch.distributed.checkpoint.save({"state_dict": content.pop("state_dict")}, checkpoint_id=sharded, no_dist=True)
    torch.save(content, sharded / "meta.pt")
    for path in (checkpoint, sharded):
        assert rod("export", "--checkpoint", path, "--output", tmp_path / path.stem, "--format", "peft") == 0
    one, other = (tmp_path / name / "adapter_model.safetensors" for name in ("end", "sharded"))
    assert one.read_bytes() == other.read_bytes()


def test_steering_is_a_key_of_its_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    off = tmp_path / "off.yaml"
    off.write_text("steer: null\n")
    stage = ["predict", "--config", "s3cot/2_calibrate"]
    steer = printed(capsys, *stage, "--steer.random", "true")["steer"]["init_args"]
    assert (steer["positions"], steer["random"]) == ("last", True)
    assert steer["direction"] == "runs/s3cot/1_direction/direction.safetensors"
    assert printed(capsys, *stage, "--config", off)["steer"] is None
    assert printed(capsys, "predict", "--config", "s3cot/1_direction")["steer"] is None


def test_the_seed_of_the_data_is_that_of_the_run_unless_it_is_given(config: Path, tmp_path: Path) -> None:
    for name, words, expected in (("follows", [], 3), ("given", ["--data.seed", 5], 5)):
        where = ["--trainer.default_root_dir", tmp_path / name]
        assert rod("fit", "--config", config, "--seed_everything", 3, *words, *where) == 0
        saved = yaml.safe_load((tmp_path / name / "config.yaml").read_text())
        assert (saved["seed_everything"], saved["data"]["init_args"]["seed"]) == (3, expected)
        # The saved configuration is that of the same run.
        assert rod("fit", "--config", tmp_path / name / "config.yaml", "--overwrite", "true") == 0
        assert yaml.safe_load((tmp_path / name / "config.yaml").read_text())["data"] == saved["data"]


def test_nothing_is_steered_twice(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    questions = tmp_path / "questions.jsonl"
    questions.write_text('{"id": "q", "question": "1 + 1?", "gold": "2"}\n')
    words = ["--data.questions", questions, "--trainer.callbacks+=Steer", "--trainer.callbacks.direction", "d"]
    assert rod("predict", "--config", "s3cot/2_calibrate", *words) == 2
    assert "rod: error: steer: trainer.callbacks has a Steer too" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("verb", "config", "said"),
    [
        ("fit", "mllr/1_probe_and_search", "TwinData is not for rod fit, but for rod predict"),
        ("predict", "mllr/0_pilot", "InstructionData is not for rod predict, but for rod fit or rod validate"),
    ],
)
def test_data_of_another_verb_are_refused_before_a_model_is_loaded(
    verb: str, config: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert rod(verb, "--config", config, "--trainer.default_root_dir", tmp_path, "--model.backbone", "no-model") == 2
    assert said in capsys.readouterr().err


def test_a_run_writes_its_configuration_and_metrics_and_is_not_overwritten(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    assert rod("fit", "--config", config) == 0
    assert yaml.safe_load((run / "config.yaml").read_text())["model"]["class_path"].endswith("CausalLM")
    assert "train/loss" in next((run / "logs").rglob("metrics.csv")).read_text()
    assert (run / "checkpoints" / "end.ckpt").is_file()
    assert (run / "done").is_file()

    assert rod("fit", "--config", config) == 2
    assert "--ckpt_path" in capsys.readouterr().err
    assert rod("fit", "--config", config, "--trainer.max_epochs", 2) == 2
    assert "another configuration" in capsys.readouterr().err
    assert rod("fit", "--config", config, "--trainer.max_epochs", 2, "--overwrite", "true") == 0


def test_a_run_begins_without_what_libraries_say_about_themselves(
    config: Path, caplog: pytest.LogCaptureFixture, recwarn: pytest.WarningsRecorder
) -> None:
    assert rod("fit", "--config", config) == 0
    assert "trained 6 steps" in caplog.text
    assert "Seed set to" not in caplog.text
    assert "litlogger" not in caplog.text
    said = [str(warning.message) for warning in recwarn]
    assert [message for message in said if "deprecated" in message or "loftq" in message] == []


def test_a_checkpoint_does_not_override_the_configuration(config: Path, fitted: Path, tmp_path: Path) -> None:
    """Lightning's CLI would take ``model`` from the checkpoint's hyper-parameters, unsaid."""
    from rod.cli import RodCLI

    checkpoint = tmp_path / "other.ckpt"
    content = torch.load(fitted, weights_only=True)
    content["hyper_parameters"] = {"backbone": "/no/such"}
    torch.save(content, checkpoint)
    words = ["fit", "--config", config, "--ckpt_path", checkpoint, "--trainer.max_epochs", 2]
    words += ["--trainer.default_root_dir", tmp_path / "second", "--model.optimizer.lr", 0.5]
    cli = RodCLI([str(word) for word in words])
    assert cli.config.fit.model.init_args.optimizer.init_args.lr == 0.5
    assert cli.trainer.current_epoch == 2
    assert cli.trainer.global_step == 12


def test_exports_give_the_same_logits_in_plain_libraries(fitted: Path, tmp_path: Path) -> None:
    checkpoint, base = fitted, fitted.parents[2] / "base"
    assert rod("export", "--checkpoint", checkpoint, "--output", tmp_path / "merged") == 0
    assert rod("export", "--checkpoint", checkpoint, "--output", tmp_path / "adapter", "--format", "peft") == 0

    ids = torch.tensor([[5, 9, 200, 17]])
    ours = load_module(config_of(checkpoint), checkpoint)
    model: Any = ours.model
    with torch.no_grad():
        expected = model(input_ids=ids).logits
        untrained = AutoModelForCausalLM.from_pretrained(base)(input_ids=ids).logits
        merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")(input_ids=ids).logits
        adapter = AutoPeftModelForCausalLM.from_pretrained(tmp_path / "adapter").eval()(input_ids=ids).logits
    assert not torch.allclose(expected, untrained, atol=1e-3), "the adapter must have learned something to compare"
    torch.testing.assert_close(merged, expected, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(adapter, expected, atol=1e-6, rtol=1e-6)
    assert AutoTokenizer.from_pretrained(tmp_path / "merged").decode(ids[0]) == ours.tokenizer.decode(ids[0])


def test_an_export_has_a_card_and_goes_to_the_hub(
    fitted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    export = ["export", "--checkpoint", fitted]
    calls: list[tuple[str, dict[str, Any]]] = []

    class Hub:
        def create_repo(self, repository: str, **options: Any) -> str:
            calls.append((repository, options))
            return f"https://hub/{repository}"

        def upload_folder(self, **options: Any) -> None:
            calls.append(("upload", options))

    monkeypatch.setattr("huggingface_hub.HfApi", Hub)
    assert rod(*export, "--output", tmp_path / "out", "--format", "peft", "--push", "me/short") == 0
    assert "uploaded to https://hub/me/short" in capsys.readouterr().out
    assert calls[0] == ("me/short", {"private": True, "exist_ok": True})
    assert calls[1][0] == "upload"
    assert calls[1][1]["folder_path"] == tmp_path / "out"
    assert sorted(calls[1][1]["allow_patterns"]) == sorted(path.name for path in (tmp_path / "out").iterdir())
    _, metadata, card = (tmp_path / "out" / "README.md").read_text().split("---\n", 2)
    assert yaml.safe_load(metadata) == {
        "library_name": "peft",
        "tags": ["lightning-rod", "causallm"],
    }
    assert str(fitted.parents[2]) not in card
    assert "A PEFT adapter for `base` (a local folder), trained by Lightning Rod's `CausalLM` in 6 optimiser" in card
    assert "| train/loss | " in card
    modes = {path.stat().st_mode for path in (tmp_path / "out").iterdir()}
    assert len(modes) == 1, "a colleague can read the settings and not the weights"
    assert yaml.safe_load(card.split("```yaml\n")[1].split("```")[0])["trainer"]["max_epochs"] == 1

    def offline(*_: Any, **__: Any) -> str:
        raise ConnectionError

    monkeypatch.setattr(Hub, "create_repo", offline)
    assert rod(*export, "--output", tmp_path / "again", "--push", "me/short") == 2
    assert "could not be uploaded to (ConnectionError)" in capsys.readouterr().err
    assert (tmp_path / "again" / "model.safetensors").is_file()


def test_an_export_takes_the_place_of_an_earlier_one(
    fitted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights in one file would be loaded in place of those in shards; into the folder that one stands in, too."""
    save_tiny(tmp_path / "out", layers=2, seed=7)
    (tmp_path / "out" / "notes.txt").write_text("mine")
    monkeypatch.chdir(tmp_path / "out")
    save = LlamaForCausalLM.save_pretrained
    monkeypatch.setattr(LlamaForCausalLM, "save_pretrained", partialmethod(save, max_shard_size="40KB"))
    assert rod("export", "--checkpoint", fitted, "--output", ".", "--overwrite", "true") == 0
    assert not (tmp_path / "out" / "model.safetensors").exists()
    assert len(list((tmp_path / "out").glob("model-*.safetensors"))) > 1
    assert (tmp_path / "out" / "notes.txt").read_text() == "mine"
    ids = torch.tensor([[5, 9, 80, 17]])
    module = load_module(config_of(fitted), fitted)
    assert isinstance(module.model, PeftModel)
    with torch.no_grad():
        expected = module.model(input_ids=ids).logits
        found = load_model(str(tmp_path / "out")).eval()(input_ids=ids).logits
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_export_refuses_what_would_be_lost_or_cannot_be(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    full = ["--config", config, "--model.peft", "null"]
    assert rod("fit", *full) == 0
    checkpoint = tmp_path / "run" / "checkpoints" / "end.ckpt"
    assert rod("export", "--checkpoint", checkpoint, "--output", tmp_path / "x", "--format", "peft") == 2
    assert "trained the whole model" in capsys.readouterr().err
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "adapter_config.json").touch()
    assert rod("export", "--checkpoint", checkpoint, "--output", tmp_path / "adapter", "--overwrite", "true") == 2
    assert "holds an export in the format peft" in capsys.readouterr().err
    assert rod("export", "--checkpoint", checkpoint, "--output", tmp_path / "base") == 2
    assert "is not empty" in capsys.readouterr().err
    shutil.copy(checkpoint, tmp_path / "alone.ckpt")
    assert rod("export", "--checkpoint", tmp_path / "alone.ckpt", "--output", tmp_path / "x") == 2
    assert "no config.yaml in the folders above" in capsys.readouterr().err


def test_two_callbacks_of_a_kind_are_told_before_the_model_is_loaded(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["fit", "--config", config, "--trainer.callbacks+=ModelCheckpoint"]
    assert rod(*words, "--trainer.callbacks.every_n_epochs", 1) == 2
    said = "trainer.callbacks: there is more than one ModelCheckpoint, .*; give one another value of monitor"
    assert re.search(said, capsys.readouterr().err)
    assert not (tmp_path / "run").exists()
    assert rod(*words, "--trainer.callbacks.every_n_epochs", 2) == 0


def test_a_warning_of_ours_is_one_line_without_its_place() -> None:
    code = (
        "import warnings; import lightning.pytorch; import callbacks; from rod.noise import be_quiet; be_quiet();"
        "warnings.warn_explicit('left out', UserWarning, callbacks.__file__, 1);"
        "warnings.warn('of others')"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stderr.splitlines()[0] == "warning: left out"
    assert "UserWarning: of others" in run.stderr
