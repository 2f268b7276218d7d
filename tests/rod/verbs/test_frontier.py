import csv
import os
from pathlib import Path
from typing import Any

import pytest

from rod.__main__ import main
from tests.callbacks.evaluation.evaluation_run import metrics, predictions, results, write
from tests.processes import Processes


def rod(*words: object) -> int:
    return main([str(word) for word in words])


@pytest.fixture
def runs(tmp_path: Path) -> list[Path]:
    """Two files of another tool, scored: long answers of which 8 are right, short ones of which 6 are."""
    made = []
    for name, right, padding in (("long", 8, 60), ("short", 6, 10)):
        outs = ["so " * padding + f"\\boxed{{{7 if i < right else 8}}}." for i in range(10)]
        lines = [
            {"q": f"{i}?", "gold": "7", "kind": "ab"[i % 2], "n": padding, "out": out} for i, out in enumerate(outs)
        ]
        file = write(tmp_path / f"{name}.jsonl", *lines)
        words = ["--completion", "out", "--question", "q", "--gold", "gold", "--tokens", "n", "--group", "kind"]
        assert rod("score", file, "--output", tmp_path / "runs" / name, *words) == 0
        made.append(tmp_path / "runs" / name)
    return made


def table(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_two_suites_of_one_run_with_the_same_questions_stay_two(tmp_path: Path) -> None:
    runs = []
    for model, right in (("one", "7"), ("two", "8")):
        for suite, answer in (("gsm8k", right), ("gsm8k_brief", "9")):
            lines = [{"q": f"{i}?", "gold": "7", "n": 5, "out": f"\\boxed{{{answer}}}"} for i in range(4)]
            (tmp_path / model).mkdir(exist_ok=True)
            file = write(tmp_path / model / f"{suite}.jsonl", *lines)
            words = ["--completion", "out", "--question", "q", "--gold", "gold", "--tokens", "n"]
            assert rod("score", file, "--output", tmp_path / f"scored/{model}/{suite}", *words) == 0
        made = tmp_path / "runs" / model / "predictions.jsonl"
        made.parent.mkdir(parents=True)
        scored = sorted((tmp_path / "scored" / model).glob("*/predictions.jsonl"))
        made.write_text("".join(path.read_text() for path in scored))
        runs.append(made.parent)
    assert rod("frontier", *runs, "--output", tmp_path / "out") == 0
    found = {(row["suite"], row["condition"]): row["accuracy"] for row in table(tmp_path / "out/frontier.csv")}
    assert found == {
        ("gsm8k", "one"): "1.0",
        ("gsm8k", "two"): "0.0",
        ("gsm8k_brief", "one"): "0.0",
        ("gsm8k_brief", "two"): "0.0",
    }
    budgets = table(tmp_path / "out/budgets.csv")
    assert {(row["suite"], row["condition"]) for row in budgets} == found.keys()
    assert {row["n"] for row in budgets} == {"4"}


def test_files_and_numbers(runs: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert rod("frontier", *runs, "--output", out) == 0
    for name in ("frontier", "budgets"):
        assert (out / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert "<svg" in (out / f"{name}.svg").read_text()
    long, short = table(out / "frontier.csv")
    assert (long["condition"], long["accuracy"], long["tokens"], long["aes"]) == ("long", "0.8", "60.0", "")
    assert (short["condition"], short["accuracy"], short["on_front"], short["common"]) == ("short", "0.6", "True", "10")
    assert float(short["accuracy_p_holm"]) == float(short["accuracy_p"]) == 0.5
    budgets = {(row["condition"], row["budget"]): row["accuracy"] for row in table(out / "budgets.csv")}
    assert budgets == {("long", "32"): "0.0", ("long", "64"): "0.8", ("short", "32"): "0.6"}
    assert {row["group"] for row in table(out / "groups.csv")} == {"a", "b"}
    said = capsys.readouterr().out
    assert "against long" in said
    assert "10 questions show a difference of" in said
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    assert rod("frontier", *runs, "--output", out) == 2
    assert "more of this command's files); name another file" in capsys.readouterr().err
    assert rod("frontier", *runs, "--output", out, "--overwrite", "true") == 0
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before  # the same numbers, the same bytes


@pytest.mark.parametrize(("n", "told"), [(10, False), (5, True)])
def test_runs_with_equal_answers_are_compared(
    n: int, told: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of several samples a question, which have no exact test."""
    outs = ["\\boxed{7}", "\\boxed{8}"]
    lines = [{"q": f"{i}?", "gold": "7", "n": [5, 6], "out": outs} for i in range(n)]
    words = ["--completion", "out", "--question", "q", "--gold", "gold", "--tokens", "n"]
    runs = [tmp_path / "a", tmp_path / "b"]
    for run in runs:
        assert rod("score", write(tmp_path / f"{run.name}.jsonl", *lines), "--output", run, *words) == 0
    assert rod("frontier", *runs, "--output", tmp_path / "out") == 0
    said = capsys.readouterr().out
    assert ("show no difference, however large" in said) is told
    assert "show a difference" not in said


def test_other_questions_than_the_bases_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = []
    for name, gold, count in (("base", "7", 10), ("easy", "7", 6), ("other", "7.0", 10), ("same", "7", 10)):
        lines = [{"q": f"{i}?", "gold": gold, "n": 9, "out": "\\boxed{7}"} for i in range(count)]
        file = write(tmp_path / f"{name}.jsonl", *lines)
        words = ["--completion", "out", "--question", "q", "--gold", "gold", "--tokens", "n", "--name", "sums"]
        assert rod("score", file, "--output", tmp_path / "runs" / name, *words) == 0
        made.append(tmp_path / "runs" / name)
    capsys.readouterr()
    assert rod("frontier", *made, "--output", tmp_path / "out") == 0
    said = capsys.readouterr().out
    assert "sums: easy: has only 6 of the base's 10 questions" in said
    assert "sums: other: none of its 10 questions is the base's" in said
    assert "sums: same: " not in said
    assert "sums: base: " not in said


def test_a_pattern_another_base_and_groups_as_conditions(runs: list[Path], tmp_path: Path) -> None:
    pattern = tmp_path / "runs" / "*"
    assert rod("frontier", pattern, "--output", tmp_path / "out", "--base", "short", "--budgets", "[16]") == 0
    assert {row["budget"] for row in table(tmp_path / "out" / "budgets.csv")} == {"16"}
    assert rod("frontier", runs[0], "--output", tmp_path / "by", "--by", "group") == 0
    assert [row["condition"] for row in table(tmp_path / "by" / "frontier.csv")] == ["a", "b"]


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--base", "absent"], "--base: there is no condition 'absent'; there are 'long', 'short'"),
        (["absent"], "runs: there is no file 'absent'"),
    ],
)
def test_input_that_cannot_be(
    words: list[str], reason: str, runs: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert rod("frontier", *runs, *words, "--output", tmp_path / "out") == 2
    assert reason in capsys.readouterr().err


def test_tokens_are_counted_with_a_tokenizer(shared_data: Path, tmp_path: Path) -> None:
    """Of 40 published answers: the counts are the tokenizer's, and budgets cut at its tokens."""
    lines = (shared_data / "concise_cot_gpt" / "aqua-rat-100.jsonl").read_text().splitlines()
    file = tmp_path / "gpt.jsonl"
    file.write_text("\n".join([line for line in lines if '"gpt-4"' in line and '"verbose"' in line][:4]))
    words: list[Any] = ["--completion", "responses", "--question", "problem", "--gold", "correct_answer"]
    words += ["--answer.type", "choice", "--tokenizer", shared_data / "tokenizers" / "gpt2"]
    assert rod("score", file, "--output", tmp_path / "out", *words) == 0
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(shared_data / "tokenizers" / "gpt2" / "tokenizer.json"))
    for p in predictions(tmp_path / "out").values():
        ids = tokenizer.encode(p["completion"]).ids
        assert p["n_tokens"] == len(ids)
        assert p["completion"][: p["budget_ends"][0]] == tokenizer.decode(ids[:32])
    rows = metrics(tmp_path / "out")["budgets"]
    assert [row["budget"] for row in rows][:2] == [256, 512]
    assert {row["method"] for row in rows} == {"tokens"}
    assert rows[-1]["accuracy"] == results(tmp_path / "out")["gpt"]["metrics"]["accuracy"]["value"]
    assert rod("score", file, "--output", tmp_path / "no", *words[:-1], tmp_path / "absent") == 2


def offline(words: list[str]) -> int:
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        del os.environ[name]
    os.environ |= {"WANDB_MODE": "offline", "WANDB_SILENT": "true"}
    return main(words)


def test_a_project_gets_the_figures(runs: list[Path], tmp_path: Path) -> None:
    """In a process of its own, which alone ends a W&B run."""
    words = ["frontier", *runs, "--output", tmp_path / "out", "--wandb", "lengths"]
    Processes(offline, [str(word) for word in words], log=tmp_path / "log.txt").succeed()
    (logged,) = (tmp_path / "out" / "wandb").glob("offline-run-*")
    images = (logged / "files/media/images").rglob("*.png")
    assert {path.name.split("_")[0] for path in images} == {"frontier", "budgets"}
    record = next(logged.glob("run-*.wandb")).read_bytes().decode("utf-8", errors="ignore")
    assert "short/accuracy" in record
