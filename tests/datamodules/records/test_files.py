"""Files of any form give the same records, and what is no record is told with its place and remedy."""

import gzip
import json
from pathlib import Path

import pytest

from datamodules.errors import InputError
from datamodules.records.files import HubData, read_file, with_project
from datamodules.records.kinds import Instruction, Question
from datamodules.records.reader import read_records
from datamodules.records.validation import text_fields

ROWS = [{"question": "1+1?", "gold": "2"}, {"question": 'say "zwei\u2028drei",\nplease', "gold": ""}]


def csv_text(delimiter: str = ",") -> str:
    return "\n".join(
        [delimiter.join(["question", "gold"]), f"1+1?{delimiter}2", f'"say ""zwei\u2028drei"",\nplease"{delimiter}']
    )


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("q.jsonl", "\n".join(map(json.dumps, ROWS))),
        ("q.json", json.dumps(ROWS, indent=1)),
        ("q.jsonl", json.dumps(ROWS)),
        ("q.data", "\ufeff" + json.dumps(ROWS, indent=1)),
        ("q.json", json.dumps({"data": ROWS})),
        ("q.json", json.dumps({"version": "1", "examples": ROWS}, indent=1)),
        ("q.csv", csv_text()),
        ("q.tsv", csv_text("\t")),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_every_form_gives_the_same_records(name: str, text: str, packed: bool, tmp_path: Path) -> None:
    path = tmp_path / (name + ".gz" * packed)
    path.write_bytes(gzip.compress(text.encode()) if packed else text.encode())
    assert [(q.question, q.gold) for q in read_records(path, Question, strict=True)] == [
        (row["question"], row["gold"] or None) for row in ROWS
    ]


def test_parquet(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    from pyarrow import parquet

    parquet.write_table(pyarrow.Table.from_pylist(ROWS), tmp_path / "q.parquet")
    assert [q.question for q in read_records(tmp_path / "q.parquet", Question)] == [row["question"] for row in ROWS]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.jsonl", b'{\n "prompt": "a"\n}\n{\n "prompt": "b"\n}', r"a\.jsonl:1: .*an object goes over several lines"),
        ("a.jsonl", b'"prompt","response"\na,b\n', r"a\.jsonl:1: .*a table must have a name that ends in \.csv"),
        ("a.jsonl", b'{"prompt": "a", "response": "b"},\n', r"a\.jsonl:1: .*a comma stands behind the object"),
        ("a.jsonl", b"prompt,response\na,b\n", r"a\.jsonl:1: .*a name that ends in \.csv"),
        ("a.json", b'[{"prompt": "a"},\n', r"a\.json: broken JSON"),
        ("a.json", b"[]", "has no record"),
        ("a.json", b'{\n "prompt": "a",\n "n": [1]\n}', r"a\.json:1: .*an object goes over several lines"),
        ("a.json", b"[\n1,\n2\n]", r"a\.json:1: broken JSON"),
        ("a.csv", b"prompt;response\na;b\n", r"a\.csv:1: there is one column, 'prompt;response', which ';' .*commas"),
        ("a.csv", b"prompt\tresponse\na\tb\n", r"a\.csv:1: there is one column, .*a \.tsv tabs"),
        ("a.tsv", b"prompt,response\na,b\n", r"a\.tsv:1: there is one column, 'prompt,response'"),
        ("a.jsonl.gz", b"no gzip", r"cannot be read \(Not a gzipped file"),
        ("a.jsonl.gz", gzip.compress(b'{"prompt": "a", "response": "b"}' * 99, mtime=0)[:-9], "cannot be read"),
        ("a.json", b'[{"prompt": "a", "response": "b"}, 3]', r"a\.json record 2: not a JSON object but a number"),
    ],
)
def test_what_is_wrong_with_a_file_is_said(name: str, content: bytes, said: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=said) as error:
        read_records(tmp_path / name, Instruction, strict=True)
    assert "rename the fields" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ('{"data":[\n{"question":"1+1?"},\n{"question":"2+2?"}\n],"license":"MIT"}', "data"),
        ('\ufeff{\r\n"license": "MIT",\n"tasks": [\n{"question": "1+1?"},\n{"question": "2+2?"}\n]\n}\n', "tasks"),
    ],
)
@pytest.mark.parametrize("ending", ["json", "jsonl"])
def test_an_object_around_the_records_of_a_file_is_told(text: str, name: str, ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"a.{ending}"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=rf"a\.{ending}: is one JSON object .*write the list under '{name}' alone"):
        read_records(path, Question)
    assert list(tmp_path.iterdir()) == [path]


def test_a_list_on_each_line_is_no_list_of_records(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('[{"role": "user"}]\n[{"role": "user"}]\n')
    with pytest.raises(InputError, match=r"a\.jsonl:1: not a JSON object but a list"):
        list(read_file(tmp_path / "a.jsonl"))


@pytest.mark.parametrize(
    "line", ['{"question": "q", "data": [{"a": 1}]}', '{"data": [{"a": 1}]}\n{"data": [{"a": 2}]}', '{"data": [1]}']
)
def test_records_that_have_a_list_are_records(line: str, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(line)
    assert [read.values for read in read_file(tmp_path / "a.jsonl")] == [json.loads(one) for one in line.split("\n")]


def test_a_table_of_one_column(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("question\n1; 2 | 3?\n")
    assert [line.values for line in read_file(tmp_path / "a.csv")] == [{"question": "1; 2 | 3?"}]


def test_texts_of_a_file_are_found_at_any_depth(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    lines = [
        {"messages": [{"role": "user", "content": "nested"}]},
        {"turns": ["first", ["second"]], "n": 3},
        {"question": "a\u2028b\x85c"},
    ]
    path.write_bytes(b"\xef\xbb\xbf" + "\n".join(json.dumps(line, ensure_ascii=False) for line in lines).encode())
    assert [set(texts) for texts in text_fields(path)] == [{"user", "nested"}, {"first", "second"}, {"a\u2028b\x85c"}]


def test_gold_numbers_keep_their_digits(tmp_path: Path) -> None:
    path = tmp_path / "q.jsonl"
    path.write_text('{"question": "q", "gold": 0.00005}\n{"question": "r", "gold": 1e400}\n')
    assert [q.gold for q in read_records(path, Question, strict=True)] == ["0.00005", "1e400"]


def test_a_folder_as_a_set_of_the_hub(tmp_path: Path) -> None:
    pytest.importorskip("datasets", reason="the hub extra is not installed")
    (tmp_path / "train.jsonl").write_text("\n".join(map(json.dumps, ROWS)))
    assert [line.values["question"] for line in HubData(str(tmp_path)).read("")] == [row["question"] for row in ROWS]


def test_a_file_of_the_project_is_found_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    name = Path("configs/mogu/real/near_twins.jsonl")
    assert with_project(name).is_file()
    assert with_project(Path("configs/none.jsonl")) == Path("configs/none.jsonl")
    name.parent.mkdir(parents=True)
    name.touch()
    assert with_project(name) == name, "a local file comes first"


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("runs/world/questions.test.jsonl", "`rod world` writes"),
        ("runs/mllr/twins.jsonl", "an earlier stage writes it"),
        ("mine.jsonl", "check the path"),
    ],
)
def test_a_missing_file_of_the_project_s_own_names_what_writes_it(
    name: str, remedy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=f"^{name}: there is no such file; {remedy}"):
        list(read_file(Path(name)))
