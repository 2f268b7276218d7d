"""Every line is read as what it claims to be, or set aside with its reason."""

import json
import logging
import re
from pathlib import Path

import pytest

from datamodules.errors import InputError
from datamodules.records.kinds import Instruction, Question, Trace
from datamodules.records.reader import extract_gold, read_records, to_json
from datamodules.s3cot.records import CurriculumItem, Variant

TRACE = Trace(
    "q|system2|-|a0|s0", "q", "1+1?", None, "system2", -0.1, (3, 4), 0, 7, "p", "\\boxed{2}", 9, "stop", "2", None, "m"
)


def write(path: Path, *lines: object) -> Path:
    path.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))
    return path


@pytest.mark.parametrize(
    "record",
    [
        Question("a", "1+1?\u2028“é”\n", "2"),
        Instruction("a", "say hi", "", None),
        TRACE,
        CurriculumItem("q", "1+1?", None, "two", 2, (Variant("2", 1, -0.1, 0.5), Variant("two", 2, -0.0, 1.0))),
        CurriculumItem("q", "1+1?", "2", "two", 2, ()),
    ],
)
def test_records_come_back_as_they_were(tmp_path: Path, record: Question) -> None:
    path = tmp_path / "r.jsonl"
    path.write_text(to_json(record) + "\n", encoding="utf-8")
    assert read_records(path, type(record), strict=True) == [record]


def test_foreign_names_missing_ids_and_numbers(tmp_path: Path) -> None:
    path = write(
        tmp_path / "test.jsonl", {"problem": "1+1?", "answer": 2, "level": 1}, "", {"problem": "2+2?", "answer": "4"}
    )
    fields = {"question": "problem", "gold": "answer"}
    assert read_records(path, Question, fields=fields) == [
        Question("test-1", "1+1?", "2"),
        Question("test-3", "2+2?", "4"),
    ]


def test_an_empty_id_is_a_missing_one(tmp_path: Path) -> None:
    path = tmp_path / "q.csv"
    path.write_text("id,question\n,1+1?\n,2+2?\na,3+3?\n")
    assert [question.id for question in read_records(path, Question, strict=True)] == ["q-1", "q-2", "a"]


def test_windows_files_are_read(tmp_path: Path) -> None:
    path = tmp_path / "w.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"id": "a", "question": "x"}\r\n{"id": "b", "question": "y"}\r\n')
    assert [q.id for q in read_records(path, Question, strict=True)] == ["a", "b"]


BAD_LINES = [
    ('{"id": "a", "question"', "broken JSON"),
    ('{"id": "b", "question": "x", "gold": NaN}', "NaN is not a number"),
    ("[1, 2]", "not a JSON object but a list"),
    ({"id": "c"}, "field 'question' is missing"),
    ({"id": "d", "question": 5}, "field 'question' must be str, not 5"),
    ({"id": "e", "question": " "}, "empty question"),
    ({"id": "good", "question": "x"}, "id 'good' is in an earlier line too"),
    ({"id": "f", "question": "x", "gold": ["1"]}, "field 'gold' must be str, not"),
    ('{"id": "g", "question": "\\ud800"}', "half a character"),
]


@pytest.mark.parametrize(("line", "reason"), BAD_LINES)
def test_strict_names_file_line_and_reason(tmp_path: Path, line: object, reason: str) -> None:
    path = write(tmp_path / "q.jsonl", {"id": "good", "question": "x"}, line)
    with pytest.raises(InputError, match=f"q.jsonl:2: .*{reason}"):
        read_records(path, Question, strict=True)
    assert not list(tmp_path.glob("*.rejected.jsonl"))


def test_bad_lines_are_set_aside_and_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write(tmp_path / "q.jsonl", {"id": "good", "question": "x"}, *(line for line, _ in BAD_LINES))
    with path.open("ab") as file:
        file.write(b'{"id": "h", "question": "\xff"}\n')
    with caplog.at_level(logging.WARNING):
        assert read_records(path, Question) == [Question("good", "x")]
    assert "10 of 11 lines are bad" in caplog.text
    rejected = [json.loads(line) for line in (tmp_path / "q.rejected.jsonl").read_text().splitlines()]
    assert [row["line"] for row in rejected] == list(range(2, 12))
    assert all(reason in row["reason"] for row, (_, reason) in zip(rejected, BAD_LINES, strict=False))
    assert rejected[0]["text"] == BAD_LINES[0][0]


def test_ids_that_tell_nothing_apart_stop_the_run(tmp_path: Path) -> None:
    path = write(tmp_path / "q.jsonl", *({"id": "train", "question": f"{n}?", "n": n} for n in range(5)))
    remedy = "name another field as id with data.fields, as in {id: FIELD}, or leave it out"
    with pytest.raises(InputError, match=f"4 of 5 lines have the id of another record .*{remedy}"):
        read_records(path, Question, key="data.fields")
    with pytest.raises(InputError, match="rename the field, or leave it out"):
        read_records(path, Question)
    assert len(read_records(path, Question, fields={"id": "n"})) == 5
    same = write(tmp_path / "same.jsonl", *([{"id": "train", "question": "1?"}] * 5))
    assert len(read_records(same, Question)) == 1, "the same record again"


@pytest.mark.parametrize(
    ("key", "said"), [("--field", "say with --field what it is called there"), ("", "rename the fields")]
)
def test_the_remedy_for_other_names_is_one_that_the_user_has(key: str, said: str, tmp_path: Path) -> None:
    path = write(tmp_path / "q.jsonl", {"goal": "a", "target": "b"})
    with pytest.raises(InputError, match=f"there are the fields goal, target; a record needs question: {said}"):
        read_records(path, Question, key=key)


def test_a_response_may_be_a_number(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", '{"prompt": "5/2?", "response": 2.50}', '{"prompt": "?", "response": true}')
    (found,) = read_records(path, Instruction)
    assert found.response == "2.50"


def test_bad_lines_beside_a_file_in_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    path = write(tmp_path / "q.jsonl", {"id": "good", "question": "x"}, "{")
    (tmp_path / "q.rejected.jsonl").mkdir()  # also stops an administrator, whom permissions do not
    (tmp_path / "run").mkdir()
    read_records(path, Question, rejected_dir=tmp_path / "run")
    assert (tmp_path / "run" / "q.rejected.jsonl").is_file()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"alpha": "strong"}, "'alpha' must be float"),
        ({"alpha": True}, "'alpha' must be float"),
        ({"n_tokens": 1.5}, "'n_tokens' must be int"),
        ({"sample": True}, "'sample' must be int"),
        ({"layers": [1, "2"]}, r"'layers\[1\]' must be int"),
        ({"layers": 3}, "'layers' must be tuple"),
        ({"finish_reason": "eos"}, "'finish_reason' must be 'stop' or 'length', not \"eos\""),
        ({"correct": 1}, "'correct' must be bool"),
    ],
)
def test_types_are_checked(tmp_path: Path, change: dict[str, object], reason: str) -> None:
    path = write(tmp_path / "t.jsonl", {**json.loads(to_json(TRACE)), **change})
    with pytest.raises(InputError, match=reason):
        read_records(path, Trace)


def test_whole_numbers_are_numbers(tmp_path: Path) -> None:
    path = write(tmp_path / "t.jsonl", {**json.loads(to_json(TRACE)), "alpha": 0})
    (trace,) = read_records(path, Trace)
    assert trace.alpha == 0
    assert isinstance(trace.alpha, float)


def test_variants_are_checked_too(tmp_path: Path) -> None:
    item = CurriculumItem("q", "1+1?", None, "two", 2, (Variant("2", 1, -0.1, 0.5),))
    path = write(tmp_path / "i.jsonl", to_json(item).replace('"n_tokens": 1', '"n_tokens": "1"'))
    with pytest.raises(InputError, match="'n_tokens' must be int"):
        read_records(path, CurriculumItem)


def test_files_that_give_nothing(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no\.jsonl: there is no such file; check the path"):
        read_records(tmp_path / "no.jsonl", Question)
    with pytest.raises(InputError, match=r"cannot be read \(Is a directory\)"):
        read_records(tmp_path, Question)
    with pytest.raises(InputError, match="the file has no record"):
        read_records(write(tmp_path / "e.jsonl", "", ""), Question)
    with pytest.raises(InputError, match=r"no good line .*there are the fields problem; a record needs question"):
        read_records(write(tmp_path / "p.jsonl", {"problem": "1+1?"}), Question)


def test_fields_that_do_not_exist(tmp_path: Path) -> None:
    path = write(tmp_path / "q.jsonl", {"question": "1+1?", "gold": "2"})
    with pytest.raises(InputError, match=r"no line has the field 'answer' \(for 'gold'\); there are question, gold"):
        read_records(path, Question, fields={"gold": "answer"})
    with pytest.raises(InputError, match="Question has no answer; it has id, question, gold"):
        read_records(path, Question, fields={"answer": "gold"})


def test_a_field_that_was_asked_for_must_be_in_each_line(tmp_path: Path) -> None:
    path = write(tmp_path / "q.jsonl", {"question": "1+1?", "answer": "2"}, {"question": "2+2?"})
    assert len(read_records(path, Question, fields={"gold": "answer"})) == 1
    with pytest.raises(InputError, match=r"q\.jsonl:2: field 'answer' is missing"):
        read_records(path, Question, fields={"gold": "answer"}, strict=True)


def test_several_fields_make_one_text(tmp_path: Path) -> None:
    """Alpaca's ``input`` is part of the request; without it many of its requests ask about nothing."""
    path = write(
        tmp_path / "a.jsonl",
        {"instruction": "Translate.", "input": "Haus ", "output": "house"},
        {"instruction": "Say hi.", "input": "", "output": "Hi."},
        {"instruction": "Say hi.", "output": "Hi."},
        {"input": "Haus", "output": "house"},
    )
    fields = {"prompt": "instruction + input", "response": "output"}
    found = read_records(path, Instruction, fields=fields)
    assert [record.prompt for record in found] == ["Translate.\n\nHaus", "Say hi.", "Say hi."]
    with pytest.raises(InputError, match=r"a\.jsonl:4: field 'instruction' is missing"):
        read_records(path, Instruction, fields=fields, strict=True)
    with pytest.raises(InputError, match=r"no line has the field 'instruction \+ context'"):
        read_records(path, Instruction, fields={"prompt": "instruction + context", "response": "output"})


def test_a_field_at_any_depth(tmp_path: Path) -> None:
    """Chats give questions, traces and pairs without being rewritten."""
    chat = [
        {"role": "system", "content": "s"},
        {"role": "user", "content": "1+1?"},
        {"role": "assistant", "content": "2"},
    ]
    path = write(tmp_path / "c.jsonl", {"messages": chat, "a.b": "3", "x": {"a": ["4"]}}, {"messages": []})
    for name, value in (("messages[-1].content", "2"), ("a.b", "3"), ("x.a[0]", "4"), ("x.a[0] + a.b", "4\n\n3")):
        (question,) = read_records(path, Question, fields={"question": "messages[1].content", "gold": name})
        assert (question.question, question.gold) == ("1+1?", value)
    for name in ("messages[9].content", "messages.content", "x[0]", "x.b", "messages[1", "x.a[0].b"):
        with pytest.raises(InputError, match=rf"c\.jsonl:1: field '{re.escape(name)}' is missing"):
            read_records(path, Question, fields={"question": name})
    with pytest.raises(InputError, match=r"no line has the field 'turns\[0\]'"):
        read_records(path, Question, fields={"question": "turns[0]"})


def test_gold_within_a_text(tmp_path: Path) -> None:
    assert extract_gold("#### 1\n#### 72 \n", "#### (.+)") == "72"
    assert extract_gold("72", "#### (.+)") is None
    for pattern, reason in (("(", "not a regular expression"), ("####", "one group"), ("(a)(b)", "one group")):
        with pytest.raises(InputError, match=reason):
            extract_gold("", pattern)
    path = write(tmp_path / "q.jsonl", {"question": "a", "answer": "so #### 72"}, {"question": "b", "answer": "72"})
    fields = {"gold": "answer"}
    assert read_records(path, Question, fields=fields, gold_pattern="#### (.+)") == [Question("q-1", "a", "72")]
    with pytest.raises(InputError, match=r"q\.jsonl:2: field 'answer': no match of the gold pattern"):
        read_records(path, Question, fields=fields, gold_pattern="#### (.+)", strict=True)


def test_gsm8k(shared_data: Path) -> None:
    path = shared_data / "gsm8k" / "test.jsonl"
    questions = read_records(path, Question, fields={"gold": "answer"}, gold_pattern="#### (.+)", strict=True)
    assert len(questions) == 1319
    assert questions[0].gold == "18"
