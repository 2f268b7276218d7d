import builtins
import json
import pickle
from pathlib import Path
from typing import Any

import pytest

from datamodules.errors import InputError
from datamodules.records.files import read_file
from datamodules.suites.sources import LocalFile, Source


def file(folder: Path, content: str | bytes) -> Source:
    (folder / "set.jsonl").write_bytes(content.encode() if isinstance(content, str) else content)
    return Source(local=LocalFile("set.jsonl"), folder=str(folder))


def test_a_file(tmp_path: Path) -> None:
    text = '\ufeff{"a": 1}\n\n{"a": "zwei\u2028drei"}\r\n  \n{"a": NaN}'
    found = list(file(tmp_path, text).read())
    assert [line.number for line in found] == [1, 3, 5]  # those that an editor shows
    assert found[1].values == {"a": "zwei\u2028drei"}
    assert found[1].where == f"{tmp_path}/set.jsonl:3"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ('{"a": 1}\n{"a": ', r"set\.jsonl:2: broken JSON"),
        ('{"a": 1}\n[1]', r"set\.jsonl:2: not a JSON object but a list"),
        (b'{"a": "\xff"}', r"set\.jsonl:1: broken JSON"),
        ("[" * 100_000, r"set\.jsonl:1: broken JSON"),
        ("\n \n", r"set\.jsonl: the file has no record"),
        ("", r"set\.jsonl: the file has no record"),
    ],
)
def test_files_that_cannot_be(content: str | bytes, reason: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=reason):
        list(file(tmp_path, content).read())


@pytest.mark.parametrize("number", ["0.00005", "0.10", "12345678901234567890.123", "4.5e33", "1e400"])
def test_numbers_keep_their_digits(number: str, tmp_path: Path) -> None:
    for name, text in (("a.jsonl", f'{{"answer": {number}}}'), ("a.json", f'[{{"answer": {number}}}]')):
        (tmp_path / name).write_text(text, encoding="utf-8")
        (line,) = read_file(tmp_path / name)
        for value in (line.values["answer"], pickle.loads(pickle.dumps(line.values["answer"]))):
            assert str(value) == number
            assert value == float(number)


def test_an_absent_file_and_folder(tmp_path: Path) -> None:
    for name in ("absent.jsonl", "."):
        source = Source(hub="some/set", local=LocalFile(name), folder=str(tmp_path))
        with pytest.raises(InputError, match=r"there is no such file; check data\.folder"):
            list(source.read())


def test_which_of_the_places_is_read(tmp_path: Path) -> None:
    local = LocalFile("set.jsonl", {"gold": "a"})
    assert Source("some/set", local=local).path() is None
    assert Source("some/set", local=local).local_expressions() == {}
    assert Source("some/set", local=local, folder="data").path() == Path("data/set.jsonl")
    assert Source("some/set", local=local, folder="data").local_expressions() == {"gold": "a"}
    assert Source(local=local).path() == Path("set.jsonl")
    assert Source(local=LocalFile("/abs/set.jsonl"), folder="data").path() == Path("/abs/set.jsonl")
    assert Source("some/set", folder="data").path() is None
    assert Source("some/set", ("one", "two"), "dev").describe() == "'some/set' (one, two, dev)"
    with pytest.raises(InputError, match="a source needs a hub id or a local file"):
        Source().read()


def test_the_world_of_the_miniature() -> None:
    (first, *rest) = Source("miniature", ("problems",), "test").read()
    assert first.values.keys() == {"id", "question", "answer"}
    assert first.where == "miniature problems test record 1"
    assert len(rest) == 999
    both = [line.values["id"] for line in Source("miniature", ("benign", "forbidden"), "test").read()]
    assert len(both) == len(set(both)) > 20
    for task, n in (("maths", 200), ("howto", 150)):
        asked = list(Source("miniature", (f"tuning_{task}",), "test").read())
        assert len({line.values["id"] for line in asked}) == n
        assert {line.values["request"] for line in asked}.isdisjoint(
            line.values["request"] for line in Source("miniature", (f"tuning_{task}",), "dev").read()
        )
    with pytest.raises(InputError, match=r"source\.config of the miniature's world is one of problems, benign"):
        list(Source("miniature", ("absent",)).read())
    with pytest.raises(InputError, match="has the splits train, dev and test, not 'validation'"):
        list(Source("miniature", ("benign",), "validation").read())


def test_without_the_package_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    original = builtins.__import__

    def refuse(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == "datasets":
            raise ImportError(name)
        return original(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(InputError, match=r"'openai/gsm8k' is on the hub.*lightning-rod\[hub\]'; or give data\.folder"):
        list(Source("openai/gsm8k", ("main",)).read())


def test_the_extra_that_the_remedy_names_is_there() -> None:
    import tomllib

    from tests.conftest import ROOT

    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert any(requirement.startswith("datasets") for requirement in extras["hub"])


def test_a_folder_as_a_set_of_the_hub(tmp_path: Path) -> None:
    pytest.importorskip("datasets", reason="the hub extra is not installed")
    lines = [json.dumps({"question": f"{i}?", "options": ["a", "b"], "answer": i}) for i in range(3)]
    (tmp_path / "test.jsonl").write_text("\n".join(lines))
    found = list(Source(str(tmp_path), split="test").read())
    assert [line.values["answer"] for line in found] == [0, 1, 2]
    assert found[0].values["options"] == ["a", "b"]
    assert found[2].where == f"{tmp_path} record 3"
    twice = list(Source(str(tmp_path), ("default", "default"), "test").read())
    assert [line.number for line in twice] == [1, 2, 3, 4, 5, 6]
    with pytest.raises(InputError, match=r"the data set .*\(validation\) cannot be loaded: .*; without network, give"):
        list(Source(str(tmp_path), split="validation").read())
    with pytest.raises(InputError, match=r"the data set '.*/absent' \(test\) cannot be loaded"):
        list(Source(str(tmp_path / "absent")).read())
