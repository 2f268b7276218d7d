"""``rod pairs``: what it reads."""

import json
from pathlib import Path

import pytest

from rod.__main__ import main
from tests.rod.traces import answer_line


@pytest.fixture
def words(tmp_path: Path) -> list[str]:
    answers = [answer_line(f"Bake {i}?", "Ten minutes.") for i in range(2)]
    attacks = [{"prompt": f"Attack {i}!", "target": "Sure, here"} for i in range(2)]
    for name, lines in (("answers", answers), ("malicious", attacks)):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    files = [f"--{name}={tmp_path / name}.jsonl" for name in ("answers", "malicious")]
    return ["pairs", *files, f"--output={tmp_path / 'out'}", "--n_train=2", "--n_val=0"]


def test_a_byte_order_mark_is_no_part_of_a_refusal(words: list[str], tmp_path: Path) -> None:
    (tmp_path / "refusals.txt").write_text("No, sorry.\n", encoding="utf-8-sig")
    assert main([*words, f"--refusals={tmp_path / 'refusals.txt'}"]) == 0
    pairs = [json.loads(line) for line in (tmp_path / "out/pairs.train.jsonl").read_text().splitlines()]
    assert {pair["reject"] for pair in pairs} == {"No, sorry."}


def test_refusals_in_another_encoding(words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "refusals.txt").write_text("Non, désolé.\n", encoding="latin-1")
    assert main([*words, f"--refusals={tmp_path / 'refusals.txt'}"]) == 2
    assert "refusals.txt' is not UTF-8" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("malicious", "a record needs prompt, target: say with --malicious_fields"),
        ("other_malicious", "a record needs question: say with --other_field"),
        ("rejections", "rename the fields"),
    ],
)
def test_a_file_with_other_names_is_told_with_the_option_that_maps_them(
    words: list[str], name: str, remedy: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = tmp_path / "own.csv"
    own.write_text("id,question\n1,\n" if name == "other_malicious" else "goal,reply\nAttack!,Sure\n")
    assert main([*words, f"--{name}={own}"]) == 2
    assert remedy in capsys.readouterr().err
