import shlex
from itertools import pairwise
from pathlib import Path

import pytest

from rod.__main__ import VERBS
from rod.next_command import _AFTER, _OUTPUTS, next_command
from rod.shipped import find, shipped


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


def test_a_run_elsewhere_is_not_followed_by_a_stage_that_would_not_find_it() -> None:
    words = ["predict", "--config", "s3cot/1_direction", "--trainer.default_root_dir", "elsewhere"]
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
    ],
)
def test_after_other_verbs(words: str, following: str) -> None:
    assert next_command(words.split()) == following


def test_the_chat_template_goes_on_with_the_test_of_a_fit() -> None:
    given = ["--data.chat_template", "think.jinja", "--data.chat_template_kwargs", "{enable_thinking: false}"]
    made = shlex.split(next_command(["fit", "--config", "s3cot/5_curriculum", "--data.batch_size", "2", *given]))
    assert made[-4:] == given
