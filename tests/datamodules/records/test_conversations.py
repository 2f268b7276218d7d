"""Every form of conversation is read as what it says, and what cannot be learnt is told."""

import csv
import json
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from datamodules.errors import InputError
from datamodules.records.conversations import Conversation, read_conversations
from datamodules.records.turns import Turn, read_turns

CALL = {"type": "function", "function": {"name": "add", "arguments": {"a": 1}}}


def read(folder: Path, *rows: dict[str, Any], fields: dict[str, str] | None = None) -> list[Conversation]:
    path = folder / "c.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    return read_conversations(path, fields=fields, strict=True)


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def said(text: Any, **more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": text, **more}


PAIR = (Turn("user", "Hi"), Turn("assistant", "Yes"))


@pytest.mark.parametrize(
    ("row", "turns"),
    [
        ({"prompt": "Hi", "response": "Yes"}, PAIR),
        ({"prompt": "Hi", "completion": "Yes"}, PAIR),
        ({"prompt": [user("Hi")], "completion": [said("Yes")]}, PAIR),
        ({"instruction": "Hi", "input": "", "output": "Yes"}, PAIR),
        ({"instruction": "Hi", "input": "you", "output": "Yes"}, (Turn("user", "Hi\n\nyou"), PAIR[1])),
        (
            {"instruction": "Hi", "output": "Yes", "history": [["a", "b"]]},
            (Turn("user", "a"), Turn("assistant", "b"), *PAIR),
        ),
        *(
            ({"prompt": "Hi", name: "Yes", "history": [["a", "b"]]}, (Turn("user", "a"), Turn("assistant", "b"), *PAIR))
            for name in ("response", "completion")
        ),
        ({"messages": [user("Hi"), said("Yes")], "prompt": "another"}, PAIR),
        ({"messages": json.dumps([user("Hi"), said("Yes")])}, PAIR),
        ({"messages": [user("Hi"), said("Yes", tool_calls=None, name=None)], "tools": None}, PAIR),
        ({"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Yes"}]}, PAIR),
        ({"conversations": [user("Hi"), said("Yes")]}, PAIR),
        ({"prompt": "Hi", "response": "Yes", "system": "Be kind."}, (Turn("system", "Be kind."), *PAIR)),
        ({"prompt": "Hi", "response": "Yes", "system": None}, PAIR),
        ({"instruction": "Hi", "output": "Yes", "history": "", "system": "", "tools": "", "messages": ""}, PAIR),
        (
            {"messages": [{"role": "developer", "content": "Be kind."}, user("Hi"), said("Yes")]},
            (Turn("system", "Be kind."), *PAIR),
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}, said("Yes")]},
            PAIR,
        ),
        (
            {"messages": [user("Hi"), said([{"type": "thinking", "thinking": "Hm"}, {"type": "text", "text": "Yes"}])]},
            (PAIR[0], Turn("assistant", "Yes", thought="Hm")),
        ),
        *(
            ({"messages": [user("Hi"), said("Yes", **{name: "Hm"})]}, (PAIR[0], Turn("assistant", "Yes", thought="Hm")))
            for name in ("reasoning_content", "reasoning", "thinking")
        ),
        (
            {"messages": [user("Hi"), said("No", weight=0), *[user("Hi"), said("Yes")]]},
            (PAIR[0], Turn("assistant", "No", weight=0), *PAIR),
        ),
    ],
)
def test_forms(row: dict[str, Any], turns: tuple[Turn, ...], tmp_path: Path) -> None:
    (found,) = read(tmp_path, row)
    assert found.turns == turns
    assert found.where.endswith("c.jsonl:1")


def test_calls_of_tools_and_their_answers(tmp_path: Path) -> None:
    tool = {"name": "add", "parameters": {}}
    openai = {
        "messages": [
            user("1+?"),
            said(None, tool_calls=[{"id": "c1", "function": {"name": "add", "arguments": '{"a": 1}'}}]),
            {"role": "tool", "tool_call_id": "c1", "name": "add", "content": {"sum": 2}},
            said("2"),
        ],
        "tools": [{"type": "function", "function": tool}],
    }
    (found,) = read(tmp_path, openai)
    assert found.turns[1] == Turn("assistant", "", tool_calls=({"id": "c1", **CALL},))
    assert found.turns[2] == Turn("tool", '{"sum": 2}', tool="add", call_id="c1")
    sharegpt = {
        "conversations": [
            {"from": "human", "value": "1+?"},
            {"from": "function_call", "value": '{"name": "add", "arguments": {"a": 1}}'},
            {"from": "observation", "value": "2"},
            {"from": "gpt", "value": "2"},
        ],
        "tools": json.dumps([tool]),
    }
    (other,) = read(tmp_path, sharegpt)
    assert other.turns[1] == Turn("assistant", "", tool_calls=(CALL,))
    assert [turn.role for turn in other.turns] == ["user", "assistant", "tool", "assistant"]
    assert other.tools == found.tools == ({"type": "function", "function": tool},)


def test_a_call_that_is_not_to_be_learnt() -> None:
    call = {"from": "function_call", "value": '{"name": "add", "arguments": {"a": 1}}'}
    assert [turn.weight for turn in read_turns([call, {**call, "weight": 0}], "conversations")] == [1, 0]


@pytest.mark.parametrize(
    ("fields", "row"),
    [
        ({"prompt": "question + context", "response": "answer"}, {"question": "Hi", "context": "", "answer": "Yes"}),
        ({"response": "output"}, {"prompt": "Hi", "output": "Yes", "messages": [user("no"), said("no")]}),
        ({"messages": "dialog"}, {"dialog": [user("Hi"), said("Yes")], "messages": 3}),
        ({"prompt": "turns[0]", "response": "choices[0].text"}, {"turns": ["Hi", "b"], "choices": [{"text": "Yes"}]}),
        ({"prompt": "q", "response": "a"}, {"q": [user("Hi")], "a": [said("Yes")]}),
        ({"prompt": "turns[0] + context"}, {"turns": ["Hi"], "context": "", "response": "Yes"}),
        ({"system": "sp"}, {"prompt": "Hi", "response": "Yes", "sp": None}),
        ({"tools": "meta.tools"}, {"prompt": "Hi", "response": "Yes", "meta": {}}),
        ({"prompt": "history", "response": "reply"}, {"history": "Hi", "reply": "Yes"}),
        ({"prompt": "history[0]", "response": "reply"}, {"history": ["Hi"], "reply": "Yes"}),
    ],
)
def test_names_of_their_own(fields: dict[str, str], row: dict[str, Any], tmp_path: Path) -> None:
    assert read(tmp_path, row, fields=fields)[0].turns == PAIR


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"question": "Hi", "answer": "Yes"}, r"there are the fields question, answer: .*messages or conversations"),
        ({"prompt": "Hi", "response": " \n"}, "the response is empty"),
        ({"prompt": "", "response": "Yes"}, "the request is empty"),
        ({"instruction": " ", "input": "", "output": "Yes"}, "the request is empty"),
        ({"instruction": "Hi", "output": False}, "'output' must be a text or a list of turns, not false"),
        ({"messages": [user("a"), said("b"), user("c"), said("")]}, "turn 4 is empty"),
        ({"messages": [user("Hi")]}, "no turn of the assistant to learn"),
        ({"messages": [said("Hi"), user("Hi")]}, "no turn of the assistant to learn"),
        ({"messages": [user("Hi"), said("Yes", weight=0)]}, "no turn of the assistant to learn"),
        ({"messages": []}, "'messages' has no turn"),
        ({"messages": "Hi"}, "'messages' is a text that is no JSON"),
        ({"messages": {"role": "user"}}, "'messages' must be a list"),
        ({"messages": ["Hi"]}, "turn 1: not an object but a text"),
        ({"messages": [{"role": "narrator", "content": "Hi"}]}, "turn 1: its role is 'narrator'; known are system"),
        ({"messages": [user("Hi"), said("Yes", weight=0.5)]}, "turn 2: its weight is 0.5"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "a part of type 'image_url'; only text"),
        ({"messages": [user("Hi"), said([{"type": ["text"], "text": "Yes"}])]}, "a part of type .*text.*; only text"),
        *(
            ({"messages": [user("Hi"), said([part, {"type": "text", "text": "b"}])]}, "of type '(.*)' without '\\1'")
            for part in ({"type": "text", "content": "a"}, {"type": "text", "text": None}, {"type": "thinking"})
        ),
        ({"messages": [user("Hi"), said([{"type": "text", "text": 5}])]}, "its content is not a text but a number"),
        ({"messages": [user("Hi"), said("", tool_calls=5)]}, "turn 2: field 'tool_calls' must be a list, not 5"),
        (
            {"messages": [user("Hi"), said("", tool_calls=[{"name": "f", "arguments": {"a": "\ud800"}}])]},
            "half a character",
        ),
        ({"messages": [{"role": "user", "content": {"a": 1}}]}, "its content is not a text but an object"),
        ({"messages": [user("Hi"), said("", tool_calls=[{"function": {}}])]}, "a call of a tool has no name"),
        ({"messages": [user("Hi"), said("", tool_calls=[{"name": "f", "arguments": "[1]"}])]}, "of 'f' are not a JSON"),
        ({"messages": [user("Hi"), said("Yes\ud800")]}, "half a character"),
        (
            {"messages": [{"role": "system", "content": "a"}, user("Hi"), said("Yes")], "system": "b"},
            "two system prompts",
        ),
        ({"prompt": "Hi", "response": "Yes", "tools": [3]}, "'tools' must be a list of JSON schemas"),
        ({"instruction": "Hi", "output": "Yes", "history": ["a"]}, "'history' must be a list of pairs"),
        ({"prompt": "Hi", "response": "Yes", "history": [user("a")]}, "a list of pairs of texts; call turns 'earlier'"),
        ({"prompt": "Hi", "response": "Yes", "history": "of Rome"}, "no JSON .*rename it if it is something else"),
    ],
)
def test_what_cannot_be_learnt(row: dict[str, Any], reason: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=reason) as error:
        read(tmp_path, row)
    assert ("data.fields" in str(error.value)) == ("question" in row), "the remedy is for unknown names"


def test_wrong_fields(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="unknown name 'question'; known are messages, prompt"):
        read(tmp_path, {}, fields={"question": "a"})
    with pytest.raises(InputError, match="messages, or prompt and response"):
        read(tmp_path, {}, fields={"messages": "a", "prompt": "b"})
    pair = {"prompt": "Hi", "response": "Yes"}
    for ours in ("prompt", "system"):
        with pytest.raises(InputError, match=f"no line has the field 'q' .for '{ours}'.; there are prompt, response"):
            read(tmp_path, pair, fields={ours: "q"})
    with pytest.raises(InputError, match=r"c\.jsonl:1: field 'q' is missing"):
        read(tmp_path, pair, {**pair, "q": "Hi"}, fields={"prompt": "q"})


def test_a_history_beside_fields_of_other_names(tmp_path: Path) -> None:
    row = {"instruction": "Hi", "output": "Yes", "history": [["a", "b"]]}
    (found,) = read(tmp_path, row, fields={"prompt": "instruction", "response": "output"})
    assert found.turns == (Turn("user", "a"), Turn("assistant", "b"), *PAIR)


def test_only_some_lines_have_a_system_prompt_and_tools(tmp_path: Path) -> None:
    pair = {"prompt": "Hi", "response": "Yes"}
    rows: list[dict[str, Any]] = [
        {**pair, "style": "Be kind.", "f": [{"name": "add"}]},
        {**pair, "persona": "Eve.", "style": "Go."},
        pair,
    ]
    found = read(tmp_path, *rows, fields={"system": "persona + style", "tools": "f"})
    assert [chat.turns[0].content for chat in found] == ["Be kind.", "Eve.\n\nGo.", "Hi"]
    assert [len(chat.tools) for chat in found] == [1, 0, 0]
    with pytest.raises(InputError, match="field 'sp' is not a text but a number"):
        read(tmp_path, {**pair, "sp": 3}, fields={"system": "sp"})


def test_what_a_tool_returned_is_any_value() -> None:
    (turn,) = read_turns([{"role": "tool", "content": {"on": date(2026, 1, 31)}}], "messages")
    assert turn.content == '{"on": "2026-01-31"}'


def test_ids_that_start_anew_cost_nothing(tmp_path: Path) -> None:
    rows = [{"id": i % 6, "prompt": f"Say {i}", "response": f"{i}"} for i in range(12)]
    assert len(read(tmp_path, *rows)) == 12


def test_tables(tmp_path: Path) -> None:
    """A CSV table holds turns as JSON text; Parquet gives every turn the keys of all others, empty."""
    rows = [
        {"messages": [user("Hi"), said("Yes", reasoning_content="Hm")]},
        {"messages": [user("Hi"), said("No", name="n")]},
    ]
    table = tmp_path / "c.csv"
    with table.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerows([["messages"], *([json.dumps(row["messages"])] for row in rows)])
    expected = [chat.turns for chat in read(tmp_path, *rows)]
    assert [chat.turns for chat in read_conversations(table, strict=True)] == expected
    pyarrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    from pyarrow import parquet

    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "c.parquet")
    assert [chat.turns for chat in read_conversations(tmp_path / "c.parquet", strict=True)] == expected


@pytest.mark.parametrize("names", [("prompt", "completion"), ("prompt", "response"), ("asked", "said")])
def test_tables_of_pairs_hold_turns_too(names: tuple[str, str], tmp_path: Path) -> None:
    table = tmp_path / "c.csv"
    call = said("", tool_calls=[CALL])
    rows = [[json.dumps([user("Hi")]), json.dumps([call, said("Yes")])], ["[1]", '[{"from": "Rome", "to": "Paris"}]']]
    with table.open("w", newline="") as file:
        csv.writer(file).writerows([names, *rows])
    fields = dict(zip(("prompt", "response"), names, strict=True)) if names[0] == "asked" else None
    chat, text = read_conversations(table, fields=fields, strict=True)
    assert chat.turns == (PAIR[0], Turn("assistant", "", tool_calls=(CALL,)), PAIR[1])
    assert [turn.content for turn in text.turns] == rows[1], "other JSON is text"


@pytest.mark.parametrize(
    ("prompt", "response"),
    [
        ("Write a chat as JSON.", json.dumps([user("Hi"), said("Yo")])),
        ("Who speaks?", '[{"role": "CEO", "content": "Hi"}]'),
        ('[{"role": "CEO", "content": "Hi"}]', "The CEO."),
        ('[{"from": "Rome", "value": "12"}]', '[{"from": "Rome", "value": "12"}]'),
    ],
)
def test_json_that_is_no_chat_is_learnt_as_it_is(prompt: str, response: str, tmp_path: Path) -> None:
    (chat,) = read(tmp_path, {"prompt": prompt, "response": response})
    assert chat.turns == (Turn("user", prompt), Turn("assistant", response))


def test_bad_lines_are_set_aside(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "c.jsonl"
    rows = [{"prompt": "Hi", "response": "Yes"}, {"prompt": "Hi", "response": ""}]
    path.write_text("\n".join(map(json.dumps, rows)) + "\n{")
    assert len(read_conversations(path)) == 1
    assert "2 of 3 lines are bad" in caplog.text
    rejected = [json.loads(line) for line in (tmp_path / "c.rejected.jsonl").read_text().splitlines()]
    assert [row["line"] for row in rejected] == [3, 2] or [row["line"] for row in rejected] == [2, 3]


def test_published_sets(shared_data: Path, tmp_path: Path) -> None:
    chats = read_conversations(shared_data / "mt_bench" / "dummy_conversation.jsonl", strict=True)
    assert (len(chats), max(len(chat.turns) for chat in chats)) == (500, 6)
    path = tmp_path / "random_9k.jsonl"
    path.symlink_to(shared_data / "alpaca_subsets" / "random_9k.jsonl")
    pairs = read_conversations(path)
    assert len(pairs) == 9229 - 4, "four responses are empty"
    assert sum("\n\n" in pair.turns[0].content for pair in pairs) > 1000


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "2.5 + 2.5?", "response": 5},
        {"instruction": "2.5 + 2.5?", "output": 5.0},
        {"messages": [user("2.5 + 2.5?"), {"role": "assistant", "content": 5}]},
    ],
)
def test_a_number_is_learnt_as_text(row: dict[str, Any], tmp_path: Path) -> None:
    (found,) = read(tmp_path, row)
    assert float(found.turns[-1].content) == 5
    with pytest.raises(InputError, match="true"):
        read(tmp_path, {"prompt": "2.5 + 2.5?", "response": True})
