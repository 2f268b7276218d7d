import json
from pathlib import Path
from typing import Any

import pytest

from callbacks.evaluation.paired import mcnemar
from datamodules.records.reader import to_json
from datamodules.suites.predictions import JudgeVerdict, Prediction, ScoredResponse
from rod.__main__ import main


def predictions(right: str, tokens: int, **settings: Any) -> list[Prediction]:
    """A prediction for each letter: ``1`` right, ``0`` wrong, ``?`` not known."""
    return [
        Prediction(
            id=f"sums/{i}|system1|none|s0",
            completion="x",
            question_id=f"sums/{i}",
            **({"question": f"{i}?", "gold": "1", "suite": "sums", "system": "system1"} | settings),
            n_tokens=tokens + i,
            correct=None if letter == "?" else letter == "1",
            unchecked=letter == "?",
        )
        for i, letter in enumerate(right)
    ]


def save(folder: Path, *made: Any, name: str = "predictions.jsonl") -> Path:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text("".join(to_json(record) + "\n" for record in made))
    return folder


def compare(tmp_path: Path, *runs: Path) -> dict[tuple[str, str], dict[str, Any]]:
    (tmp_path / "numbers.json").unlink(missing_ok=True)
    assert main(["compare", *map(str, runs), "--output", str(tmp_path / "numbers.json")]) == 0
    rows = json.loads((tmp_path / "numbers.json").read_text())
    return {(Path(row["second"]).name, f"{row['suite']} {row['metric']}"): row for row in rows}


def test_numbers_by_hand(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a = save(tmp_path / "a", *predictions("1110000000", 50))
    b = save(tmp_path / "b", *predictions("0111111100", 40))
    c = save(tmp_path / "c", *predictions("1110000000", 50))
    found = compare(tmp_path, a, b, c)
    accuracy = found["b", "sums accuracy"]
    assert (accuracy["first_value"], accuracy["second_value"]) == (0.3, 0.7)
    assert accuracy["difference"] == pytest.approx(0.4)
    assert accuracy["p"] == pytest.approx(mcnemar(1, 5))
    assert accuracy["low"] < 0.4 < accuracy["high"]
    assert (accuracy["records"], accuracy["left_out"]) == (10, 0)
    tokens = found["b", "sums tokens"]
    assert (tokens["first_value"], tokens["second_value"]) == (54.5, 44.5)
    assert (tokens["difference"], tokens["low"], tokens["high"]) == (-10, -10, -10)
    assert tokens["p"] == pytest.approx(2 / 2**10)
    assert found["c", "sums accuracy"]["difference"] == 0
    assert found["c", "sums accuracy"]["p"] == 1
    table = capsys.readouterr().out
    assert "against a\n" in "\n".join(line.rstrip() for line in table.splitlines())
    assert "+40.0" in table
    assert "-10.0 to -10.0" in table


def test_samples_of_a_question_are_one_record(tmp_path: Path) -> None:
    def sampled(folder: Path, first: str, second: str) -> Path:
        again = [Prediction(**{**vars(p), "id": p.id[:-1] + "1", "sample": 1}) for p in predictions(second, 50)]
        return save(folder, *predictions(first, 50), *again)

    a, b = sampled(tmp_path / "a", "1100", "1000"), sampled(tmp_path / "b", "1101", "0111")
    found = compare(tmp_path, a, b)["b", "sums accuracy"]
    assert (found["records"], found["first_value"], found["second_value"]) == (4, 0.375, 0.75)
    assert found["p"] == 0.5 != mcnemar(1, 3)  # halves are no right and wrong


def test_records_without_a_verdict_take_no_part(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def judged(folder: Path, said: str) -> Path:
        verdicts = {"?": JudgeVerdict("judge", None, error="429"), "1": JudgeVerdict("judge", True)}
        made = [
            Prediction(**{**vars(p), "correct": None, "unchecked": False, "verdicts": (verdicts.get(letter, no),)})
            for p, letter in zip(predictions(said, 50, kind="safety", gold=None), said, strict=True)
        ]
        return save(folder, *made)

    no = JudgeVerdict("judge", False)
    a, b, c = (judged(tmp_path / name, said) for name, said in (("a", "11?0"), ("b", "10?1"), ("c", "?011")))
    found = compare(tmp_path, a, b, c)
    assert (found["b", "sums asr/judge"]["records"], found["b", "sums asr/judge"]["left_out"]) == (3, 0)
    other = found["c", "sums asr/judge"]
    assert (other["records"], other["left_out"], other["first_value"], other["second_value"]) == (2, 2, 0.5, 0.5)
    assert found["c", "sums tokens"]["records"] == 4
    assert "2 (-2)" in capsys.readouterr().out


def test_unchecked_answers_are_wrong_as_in_the_headline(tmp_path: Path) -> None:
    a, b = save(tmp_path / "a", *predictions("11?0", 50)), save(tmp_path / "b", *predictions("1???", 50))
    found = compare(tmp_path, a, b)["b", "sums accuracy"]
    assert (found["records"], found["left_out"], found["first_value"], found["second_value"]) == (4, 0, 0.5, 0.25)


def test_verdicts_of_judges(tmp_path: Path) -> None:
    def judged(folder: Path, said: str, **settings: Any) -> Path:
        made = [
            Prediction(**{**vars(p), "correct": None, "verdicts": (JudgeVerdict("judge", letter == "1"),)})
            for p, letter in zip(predictions(said, 50, **settings), said, strict=True)
        ]
        return save(folder, *made)

    a, b = judged(tmp_path / "a", "11110", kind="safety"), judged(tmp_path / "b", "00010", kind="safety")
    found = compare(tmp_path, a, b)["b", "sums asr/judge"]
    assert (found["first_value"], found["second_value"], found["p"]) == (0.8, 0.2, mcnemar(3, 0))
    a, b = judged(tmp_path / "a", "10", kind="benign"), judged(tmp_path / "b", "11", kind="benign")
    assert compare(tmp_path, a, b)["b", "sums compliance/judge"]["difference"] == 0.5


def test_likelihoods(tmp_path: Path) -> None:
    for name, factor in (("a", 1.0), ("b", 1.5)):
        responses = [ScoredResponse(f"ppl/{i}|plain|none|s0", "ppl", factor * (i + 1), 2) for i in range(3)]
        save(tmp_path / name, *responses, name="responses.jsonl")
        save(tmp_path / name)
    found = compare(tmp_path, tmp_path / "a", tmp_path / "b")["b", "ppl nll"]
    assert (found["first_value"], found["second_value"]) == (1.0, 1.5)
    assert found["records"] == 3


def test_files_of_earlier_versions_are_compared_too(tmp_path: Path) -> None:
    """They call the attack template ``wrap``; a run that went on after the change has both names in one file."""
    made = predictions("1100", 50, attack_template="prefill")
    a, b = save(tmp_path / "a", *made), save(tmp_path / "b", *made)
    lines = (b / "predictions.jsonl").read_text().splitlines()
    lines[:3] = [line.replace('"attack_template": "prefill"', '"wrap": "prefill"') for line in lines[:3]]
    (b / "predictions.jsonl").write_text("\n".join(lines))
    found = compare(tmp_path, a, b)["b", "sums accuracy"]
    assert (found["attack_template"], found["records"], found["difference"]) == ("prefill", 4, 0)


def refused(capsys: pytest.CaptureFixture[str], *runs: Path) -> str:
    assert main(["compare", *map(str, runs)]) == 2
    return capsys.readouterr().err


def test_other_records_and_other_suites_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a = save(tmp_path / "a", *predictions("1100", 50))
    b = save(tmp_path / "b", *predictions("110", 50))
    expected = "'sums system1' has different records (1 only in the first, 0 only in the second, such as 'sums/3')"
    assert expected in refused(capsys, a, b)
    b = save(tmp_path / "b", *predictions("1100", 50, system="system2"))
    assert "only one of them has 'sums system1', 'sums system2'" in refused(capsys, a, b)
    for settings in ({"gold": "2"}, {"question": "another?"}):
        b = save(tmp_path / "b", *predictions("1100", 50, **settings))
        expected = "'sums system1': 4 records have another question or gold answer, such as 'sums/0'"
        assert expected in refused(capsys, a, b)
    unmeasured = [Prediction(**{**vars(p), "n_tokens": None, "unchecked": False}) for p in predictions("????", 0)]
    b = save(tmp_path / "b", *unmeasured)
    assert "they have no metric in common" in refused(capsys, a, b)


def test_runs_that_cannot_be(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a = save(tmp_path / "a", *predictions("1100", 50))
    assert "give two different runs or more" in refused(capsys, a)
    assert "give two different runs or more" in refused(capsys, a, a)
    (tmp_path / "empty").mkdir()
    assert "has no predictions.jsonl; give the folder of a finished test run" in refused(capsys, a, tmp_path / "empty")
    (tmp_path / "empty" / "predictions.jsonl").write_text("{}\n")
    assert "no good line" in refused(capsys, a, tmp_path / "empty")


def test_a_difference_that_few_records_cannot_show_is_doubted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a, b = save(tmp_path / "a", *predictions("1110000000", 50)), save(tmp_path / "b", *predictions("1111000000", 50))
    found = compare(tmp_path, a, b)["b", "sums accuracy"]
    assert found["detectable"] == pytest.approx(0.6)  # six of ten must differ
    said = " ".join(capsys.readouterr().out.split())
    assert "a difference of +10.0 points is less than the 60.0 that 10 records show" in said
    c = save(tmp_path / "c", *predictions("1" * 10, 50))
    compare(tmp_path, a, c)
    assert "less than" not in capsys.readouterr().out


def test_clusters_take_the_place_of_records(tmp_path: Path) -> None:
    def clustered(folder: Path, right: str) -> Path:
        made = [Prediction(**{**vars(p), "cluster": f"{i // 5}"}) for i, p in enumerate(predictions(right, 50))]
        return save(folder, *made)

    a, b = clustered(tmp_path / "a", "0" * 20), clustered(tmp_path / "b", "1" * 5 + "0" * 15)
    found = compare(tmp_path, a, b)["b", "sums accuracy"]
    assert found["p"] > 0.05 > mcnemar(0, 5) / 1.5
    assert found["detectable"] is None, "four clusters show nothing"
