"""A request may be a chat of several turns: what is read of it, and that nothing of it is lost on the way."""

import json
from pathlib import Path
from typing import Any

import pytest

from datamodules.errors import InputError
from datamodules.mogu.records import Attack, ResponsePair
from datamodules.records.conversations import read_conversations
from datamodules.records.kinds import Instruction, Question, Trace
from datamodules.records.reader import read_records, to_json
from datamodules.records.requests import Request
from datamodules.records.turns import Turn
from datamodules.s3cot.imported_traces import ResponseRow
from datamodules.s3cot.records import CurriculumItem, Variant

CHAT = [
    {"role": "system", "content": "Be kind."},
    {"role": "user", "content": "What is 2 + 2?"},
    {"role": "assistant", "content": "4", "reasoning_content": "Two and two."},
    {"role": "user", "content": "And 3 more?"},
]
EARLIER = (
    Turn("system", "Be kind."),
    Turn("user", "What is 2 + 2?"),
    Turn("assistant", "4", thought="Two and two."),
)
SHAREGPT = [
    {"from": "system", "value": "Be kind."},
    {"from": "human", "value": "What is 2 + 2?"},
    {"from": "gpt", "value": "4", "reasoning": "Two and two."},
    {"from": "human", "value": "And 3 more?"},
    {"from": "gpt", "value": "7"},
]


def read(folder: Path, row: dict[str, Any], kind: type[Any] = Question, **options: Any) -> Any:
    path = folder / "r.jsonl"
    path.write_text(json.dumps(row), encoding="utf-8")
    (record,) = read_records(path, kind, strict=True, **options)
    return record


@pytest.mark.parametrize(
    ("row", "fields"),
    [
        ({"messages": CHAT}, None),
        ({"messages": json.dumps(CHAT)}, None),
        ({"conversations": SHAREGPT}, None),
        ({"question": CHAT}, None),
        ({"question": "", "messages": CHAT}, None),
        ({"dialog": CHAT}, {"question": "dialog"}),
        ({"dialog": json.dumps(CHAT)}, {"question": "dialog"}),
        ({"question": json.dumps(CHAT)}, None),
        ({"messages": CHAT}, {"question": "prompt"}),
        ({"messages": CHAT[1:], "system": "Be kind."}, None),
        ({"conversations": SHAREGPT[1:], "system": "Be kind."}, None),
        ({"asked": {"turns": SHAREGPT}}, {"question": "asked.turns"}),
    ],
)
def test_the_last_request_and_the_turns_before_it(row: dict[str, Any], fields: Any, tmp_path: Path) -> None:
    found = read(tmp_path, {"id": "a", "gold": "7", **row}, fields=fields)
    assert found == Question("a", "And 3 more?", "7", EARLIER)
    assert found.asked.endswith("user: What is 2 + 2?\n\nassistant: 4\n\nuser: And 3 more?")


def test_a_system_prompt_beside_a_text_comes_before_it(tmp_path: Path) -> None:
    def read(row: dict[str, Any], **options: Any) -> Question:
        (tmp_path / "a.jsonl").write_text(json.dumps(row))
        return read_records(tmp_path / "a.jsonl", Question, **options)[0]

    french, hi = Turn("system", "In French."), Turn("user", "Hi!")
    row = {"question": "Why?", "system": "In French."}
    assert read(row).earlier == (french,)
    assert read(row | {"earlier": [{"role": "user", "content": "Hi!"}]}).earlier == (french, hi)
    assert read(row | {"system": " "}).earlier == read(row | {"system": 3}).earlier == ()
    assert read(row | {"system": "system2"}).earlier == (), "the name of an instruction in our own files"
    assert read({"ask": "Why?", "system": "x"}, fields={"question": "ask"}).earlier == (Turn("system", "x"),)
    with pytest.raises(InputError, match="two system prompts"):
        read(row | {"earlier": [{"role": "system", "content": "In German."}]}, strict=True)


def test_an_empty_gold_answer_is_none(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("question,gold\nWhy?,\nHow?,3\n")
    assert [q.gold for q in read_records(tmp_path / "a.csv", Question)] == [None, "3"]


def test_a_text_beside_a_chat_is_the_request(tmp_path: Path) -> None:
    assert read(tmp_path, {"id": "a", "question": "Hi", "messages": CHAT}) == Question("a", "Hi")


def test_the_answer_to_the_last_request_is_the_response(tmp_path: Path) -> None:
    found = read(tmp_path, {"id": "a", "conversations": SHAREGPT}, Instruction)
    assert found == Instruction("a", "And 3 more?", "7", earlier=EARLIER)
    thought = [*CHAT, {"role": "assistant", "content": "7", "reasoning_content": "4 + 3"}]
    row = read(tmp_path, {"messages": thought}, ResponseRow)
    assert row.responses == ("<think>\n4 + 3\n</think>\n\n7",)


def test_a_text_in_brackets_is_no_chat(tmp_path: Path) -> None:
    for text in ("[1, 2] + [3]?", '[{"a": 1}]', "[]", "[x"):
        assert read(tmp_path, {"id": "a", "question": text}) == Question("a", text)


def test_an_answer_of_several_turns_is_no_response(tmp_path: Path) -> None:
    call = {"type": "function", "function": {"name": "add", "arguments": {}}}
    calls = {"role": "assistant", "content": "", "tool_calls": [call]}
    for more in ([calls, {"role": "tool", "content": "7"}, CHAT[2]], [CHAT[2], CHAT[2]], [calls]):
        with pytest.raises(InputError, match="the answer to the last request has several turns"):
            read(tmp_path, {"messages": [*CHAT, *more]}, Instruction)
        assert read(tmp_path, {"id": "a", "messages": [*CHAT, *more]}) == Question("a", "And 3 more?", None, EARLIER)


def test_a_missing_value_is_an_empty_one(tmp_path: Path) -> None:
    made = json.loads(to_json(TRACE)) | {"earlier": None, "chat_template_kwargs": None}
    assert read(tmp_path, made, Trace) == TRACE


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"messages": CHAT[:1]}, "no turn of the user"),
        ({"messages": CHAT, "tools": [{"name": "add"}]}, "would lack them"),
        ({"messages": [{"role": "chef", "content": "x"}]}, "turn 1: its role is 'chef'"),
        ({"messages": [*CHAT[:3], {"role": "user", "content": " "}]}, "empty question"),
        (
            {"messages": [{"role": "user", "content": "\ud83d"}, *CHAT]},
            "messages, turn 1: field 'content' has half a character",
        ),
        ({"question": "Hi", "earlier": 3}, "field 'earlier' must be a list.*so rename it"),
        ({"question": "Hi", "earlier": [{"role": "user", "content": "\ud83d"}]}, "earlier, turn 1: .*half a character"),
        ({"messages": CHAT, "system": "Be brief."}, "two system prompts"),
        ({"messages": CHAT[1:], "system": 3}, "field 'system' is not a text"),
        ({"messages": [*CHAT[:2], {"role": "assistant", "content": ""}, CHAT[3]]}, "turn 3 is empty"),
    ],
)
def test_a_chat_that_cannot_be_asked_is_a_bad_line(row: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=said):
        read(tmp_path, row)


TRACE = Trace("a", "a", "q", None, "plain", 0.0, (), 0, 0, "q", "c", 1, "stop", None, None, "m")
CALLED = Turn("assistant", "", tool_calls=({"type": "function", "function": {"name": "add", "arguments": {"a": 1}}},))
ANSWERED = Turn("tool", "3", tool="add", call_id="7")
RECORDS: list[Request] = [
    Question("a", "q", None, (*EARLIER, CALLED, ANSWERED)),
    Attack("a", "p", "Sure", None, EARLIER),
    ResponsePair("a", "p", True, "g", "r", False, None, EARLIER),
    Instruction("a", "p", "r", None, EARLIER),
    CurriculumItem("a", "q", None, "i", 3, (Variant("v", 1, -1.0, 0.5),), EARLIER),
]


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: type(record).__name__)
def test_a_record_is_read_as_it_is_written(record: Request, tmp_path: Path) -> None:
    assert read(tmp_path, json.loads(to_json(record)), type(record)) == record


def test_records_of_one_turn_are_written_without_the_field() -> None:
    assert to_json(Question("a", "q")) == '{"id": "a", "question": "q", "gold": null}'
    assert "earlier" in Trace.__dataclass_fields__


def test_a_written_instruction_is_a_conversation_to_train_on(tmp_path: Path) -> None:
    path = tmp_path / "sft.jsonl"
    path.write_text(to_json(Instruction("a", "And 3 more?", "7", None, EARLIER)))
    (chat,) = read_conversations(path, strict=True)
    assert chat.turns == (*EARLIER, Turn("user", "And 3 more?"), Turn("assistant", "7"))
