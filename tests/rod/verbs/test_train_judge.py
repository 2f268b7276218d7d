"""``rod train-judge`` on small files of every form that sources have."""

import json
from pathlib import Path

import pytest
import yaml

from llm_modules.judges import Exchange
from llm_modules.judges.classifier import RefusalClassifier
from llm_modules.judges.labelled_answers import READINGS, AnswerSource, own_sentences, read_sources
from rod.__main__ import main

SMALL = ["--settings.min_sources", "2", "--settings.min_count", "2"]


def write(path: Path, rows: list[dict]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def config(tmp_path: Path) -> Path:
    write(
        tmp_path / "people.jsonl",
        [
            {"id": f"p{i}", "prompt": f"Do {i}!", "completion": text, "mark": mark, "type": kind}
            for i in range(6)
            for text, mark, kind in [
                [("I cannot help with that.", "no", "bad"), ("Here is how.", "yes", "fine"), ("Hm.", "partly", "fine")][
                    i % 3
                ]
            ]
        ],
    )
    write(tmp_path / "joined.jsonl", [{"text": f"User: go {i} Bot: I'm unable to help, {i}."} for i in range(6)])
    write(tmp_path / "asked.jsonl", [{"id": i, "question": f"What is {i}?"} for i in range(6)])
    write(tmp_path / "read.jsonl", [{"id": i, "output": f"Here is number {i}." if i else "No."} for i in range(6)])
    (tmp_path / "marks.json").write_text(json.dumps({"m": {"refused": "0", "skipped": "4-5"}}))
    sources = [
        {"name": "people", "path": "people.jsonl", "label": "field:mark", "refused": ["no"], "complied": ["yes"],
         "kind": "type", "unsafe": "bad", "leave_out": True},
        {"name": "joined", "path": "joined.jsonl", "completion": "text", "label": "refused",
         "split": "User: (?P<prompt>.*) Bot: (?P<completion>.*)"},
        {"name": "read", "path": "read.jsonl", "completion": "output", "label": "readings:m", "prompts": "asked.jsonl",
         "prompt": "question"},
    ]  # fmt: skip
    file = tmp_path / "train.yaml"
    file.write_text(
        yaml.safe_dump({"sources": sources, "data": str(tmp_path), "readings": str(tmp_path / "marks.json")})
    )
    return file


def train(config: Path, output: Path, *more: str) -> int:
    return main(["train-judge", "--config", str(config), "--output", str(output), *SMALL, *more])


def test_same_files_same_bytes_and_a_judge(config: Path, tmp_path: Path) -> None:
    assert train(config, tmp_path / "a") == 0
    assert train(config, tmp_path / "b", "--estimate", "false") == 0
    for name in ("refusal.json", "refusal.safetensors"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    judge = RefusalClassifier(weights=tmp_path / "a")
    judge.check()
    verdicts = judge.judge([Exchange("?", "I cannot help with that."), Exchange("?", "Here is how.")])
    assert [verdict.complied for verdict in verdicts] == [False, True]
    report = json.loads((tmp_path / "a" / "leave_one_out.json").read_text())
    assert [(row["source"], row["part"], row["n"]) for row in report["rows"]] == [
        ("people", "all", 4),
        ("people", "safe", 2),
        ("people", "unsafe", 2),
    ]
    assert report["rows"][0]["phrases"] == 1.0
    wrong = (tmp_path / "a" / "disagreements.jsonl").read_text().splitlines()
    assert len(wrong) == round(4 * (1 - report["rows"][0]["classifier"]))
    assert not (tmp_path / "b" / "leave_one_out.json").exists()


def test_sources_are_read_as_they_say(config: Path, tmp_path: Path) -> None:
    options = yaml.safe_load(config.read_text())
    sources = [AnswerSource(**{**source, "path": tmp_path / source["path"]}) for source in options["sources"]]
    sources[2].prompts = tmp_path / "asked.jsonl"
    answers = read_sources(sources, Path(options["readings"]), strict=True, rejected_dir=tmp_path)
    assert [answer.refused for answer in answers if answer.source == "people"] == [True, False, True, False]
    assert [answer.unsafe for answer in answers if answer.source == "people"] == [True, False, True, False]
    joined = [answer for answer in answers if answer.source == "joined"]
    assert (joined[2].prompt, joined[2].completion) == ("go 2", "I'm unable to help, 2.")
    read = [answer for answer in answers if answer.source == "read"]
    assert [(answer.prompt, answer.refused) for answer in read] == [
        ("What is 0?", True), ("What is 1?", False), ("What is 2?", False), ("What is 3?", False)
    ]  # fmt: skip


def test_a_limit_takes_the_same_answers_of_each_label(config: Path, tmp_path: Path) -> None:
    rows = [{"completion": f"{i}", "prompt": "", "mark": "no" if i % 2 else "yes"} for i in range(40)]
    file = write(tmp_path / "many.jsonl", rows)
    source = AnswerSource("many", file, label="field:mark", refused=["no"], complied=["yes"], limit=5)
    first, again = (read_sources([source], READINGS, True, tmp_path) for _ in range(2))
    assert first == again
    assert sorted(answer.refused for answer in first) == [False] * 5 + [True] * 5


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"path": "absent.jsonl"}, "absent.jsonl"),
        ({"label": "field:nowhere"}, "nowhere"),
        ({"label": "readings:nowhere"}, "readings:m"),
        ({"refused": ["x"], "complied": ["y"]}, "no answer"),
        ({"completion": "nowhere"}, "nowhere"),
        ({"split": "(?P<prompt>x)(?P<completion>y)"}, "sources.people.split"),
        ({"lable": "refused"}, "lable"),
    ],
)
def test_wrong_sources_are_one_line(
    config: Path, tmp_path: Path, change: dict, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    options = yaml.safe_load(config.read_text())
    options["sources"][0].update(change)
    config.write_text(yaml.safe_dump(options))
    assert train(config, tmp_path / "out") == 2
    error = capsys.readouterr().err
    assert said in error
    assert len(error.strip().splitlines()) == 1
    assert not (tmp_path / "out" / "refusal.json").exists()


def test_weights_are_not_replaced_unasked(config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train(config, tmp_path / "out", "--estimate", "false") == 0
    assert train(config, tmp_path / "out", "--estimate", "false") == 2
    assert "--overwrite" in capsys.readouterr().err
    assert train(config, tmp_path / "out", "--estimate", "false", "--overwrite", "true") == 0


def test_the_projects_own_sentences_are_of_both_kinds() -> None:
    sentences = own_sentences()
    assert len({(answer.prompt, answer.completion) for answer in sentences}) == len(sentences) > 150
    assert 0.3 < sum(answer.refused for answer in sentences) / len(sentences) < 0.7


def test_the_shipped_configuration_is_read(shared_data: Path, tmp_path: Path) -> None:
    from tests.conftest import ROOT

    options = yaml.safe_load((ROOT / "configs" / "judges" / "train.yaml").read_text())
    sources = [AnswerSource(**source) for source in options["sources"]]
    for source in sources:
        source.path = shared_data / source.path
        source.prompts = shared_data / source.prompts if source.prompts else None
    answers = read_sources(sources, READINGS, False, tmp_path)
    assert len(answers) > 5_000
    assert all(answer.prompt.strip() for answer in answers if not answer.source.startswith("openings"))
