"""The options of a verb come from its function."""

import dataclasses
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from datamodules.errors import InputError
from rod.__main__ import LIGHTNING, VERBS, main
from rod.cli import lightnings_parsers
from rod.cli import main as run_lightnings
from rod.parser import run_verb

CALLS: list[tuple[object, ...]] = []


def verb(runs: list[Path], /, files: str | list[str], alpha: float = 0.5, names: list[str] | None = None) -> None:
    """Do something.

    Further down there is more of it.

    Args:
        runs: Folders to compare.
        files: Files or patterns.
        alpha: A number.
        names: Some names.
    """
    CALLS.append((runs, files, alpha, names))


@dataclasses.dataclass
class Blue:
    shade: int = 1


@dataclasses.dataclass
class Red:
    depth: int = 1


def call(*words: str) -> tuple[object, ...]:
    run_verb(verb, words, "verb")
    return CALLS.pop()


def test_unnamed_words_and_options() -> None:
    assert call("a", "b", "--files", "x") == ([Path("a"), Path("b")], ["x"], 0.5, None)
    assert call("--files", "x", "--alpha", "-1", "a")[:3] == ([Path("a")], ["x"], -1.0)
    with pytest.raises(InputError, match="runs"):
        call("--files", "x")


def test_a_null_for_a_class_within_a_class_is_one() -> None:
    words = ["--config", "mllr/2_tune", "--model.learning_rates.result", "null", "--model.generation.slots", "null"]
    found = lightnings_parsers()["fit"].parse_args([*words, "--model.learning_rates.modules", "[layers.1.*]"])
    assert found.model.init_args.learning_rates.result is None
    assert found.model.init_args.generation.slots is None


def test_a_text_that_ends_in_none_is_no_null(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--config", "s3cot/3_sample", "--data.gold_pattern", "(.+)=None", "--data.chat_template=x=None"]
    with pytest.raises(SystemExit):
        run_lightnings(["predict", *words, "--data.limit=None", "--print_config"])
    found = yaml.safe_load(capsys.readouterr().out)["data"]["init_args"]
    assert (found["gold_pattern"], found["chat_template"], found["limit"]) == ("(.+)=None", "x=None", None)


def test_one_word_without_a_name() -> None:
    def one(word: str = "", /) -> None:
        """Do."""
        CALLS.append((word,))

    for words in ([], ["some"]):
        run_verb(one, words, "one")
    assert CALLS == [("",), ("some",)]
    CALLS.clear()


def test_a_list_of_texts_takes_several_words_or_a_list() -> None:
    for words in (["x y", "[z].jsonl"], ['["x y", "[z].jsonl"]']):
        assert call("a", "--files", *words, "--alpha", "1")[1] == ["x y", "[z].jsonl"]
    assert call("a", "--files", "[xy]*.jsonl")[1] == "[xy]*.jsonl", "a pattern is no list"
    assert call("a", "--files", "x", "--names", "n")[3] == ["n"]
    assert call("a", "--files", "x", "--names", "[n, m]")[3] == ["n", "m"]
    with pytest.raises(InputError, match="files"):
        call("a", "--files")


def test_a_config_gives_options_that_words_override(tmp_path: Path) -> None:
    config = tmp_path / "verb.yaml"
    config.write_text("files: x\nalpha: 2\n")
    assert call("a", "--config", str(config), "--alpha", "3") == ([Path("a")], "x", 3.0, None)
    config.write_text("file: x\n")
    with pytest.raises(InputError, match="did you mean 'files'"):
        call("a", "--config", str(config))


def test_the_help_is_the_docstring(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        call("--help")
    text = capsys.readouterr().out
    assert stopped.value.code == 0
    assert all(words in text for words in ("rod verb", "Do something.", "Folders to compare.", "Files or patterns."))
    assert "Args:" not in text


HEAVY = {"plan", "score", "train-judge"}  # their options are settings of judges and models
LIGHT = sorted(verb for verb, module in VERBS.items() if module != LIGHTNING and verb not in HEAVY)


def test_verbs_say_what_they_do_without_importing_torch() -> None:
    code = f"""
import sys
from rod.__main__ import main
for verb in {LIGHT}:
    try:
        main([verb, "--help"])
    except SystemExit as stop:
        assert stop.code == 0
    assert not {{"torch", "lightning", "transformers"}} & sys.modules.keys(), verb
"""
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL, timeout=60)


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (
            "[yes, no]",
            "labels: Expected a str. Got value: True; YAML reads yes, no, on and off as true and false; to mean",
        ),
        ("['yes', no]", "Got value: False; YAML reads yes"),
        ("[1, 2]", "Got value: 1; to mean a text, write it in quotes"),
    ],
)
def test_texts_that_yaml_reads_as_something_else(labels: str, said: str) -> None:
    def verb(labels: list[str]) -> None:
        """Do nothing."""

    with pytest.raises(InputError, match=re.escape(said)):
        run_verb(verb, ["--labels", labels], "verb")


def test_a_text_in_a_file_that_yaml_reads_as_something_else(tmp_path: Path) -> None:
    def verb(name: str | None = None) -> None:
        """Do nothing."""

    (tmp_path / "c.yaml").write_text("name: no")
    with pytest.raises(InputError, match=r"name: Expected a str; YAML reads yes, no, .* write it in quotes"):
        run_verb(verb, ["--config", str(tmp_path / "c.yaml")], "verb")


def test_a_bad_value_of_one_type_of_a_union_is_told_without_the_keys_of_the_others() -> None:
    def paint(colour: Blue | Red | None = None) -> None:
        """Do."""

    with pytest.raises(InputError, match=r"^colour\.shade: a whole number is expected, not dark$"):
        run_verb(paint, ["--colour", "{shade: dark}"], "paint")
    with pytest.raises(InputError, match=r"^colour\.tone: there is no such key; "):
        run_verb(paint, ["--colour", "{tone: 3}"], "paint")


def test_an_unknown_key_of_the_one_type_with_keys_is_named() -> None:
    def paint(colour: int | Red = 1) -> None:
        """Do."""

    with pytest.raises(InputError, match=r"^colour\.depht: there is no such key; did you mean 'depth'\?$"):
        run_verb(paint, ["--colour", "{depht: 3}"], "paint")


@pytest.mark.parametrize("verb", ["fit", "plan"])
def test_a_verb_without_a_stage_names_one(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([verb]) == 2
    assert "--config s3cot/1_direction" in capsys.readouterr().err
