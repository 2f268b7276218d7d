import json
import shlex
from itertools import pairwise
from pathlib import Path

import pytest

from rod.__main__ import VERBS
from rod.next_command import _AFTER, _EXPORTED, _OUTPUTS, next_command
from rod.run_record import RECORD
from rod.shipped import find, shipped
from tests.rod.commands import parse, runnable


@pytest.mark.parametrize("stage", _AFTER)
def test_every_next_command_names_a_verb_and_configurations_that_exist(stage: str) -> None:
    assert stage in shipped()
    words = shlex.split(_AFTER[stage].format(folder="runs/x", output="runs/y"))
    assert words[0] == "rod"
    assert words[1] in VERBS
    for key, value in pairwise(words):
        if key == "--config" and not value.startswith("runs/"):
            assert Path(find(value)).is_file()


def test_a_fit_names_its_own_checkpoint_in_any_folder() -> None:
    words = ["fit", "--config", "s3cot/5_curriculum", "--trainer.default_root_dir", "my runs/a"]
    made = shlex.split(next_command(words))
    own = ["--trainer.default_root_dir", "my runs/a/6_test"]
    assert made == ["rod", "test", "--config", "s3cot/6_test", "--ckpt_path", "my runs/a/checkpoints/best.ckpt", *own]


def test_the_output_of_another_run_is_not_where_the_shipped_stages_write() -> None:
    """Two experiments would share it, or the second one would be trained on what the first one wrote."""
    for stage, shared in _OUTPUTS.items():
        verb = "predict" if stage == "s3cot/3_sample" else "fit"
        made = shlex.split(next_command([verb, "--config", stage]))
        assert made[made.index("--output") + 1] == shared
        made = shlex.split(next_command([verb, "--config", stage, "--trainer.default_root_dir", "runs/b"]))
        assert made[made.index("--output") + 1] == f"runs/b/{Path(shared).name}"


def test_a_folder_named_in_a_file_of_the_user(tmp_path: Path) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_text("trainer: {default_root_dir: runs/c}\ndata: {batch_size: 4}\n")
    made = next_command(["fit", "--config", "mogu/1_glad", "--config", str(mine)])
    assert made == "rod export --format peft --checkpoint runs/c/checkpoints/best.ckpt --output runs/c/glad"
    mine.write_text("output: runs/d\n")
    made = next_command(["pairs", "--config", "mogu/pairs", "--config", str(mine)])
    assert "--data.pairs runs/d/pairs.train.jsonl --data.val_pairs runs/d/pairs.val.jsonl" in made
    mine.unlink()
    assert next_command(["pairs", "--config", "mogu/pairs", "--config", str(mine)]) == "rod fit --config mogu/1_glad"


def test_a_test_has_the_model_that_was_trained(tmp_path: Path) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_text("model: {peft: {r: 4}}\n")
    words = ["fit", "--config", "mllr/2_tune", "--config", "mllr/controls/sppft", "--config", str(mine)]
    words += ["--config", "mllr/real/alpaca", "--model.optimizer.lr=1e-5", "--model.learning_rates.ratio", "0.1"]
    made = shlex.split(next_command(words))
    assert [made[place + 1] for place, word in enumerate(made) if word == "--config"] == [
        "mllr/3_test",
        "mllr/controls/sppft",
        str(mine),
        "mllr/suites/safety",
        "mllr/suites/task_maths",
    ]
    assert made[-6:] == [
        *("--ckpt_path", "runs/mllr/2_tune/sppft/checkpoints/last.ckpt"),
        *("--trainer.default_root_dir", "runs/mllr/2_tune/sppft/3_test"),
        *("--model.learning_rates.ratio", "0.1"),
    ]


def test_a_direction_elsewhere_goes_on() -> None:
    made = next_command(["predict", "--config", "s3cot/2_calibrate", "--steer.direction", "d.safetensors"])
    assert made.endswith(" --config runs/s3cot/2_calibrate/choice.yaml --steer.direction d.safetensors")


@pytest.mark.parametrize(
    ("stage", "read"),
    [
        ("s3cot/1_direction", "--steer.direction else where/direction.safetensors"),
        ("mllr/1_probe_and_search", "--model.learning_rates.result else where/robust_modules.yaml"),
        ("mogu/0_answers", "--answers else where/traces/traces.jsonl"),
    ],
)
def test_a_run_elsewhere_is_followed_by_a_stage_that_finds_it(stage: str, read: str) -> None:
    made = shlex.split(next_command(["predict", "--config", stage, "--trainer.default_root_dir", "else where"]))
    assert read in " ".join(made)
    assert any(word.startswith("else where/") for word in made[-2:]), "what it writes is in the run's folder, too"
    parse(made[1:])


@pytest.mark.parametrize("stage", _AFTER)
def test_every_next_command_is_one_that_parses(stage: str, tmp_path: Path) -> None:
    verb = "predict" if "1_direction 2_calibrate 3_sample 1_probe 0_answers".find(stage[6:][:8]) >= 0 else "fit"
    (tmp_path / "choice.yaml").write_text("data: {}\n")
    for own in ([], ["--trainer.default_root_dir", str(tmp_path)]):
        made = shlex.split(next_command([verb, "--config", stage, *own]))
        parse(runnable(made[1:]))


@pytest.mark.parametrize("stage", _EXPORTED)
def test_an_export_is_followed_by_the_stage_that_reads_it(stage: str, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    words = ["rod", "fit", "--config", stage, "--model.backbone", "x", "--model.optimizer.lr", "1"]
    (run / RECORD).write_text(json.dumps({"starts": [{"command": shlex.join(words)}]}))
    export = ["export", "--checkpoint", str(run / "checkpoints/best.ckpt"), "--output"]
    following, key = _EXPORTED[stage]
    made = shlex.split(next_command([*export, _OUTPUTS[stage]]))
    assert shlex.join(made) == f"{following} --model.backbone x"
    parse(made[1:])
    elsewhere = shlex.split(next_command([*export, str(run / "own")]))
    if key is None:
        assert not elsewhere, "where the glad responder is, nobody knows"
        return
    assert elsewhere[-2:] == ["--model.backbone", "x"]
    assert not key or elsewhere[elsewhere.index(f"--{key}") + 1] == str(run / "own")
    assert str(run) in elsewhere[elsewhere.index("--trainer.default_root_dir") + 1]
    parse(elsewhere[1:])


def test_an_export_of_another_run_is_followed_by_nothing(tmp_path: Path) -> None:
    words = ["export", "--checkpoint", str(tmp_path / "run/checkpoints/best.ckpt"), "--output", "out"]
    assert next_command(words) == ""


@pytest.mark.parametrize(
    ("words", "following"),
    [
        ("score a.jsonl --output runs/a", "rod report runs/a --output runs/a/report.html"),
        ("filter --traces t --by gold --output i.jsonl", "rod fit --config s3cot/5_curriculum --data.items i.jsonl"),
        ("pairs --config mogu/pairs", "rod fit --config mogu/1_glad"),
        ("pairs --config mogu/pairs --output runs/mogu/pairs/", "rod fit --config mogu/1_glad"),
        (
            "pairs --answers a.jsonl --malicious m.jsonl --output p",
            "rod fit --config mogu/1_glad --data.pairs p/pairs.train.jsonl --data.val_pairs p/pairs.val.jsonl",
        ),
        ("fit --config s3cot/5_curriculum --print_config", ""),
        ("plan --config s3cot/3_sample", ""),
        ("validate --config s3cot/5_curriculum", ""),
        ("configs", ""),
        ("world", "rod predict --config s3cot/1_direction"),
        ("world --output elsewhere", ""),
        (
            "import-traces --responses r.jsonl --output runs/a/traces.jsonl",
            "rod filter --traces runs/a/traces.jsonl --by gold --output runs/a/items.jsonl",
        ),
        (
            "fit --config crisp/1_distill",
            "rod test --config s3cot/6_test --ckpt_path runs/crisp/1_distill/checkpoints/best.ckpt "
            "--trainer.default_root_dir runs/crisp/1_distill/6_test",
        ),
    ],
)
def test_after_other_verbs(words: str, following: str) -> None:
    assert next_command(words.split()) == following


def test_the_chat_template_goes_on_with_the_test_of_a_fit() -> None:
    given = ["--data.chat_template", "think.jinja", "--data.chat_template_kwargs", "{enable_thinking: false}"]
    made = shlex.split(next_command(["fit", "--config", "s3cot/5_curriculum", "--data.batch_size", "2", *given]))
    assert made[-4:] == given
