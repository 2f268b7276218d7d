"""``rod filter``: files in, files out, nothing overwritten."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from datamodules.errors import InputError
from datamodules.records import Trace, read_records, to_json
from datamodules.s3cot.records import CurriculumItem
from rod.parser import run_verb
from rod.verbs.filter import run


def main(words: list[str]) -> None:
    run_verb(run, words, "filter")


def traces(question: str, answers: dict[float, str]) -> list[Trace]:
    return [
        Trace(
            f"{question}|{alpha}", question, "1+1?", "2", "system2", alpha, (), 0, 0, "p",
            f"{alpha} \\boxed{{{answer}}}", round(100 + 100 * alpha), "stop", answer, None, "m",
        )
        for alpha, answer in answers.items()
    ]  # fmt: skip


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    folder = tmp_path / "traces"
    folder.mkdir()
    first, second = traces("a", {0.0: "2", -0.2: "2", -0.5: "2"}), traces("b", {0.0: "2", -0.2: "2", -0.5: "3"})
    (folder / "rank0.jsonl").write_text("".join(to_json(trace) + "\n" for trace in first))
    (folder / "rank1.jsonl").write_text("".join(to_json(trace) + "\n" for trace in second + first[:1]) + "{torn\n")
    return folder


def test_one_id_of_two_files_is_one_question(tmp_path: Path) -> None:
    first = traces("train-1", {0.0: "2", -0.5: "2"})
    other = [replace(trace, question="3+5?", gold="8") for trace in traces("train-1", {0.0: "8", -0.4: "8"})]
    again = [replace(trace, id=f"{trace.id}'", question=f"{trace.question} ", gold=None) for trace in first[1:]]
    two = [replace(trace, gold="4") for trace in again]
    spelled = [replace(trace, gold=" 2.0") for trace in again]
    for name, own in (("a", first), ("b", other), ("c", other[1:]), ("d", two), ("e", again), ("f", spelled)):
        (tmp_path / f"{name}.jsonl").write_text("".join(to_json(trace) + "\n" for trace in own))
    for name, told in (
        ("b", "the files have two traces 'train-1|0.0', whose question differs"),
        ("c", "'train-1' names two questions"),
        ("d", "'train-1' has two gold answers, '2' and '4'"),
    ):
        files = f"[{tmp_path}/a.jsonl,{tmp_path}/{name}.jsonl]"
        with pytest.raises(InputError, match=re.escape(told)):
            main(["--traces", files, "--by", "gold", "--output", str(tmp_path / "items.jsonl")])
    for name in ("e", "f"):  # spelled otherwise, without the gold answer or with it in another form
        files = f"[{tmp_path}/a.jsonl,{tmp_path}/{name}.jsonl]"
        main(["--traces", files, "--by", "gold", "--output", str(tmp_path / f"{name}_items.jsonl")])


def test_by_gold(shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "new" / "items.jsonl"
    main(["--traces", f"{shards}/*.jsonl", "--by", "gold", "--output", str(output)])
    items = read_records(output, CurriculumItem, strict=True)
    assert [(item.id, [v.length_ratio for v in item.variants]) for item in items] == [("a", [0.8, 0.5]), ("b", [0.8])]
    dropped = [json.loads(line) for line in output.with_suffix(".dropped.jsonl").read_text().splitlines()]
    assert dropped == [{"id": "b|-0.5", "reason": "wrong"}]
    report = json.loads(output.with_suffix(".report.json").read_text())
    assert (report["by"], report["traces"], report["traces_kept"], report["precision"]) == ("gold", 6, 5, 1.0)
    assert (shards / "rank1.rejected.jsonl").is_file()
    assert "kept, of 2 of 2 questions" in capsys.readouterr().out
    # What was set aside is no shard for the next run.
    main(["--traces", f"{shards}/*.jsonl", "--by", "agreement", "--output", str(output), "--overwrite", "true"])
    assert [item.id for item in read_records(output, CurriculumItem)] == ["a"]


def test_several_files_and_a_config(shards: Path, tmp_path: Path) -> None:
    output = tmp_path / "items.jsonl"
    config = tmp_path / "filter.yaml"
    files = [f"{shards}/rank0.jsonl", f"{shards}/rank1.jsonl"]
    config.write_text(f"traces: {json.dumps(files)}\noutput: {output}\nby: gold\n")
    main(["--config", str(config), "--by", "agreement"])
    assert [item.id for item in read_records(output, CurriculumItem)] == ["a"]
    output.unlink()
    main(["--traces", *files, "--output", str(output), "--overwrite", "true"])
    assert [item.id for item in read_records(output, CurriculumItem)] == ["a", "b"]


def test_what_exists_is_not_overwritten(shards: Path, tmp_path: Path) -> None:
    output = tmp_path / "items.jsonl"
    report = output.with_suffix(".report.json")
    report.write_text("mine")
    with pytest.raises(InputError, match=r"items\.report\.json' exists; .* --overwrite true"):
        main(["--traces", f"{shards}/*.jsonl", "--output", str(output)])
    assert report.read_text() == "mine"
    assert not output.exists()


def test_wrong_input(shards: Path, tmp_path: Path) -> None:
    output = str(tmp_path / "items.jsonl")
    with pytest.raises(InputError, match=r"--traces: there is no file '.*none\*'"):
        main(["--traces", str(tmp_path / "none*"), "--output", output])
    with pytest.raises(InputError, match=r"rank1\.jsonl:5: broken JSON"):
        main(["--traces", f"{shards}/*.jsonl", "--output", output, "--strict", "true"])
    with pytest.raises(InputError, match="by"):
        main(["--traces", f"{shards}/*.jsonl", "--output", output, "--by", "luck"])
    with pytest.raises(InputError, match="traces"):
        main(["--output", output])
