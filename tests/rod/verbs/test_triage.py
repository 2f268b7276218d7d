"""Samples that look like malicious requests to the model come first, and are dropped."""

import csv
import json
from pathlib import Path

import pytest

from rod.__main__ import main


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    assert main(["world", "--output", str(folder)]) == 0
    return folder


def lines(path: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def triage(world: Path, data: Path, output: Path, *words: str) -> int:
    paths = ["--path", str(data), "--pairs", str(world / "twins.train.jsonl"), "--output", str(output)]
    return main(["triage", *paths, "--model", "miniature", "--limit", "60", *words])


@pytest.mark.parametrize("at", ["prompt", "response"])
def test_forbidden_requests_among_harmless_ones_are_dropped(world: Path, tmp_path: Path, at: str) -> None:
    samples = [
        {"prompt": request["prompt"], "response": "Take it.", "kind": kind}
        for kind, n in (("benign", 27), ("forbidden", 3))
        for request in lines(world / f"requests.{kind}.test.jsonl")[:n]
    ]
    samples.insert(5, {"prompt": "", "response": "no request", "kind": "bad"})
    data, output = tmp_path / "data.jsonl", tmp_path / "out"
    data.write_text("\n".join(map(json.dumps, samples)))
    assert triage(world, data, output, "--at", at) == 0
    dropped = lines(output / "dropped.jsonl")
    assert {sample["kind"] for sample in dropped} == {"forbidden"}
    assert lines(output / "kept.jsonl") == [sample for sample in samples if sample["kind"] == "benign"]
    table = list(csv.DictReader((output / "scores.csv").open()))
    assert [int(row["line"]) for row in table] == [line for line in range(1, 32) if line != 6]
    worst = [float(row["score"]) for row in table if row["kept"] == "False"]
    places = [samples.index(sample) + 1 for sample in dropped]
    assert [float(row["score"]) for place in places for row in table if int(row["line"]) == place] == sorted(worst)[
        ::-1
    ]
    assert len(worst) == 3
    assert min(worst) > max(float(row["score"]) for row in table if row["kept"] == "True")
    assert triage(world, data, output) == 2, "files that are there are not overwritten"


def test_samples_that_cannot_be_read_are_left_out_and_counted(
    world: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    call = {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "add", "arguments": {}}}]}
    pair = {"prompt": "Hello", "response": "World"}
    samples = [
        {"messages": [{"role": "user", "content": "1+1?"}, call]},
        pair,
        {**pair, "response": "World " * 2000},
        {**pair, "note": "half \ud83d", "sign": "é"},
    ]
    data, output = tmp_path / "data.jsonl", tmp_path / "out"
    data.write_text("\n".join(map(json.dumps, samples)))
    assert triage(world, data, output, "--drop", "0.5") == 0
    assert f"left out 1 of 4 samples that cannot be rendered, such as {data}:1: " in caplog.text
    assert f"left out 1 of 4 samples that are too long, such as {data}:3: " in caplog.text
    assert "but the model has 1,024 positions" in caplog.text
    written = lines(output / "kept.jsonl") + lines(output / "dropped.jsonl")
    assert sorted(written, key=len) == [samples[1], samples[3]]
    assert [int(row["line"]) for row in csv.DictReader((output / "scores.csv").open())] == [2, 4]
    data.write_text(json.dumps(samples[2]))
    assert triage(world, data, tmp_path / "none") == 2


def test_what_cannot_be_ranked_is_told_before_anything_is_written(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "data.jsonl"
    data.write_text(json.dumps({"prompt": "Hello", "response": "World"}))
    other, same = tmp_path / "other.jsonl", tmp_path / "same.jsonl"
    other.write_text(json.dumps({"harmful": "Hello", "harmless": "World"}))
    twins = [twin | {"benign": twin["malicious"]} for twin in lines(world / "twins.train.jsonl")[:8]]
    same.write_text("\n".join(map(json.dumps, twins)))
    for words, said in (
        (["--drop", "1"], "--drop: must be a share from 0 to less than 1, is 1"),
        (["--pairs", str(same)], "--pairs: the model tells malicious requests from their twins with an AUROC of 0.500"),
        (["--pairs", str(other)], "a record needs malicious, benign: rename the fields"),
        (["--fields.answer", "response"], "--fields: unknown name 'answer'"),
        (["--limit", "3"], "triage: 3 pairs are too few"),
    ):
        assert triage(world, data, tmp_path / "out", *words) == 2
        assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
