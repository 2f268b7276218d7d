import shlex
from itertools import pairwise
from pathlib import Path

import pytest

from rod.__main__ import VERBS
from rod.next_command import _AFTER, next_command
from rod.shipped import find, shipped


@pytest.mark.parametrize("stage", _AFTER)
def test_every_next_command_names_a_verb_and_configurations_that_exist(stage: str) -> None:
    assert stage in shipped()
    words = shlex.split(_AFTER[stage].format(folder="runs/x"))
    assert words[0] == "rod"
    assert words[1] in VERBS
    for key, value in pairwise(words):
        if key == "--config" and not value.startswith("runs/"):
            assert Path(find(value)).is_file()


def test_a_fit_names_its_own_checkpoint_in_any_folder() -> None:
    words = ["fit", "--config", "s3cot/5_curriculum", "--trainer.default_root_dir", "my runs/a"]
    made = shlex.split(next_command(words))
    assert made == ["rod", "test", "--config", "s3cot/6_test", "--ckpt_path", "my runs/a/checkpoints/best.ckpt"]


def test_a_run_elsewhere_is_not_followed_by_a_stage_that_would_not_find_it() -> None:
    words = ["predict", "--config", "s3cot/1_direction", "--trainer.default_root_dir", "elsewhere"]
    assert next_command(words) == ""


@pytest.mark.parametrize(
    ("words", "following"),
    [
        ("score a.jsonl --output runs/a", "rod report runs/a --output runs/a/report.html"),
        ("filter --traces t --by gold --output i.jsonl", "rod fit --config s3cot/5_curriculum --data.items i.jsonl"),
        ("pairs --config mogu/pairs", "rod fit --config mogu/1_glad"),
        ("fit --config s3cot/5_curriculum --print_config", ""),
        ("plan --config s3cot/3_sample", ""),
        ("validate --config s3cot/5_curriculum", ""),
        ("configs", ""),
    ],
)
def test_after_other_verbs(words: str, following: str) -> None:
    assert next_command(words.split()) == following
