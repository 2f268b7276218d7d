"""Configuration files: keys that are there twice, and the line of a wrong key."""

from pathlib import Path

import pytest

from datamodules.errors import InputError
from rod.__main__ import main
from rod.config_files import check_yaml, with_place

FIT = ["fit", "--config", "s3cot/5_curriculum"]


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return Path("own.yaml")


@pytest.mark.parametrize(
    ("text", "line", "key"),
    [
        ("trainer:\n  max_epochs: 1\n  max_steps: 4\n  max_epochs: 5\n", 4, "max_epochs"),
        ("a: 1\nb:\n- c: 1\n  c: 2\n", 4, "c"),
        ("data: {seed: 1, seed: 2}\n", 1, "seed"),
        ("model:\n  dtype: auto\ndata:\n  seed: 1\nmodel:\n  peft: null\n", 5, "model"),
    ],
)
def test_a_key_that_is_there_twice_is_named_with_both_lines(own: Path, text: str, line: int, key: str) -> None:
    own.write_text(text)
    with pytest.raises(InputError, match=rf"own.yaml:{line}: the key '{key}' is there twice \(line \d has it too"):
        check_yaml(own)


def test_equal_keys_of_different_mappings_are_no_doubles(own: Path) -> None:
    own.write_text("a: &one {lr: 1}\nb:\n  <<: *one\n  lr: 2\nc: [{lr: 1}, {lr: 2}]\nd: &two [*two]\n1: a\n'1': b\n")
    check_yaml(own)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("modle:\n  dtype: auto\n", "own.yaml:2: modle.dtype: there is no such key; did you mean 'model.dtype'?"),
        (
            "model:\n  init_args:\n    optimizer:\n      init_args:\n        lrr: 1\n",
            "own.yaml:5: model.optimizer.lrr: ",
        ),
        ("# mine\ndata:\n  batch_size: many\n", "own.yaml:3: data.batch_size: a whole number is expected, not many"),
    ],
)
def test_a_wrong_key_of_a_file_has_its_line(
    own: Path, text: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    own.write_text(text)
    assert main([*FIT, "--config", str(own)]) == 2
    assert f"rod: error: {said}" in capsys.readouterr().err


def test_a_verb_of_ours_names_the_line_too(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own.write_text("outputt: x\n")
    assert main(["pairs", "--config=own.yaml"]) == 2
    assert "rod: error: own.yaml:1: outputt: there is no such key; did you mean 'output'?" in capsys.readouterr().err


def test_a_key_of_a_merged_mapping_has_its_line(own: Path) -> None:
    own.write_text("all: &all\n  dtype: bad\nmodel:\n  <<: *all\ndata:\n  <<: [*all, {seed: x}]\n")
    assert with_place("model.dtype: is none", ["--config", "own.yaml"]) == "own.yaml:2: model.dtype: is none"
    assert with_place("data.seed: is none", ["--config", "own.yaml"]) == "own.yaml:6: data.seed: is none"


def test_the_file_that_is_read_last_is_named(own: Path) -> None:
    own.write_text("data:\n  seed: 1\n")
    Path("later.yaml").write_text("data.seed: x\n")
    words = ["--config", "own.yaml", "--config=later.yaml", "--config", "missing.yaml"]
    assert with_place("data.seed: is no number", words) == "later.yaml:1: data.seed: is no number"


def test_the_file_whose_value_is_wrong_is_named(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own.write_text("data.batch_size: 3\ndata:\n  batch_size: x\n")
    Path("later.yaml").write_text("data:\n  batch_size: 4\n")
    assert main([*FIT, "--config", "own.yaml", "--config", "later.yaml"]) == 2
    assert "rod: error: own.yaml:3: data.batch_size: a whole number is expected, not x" in capsys.readouterr().err
    for spelled, told in (("1.50", "1.5"), ("yes", "True"), ("[1]", "[1]"), ("null", "None"), (".inf", "inf")):
        own.write_text(f"data.batch_size: {spelled}\n")
        message = f"data.batch_size: a whole number is expected, not {told}"
        assert with_place(message, ["--config", "own.yaml"]) == f"own.yaml:1: {message}"
    message = "data.batch_size: a whole number is expected, not y"
    assert with_place(message, ["--config", "own.yaml", "--config", "later.yaml"]) == message


def test_a_missing_file_has_the_line_that_names_it(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own.write_text("malicious: here.jsonl\nanswers:\n- first.jsonl\n- ./no/second.jsonl\n")
    message = "no/second.jsonl: there is no such file; check the path"
    assert with_place(message, ["--config", "own.yaml"]) == f"own.yaml:4: {message}"
    assert with_place(message, ["--config", "own.yaml", "--answers", "[no/second.jsonl]"]) == message
    Path("here.jsonl").write_text('{"prompt": "a"}\n')
    assert main(["pairs", "--config=own.yaml", "--output", "pairs"]) == 2
    assert "rod: error: own.yaml:2: --answers: there is no file 'first.jsonl'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("message", "words"),
    [
        ("data.seed: is no number", ["--config", "own.yaml", "--data.seed", "x"]),
        ("data.seed: is no number", ["--config", "own.yaml", "--data.seed=x"]),
        ("data.seed: is no number", ["--config", "own.yaml", "--data", "{seed: x}"]),
        ("data.seed: is no number", ["--config", "own.yaml", "--data.init_args.seed", "x"]),
        ("data.seed: its parts are no numbers", ["--config", "own.yaml", "--data.seed.first+=x"]),
        ("data.path: is missing", ["--config", "own.yaml"]),
        ("the seed: is no number", ["--config", "own.yaml"]),
        ("model.backbone: there is no such folder", ["--config", "s3cot/5_curriculum"]),
    ],
)
def test_words_and_shipped_files_have_no_place(own: Path, message: str, words: list[str]) -> None:
    own.write_text("data:\n  seed: 1\n")
    assert with_place(message, words) == message
