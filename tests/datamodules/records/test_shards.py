"""Shards survive kills, and merging keeps each record once."""

import json
import logging
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from datamodules.errors import InputError
from datamodules.records.kinds import Question
from datamodules.records.reader import read_records
from datamodules.records.shards import JsonlShard, id_lines, merge_shards


def question(n: int) -> Question:
    return Question(f"q{n}", f"What is {n} + {n}?\u2028Née?", str(2 * n))


def test_records_come_back(tmp_path: Path) -> None:
    path = tmp_path / "new" / "rank0.jsonl"
    with JsonlShard(path) as shard:
        shard.append(question(0))
        assert path.read_text() == ""
        shard.flush()
        assert [record_id for record_id, _ in id_lines(path)] == ["q0"]
        shard.append(question(1))
    with JsonlShard(path) as shard:
        assert [record_id for record_id, _ in id_lines(path)] == ["q0", "q1"]
        shard.append(question(2))
    assert read_records(path, Question, strict=True) == [question(n) for n in range(3)]


def test_an_error_loses_nothing_that_was_done(tmp_path: Path) -> None:
    def interrupted() -> None:
        with JsonlShard(tmp_path / "s.jsonl") as shard:
            shard.append(question(0))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert read_records(tmp_path / "s.jsonl", Question) == [question(0)]


@pytest.mark.parametrize("torn", ['{"id": "q1", "quest', "x" * 200_000, '"id"'])
def test_a_torn_line_is_cut_off_and_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture, torn: str) -> None:
    path = tmp_path / "s.jsonl"
    with JsonlShard(path) as shard:
        shard.append(question(0))
    whole = path.read_bytes()
    path.write_bytes(whole + torn.encode())
    with caplog.at_level(logging.WARNING), JsonlShard(path) as shard:
        assert torn in caplog.text
        assert path.read_bytes() == whole
        shard.append(question(1))
    assert read_records(path, Question, strict=True) == [question(0), question(1)]


def test_a_record_that_lacks_its_end_of_line_alone_stays(tmp_path: Path) -> None:
    path = tmp_path / "s.jsonl"
    with JsonlShard(path) as shard:
        shard.append(question(0))
    path.write_bytes(path.read_bytes().rstrip(b"\n"))
    assert [record_id for record_id, _ in id_lines(path)] == ["q0"], "it counts as done"
    with JsonlShard(path) as shard:
        shard.append(question(1))
    assert read_records(path, Question, strict=True) == [question(0), question(1)]


def test_a_file_that_is_one_torn_line_becomes_empty(tmp_path: Path) -> None:
    path = tmp_path / "s.jsonl"
    path.write_text('{"id": "q')
    with JsonlShard(path):
        assert path.read_bytes() == b""
    assert path.read_bytes() == b""


def test_a_kill_leaves_what_was_flushed(tmp_path: Path) -> None:
    script = (
        "import sys, os, signal\nfrom pathlib import Path\n"
        "from datamodules.records.kinds import Question\nfrom datamodules.records.shards import JsonlShard\n"
        "shard = JsonlShard(Path(sys.argv[1]))\n"
        "shard.append(Question('a', 'x')); shard.flush(); shard.append(Question('b', 'y'))\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    root = Path(__file__).resolve().parents[3]
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path / "s.jsonl")], cwd=root, env=dict(os.environ))
    assert done.returncode == -signal.SIGKILL
    assert read_records(tmp_path / "s.jsonl", Question) == [Question("a", "x")]


def test_merging_keeps_the_first_of_each_id(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for rank, numbers in enumerate([(0, 2), (1, 2, 3)]):
        with JsonlShard(tmp_path / f"rank{rank}.jsonl") as shard:
            for n in numbers:
                shard.append(question(n))
    with (tmp_path / "rank1.jsonl").open("a") as file:
        file.write('{"id": "q9", "que')
    out = tmp_path / "all.jsonl"
    out.write_text(json.dumps({"id": "stale"}) + "\n")
    for shards in (tmp_path / "rank*.jsonl", tmp_path):
        assert merge_shards(shards, out) == 4
        assert read_records(out, Question, strict=True) == [question(n) for n in range(4)]
    assert "rank1.jsonl:4: skipped" in caplog.text
    assert sorted(path.name for path in tmp_path.iterdir()) == ["all.jsonl", "rank0.jsonl", "rank1.jsonl"]


def test_nothing_to_merge(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no shard to merge"):
        merge_shards(tmp_path / "rank*.jsonl", tmp_path / "out.jsonl")
