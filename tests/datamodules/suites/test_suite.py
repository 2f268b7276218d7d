import json
from typing import Any

import pytest

from datamodules.answers.checker import AnswerChecker
from datamodules.answers.rule import AnswerRule
from datamodules.errors import InputError
from datamodules.records.files import Line
from datamodules.records.turns import Turn
from datamodules.suites.expressions import Expression
from datamodules.suites.items import Item, check_golds, items_of, user_question
from datamodules.suites.sources import LocalFile, Source
from datamodules.suites.suite import Suite, SuiteKind


def suite(kind: SuiteKind = "answers", **settings: Any) -> Suite:
    gold: dict[str, Any] = {"gold": "answer"} if kind == "answers" else {}
    return Suite("name", kind, Source(local=LocalFile("set.jsonl")), **(gold | settings))


def lines(*records: dict[str, Any]) -> list[Line]:
    return [Line(number, values, f"set.jsonl:{number}") for number, values in enumerate(records, start=1)]


def items(made: Suite, *records: dict[str, Any]) -> list[Item]:
    return items_of(made, lines(*({"question": "Why?"} | record for record in records)))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("problem", "2 + 2"),
        ("answer.split('####')[-1].strip()", "4"),
        ("Body.rstrip('. ') ~ '. ' ~ problem", "Two. 2 + 2"),
        ("number + 1", 3),
        ("[a, b]", ["x", "y"]),
        ("record['not a name']", 5),
        ("(coded|fromjson)['key one']", "deep"),
        ("record.get('absent', 'none') == 'none'", True),
        ("record['self']", "a field of an unlucky name"),
    ],
)
def test_expressions(text: str, value: Any) -> None:
    record = {
        "problem": "2 + 2",
        "answer": "2 + 2 = 4 #### 4",
        "Body": "Two. ",
        "number": 2,
        "a": "x",
        "b": "y",
        "not a name": 5,
        "coded": json.dumps({"key one": "deep"}),
        "self": "a field of an unlucky name",
    }
    assert Expression("key", text)(Line(1, record, "here")) == value


@pytest.mark.parametrize("name", ["items", "keys", "values", "get", "copy", "pop"])
def test_a_field_is_not_the_method_of_its_name(name: str) -> None:
    here = Line(1, {"meta": {name: "What?"}, "record": {name: 1}}, "here")
    assert Expression("key", f"meta.{name}")(here) == "What?"
    made = suite("benign", question=f"meta.{name}")
    with pytest.raises(InputError, match=rf"question: 'meta\.{name}' is not a text but"):
        items_of(made, lines({"meta": {}}))


CHAT = [{"role": "user", "content": "What?"}, {"role": "assistant", "content": "2"}]


@pytest.mark.parametrize(
    ("settings", "record", "said"),
    [
        ({"question": "turns"}, {"turns": ["a", "b"]}, r"question: 'turns' is not a text but a list; .* 'turns\[0\]'"),
        ({"question": "messages"}, {"messages": [{"content": "What?"}]}, r"as in 'messages\[0\]\.content'"),
        ({"question": "q"}, {"q": {"text": "a"}}, r"not a text but an object; name an entry of it, as in 'q\.text'"),
        ({"question": "q"}, {"q": None}, "the question is empty"),
        ({"gold": "gold"}, {"gold": ["6", "six"]}, r"gold: 'gold' is not a text but a list"),
        ({"gold": "gold"}, {"gold": {"value": 6}}, r"as in 'gold\.value'"),
        ({"id": "n"}, {"n": [1]}, "id: 'n' is not a text but a list"),
        ({"group": "n"}, {"n": {}}, "group: 'n' is not a text but an object"),
        ({"cluster": "n"}, {"n": [1]}, "cluster: 'n' is not a text but a list"),
        (
            {"options": "o"},
            {"o": [{"label": "A", "text": "x"}, {"label": "B", "text": "y"}], "answer": 0},
            "options: .*an object",
        ),
    ],
)
def test_a_list_or_object_is_no_text(settings: dict[str, Any], record: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        items(suite(**settings), {"answer": "2"} | record)
    assert len(items(suite(question="turns[0]"), {"turns": ["a", "b"], "answer": 2})) == 1


def test_the_question_may_be_a_chat_of_several_turns() -> None:
    chat = [*CHAT, {"role": "user", "content": "Why?"}, {"role": "assistant", "content": "So."}]
    (item,) = items(suite(question="messages"), {"messages": chat, "answer": "2"})
    assert item.question == "Why?"
    assert item.earlier == (Turn("user", "What?"), Turn("assistant", "2"))
    assert item.asked == "user: What?\n\nassistant: 2\n\nuser: Why?"
    with pytest.raises(InputError, match=r"question: .*would lack them"):
        items(suite(question="messages"), {"messages": chat, "answer": "2", "tools": [{"name": "add"}]})


def test_null_is_an_empty_text() -> None:
    (item,) = items(suite(group="g", cluster="g"), {"answer": 2, "g": None})
    assert (item.group, item.cluster, item.gold) == ("", "", "2")
    with pytest.raises(InputError, match="the response is empty"):
        items(suite("perplexity", response="r"), {"r": None})


def test_expressions_that_cannot_be() -> None:
    with pytest.raises(InputError, match=r"suite 'x': gold: 'a ~ ' is not a valid Jinja expression"):
        Expression("suite 'x': gold", "a ~ ")
    here = Line(3, {"a": 1, "b": "text"}, "set.jsonl:3")
    for text in ("c", "b ~ c", "[a, c]", "{'A': c}"):  # a list hides what is not there, until it is read
        with pytest.raises(InputError, match=r"set\.jsonl:3: gold: 'c' is undefined; the record has a, b"):
            Expression("gold", text)(here)
    with pytest.raises(InputError, match=r"set\.jsonl:3: gold: .*no attribute 'd'"):
        Expression("gold", "b.d")(here)
    with pytest.raises(InputError, match=r"set\.jsonl:3: gold: .*unsafe"):
        Expression("gold", "b.__class__.__mro__")(here)
    with pytest.raises(InputError, match=r"set\.jsonl:3: gold: "):
        Expression("gold", "a / 0")(here)
    with pytest.raises(InputError, match=r"set\.jsonl:3: gold: .*Expecting value"):
        Expression("gold", "b|fromjson")(here)


def test_a_record_as_an_item() -> None:
    made = suite(question="Body ~ ' ' ~ Ask", id="ID", group="Type", response="reply")
    values = {"Body": "Two pears.", "Ask": "How many? ", "answer": 2.0, "ID": 7, "Type": "sum", "reply": "Two."}
    (item,) = items_of(made, lines(values))
    assert item == Item("7", "Two pears. How many?", "2.0", (), "sum", "Two.")
    assert item.where == "set.jsonl:1"


def test_ids_are_line_numbers_by_default() -> None:
    made = suite(keep="answer != 2")
    assert [item.id for item in items(made, {"answer": 1}, {"answer": 2}, {"answer": 3})] == ["1", "3"]


def test_options_and_gold_of_all_kinds() -> None:
    made = suite(options="options", answer=AnswerRule(type="choice"))
    texts = ["red", "green", "blue"]
    for gold in ("B", "b", " B ", 1, "green"):
        (item,) = items(made, {"options": texts, "answer": gold})
        assert (item.options, item.gold) == (("red", "green", "blue"), "B"), gold
    (item,) = items(made, {"options": {"B": "green", "A": "red"}, "answer": "A"})
    assert (item.options, item.gold) == (("red", "green"), "A")
    for own in (["A) red", "B) green"], ["(A) red", "(B) green"], ["A. red", "B. green"], ["A: red", "B: green"]):
        (item,) = items(made, {"options": own, "answer": "B"})
        assert item.options == ("red", "green")
    # "A. baumannii" is no label where the next option has none.
    (item,) = items(made, {"options": ["A. baumannii", "E. coli"], "answer": "E. coli"})
    assert (item.options, item.gold) == (("A. baumannii", "E. coli"), "B")
    (item,) = items(made, {"options": [10, 20], "answer": "20"})
    assert (item.options, item.gold) == (("10", "20"), "B")


def test_expressions_of_a_list_of_fields() -> None:
    made = suite(options="[opa, opb]", gold="cop - 1", answer=AnswerRule(type="choice"))
    (item,) = items(made, {"opa": "red", "opb": "green", "cop": 1})
    assert (item.options, item.gold) == (("red", "green"), "A")


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (
            {"options": ["red", "green"], "answer": "C"},
            "gold: 'C' is neither one of the letters AB, nor an option's text",
        ),
        ({"options": ["red", "green"], "answer": 2}, "gold: '2' is neither"),
        ({"options": ["red", "green"], "answer": True}, "gold: 'True' is neither"),
        ({"options": ["red", "green"], "answer": None}, "gold: '' is neither"),
        ({"options": ["red"], "answer": "A"}, "options: there must be 2 to 26 options, not 1"),
        ({"options": "red;green", "answer": "A"}, "options: must be a list or a mapping, not a text"),
        ({"options": 4, "answer": "A"}, "options: must be a list or a mapping, not a number"),
        ({"options": ["red", "green"]}, "gold: 'answer' is undefined; the record has question, options"),
        ({"question": " ", "options": ["red", "green"], "answer": "A"}, "the question is empty"),
    ],
)
def test_choices_that_cannot_be(record: dict[str, Any], reason: str) -> None:
    made = suite(options="options", answer=AnswerRule(type="choice"))
    with pytest.raises(InputError, match=rf"set\.jsonl:2: suite 'name': {reason}"):
        items(made, {"options": ["red", "green"], "answer": "A"}, record)


@pytest.mark.parametrize(
    ("options", "gold", "expression", "answer"),
    [
        (["1", "2", "3", "4"], 3, "'ABCD'[answer]", "D"),
        (["1", "2", "3", "4"], 3, "answer ~ ''", "C"),
        (["C", "B", "A"], "A", "'ABC'.index(answer)", "A"),
        (["C", "B", "A"], "A", "options.index(answer)", "C"),
    ],
)
def test_gold_that_is_two_options_at_once_is_refused(
    options: list[str], gold: int | str, expression: str, answer: str
) -> None:
    made = suite(options="options", answer=AnswerRule(type="choice"))
    with pytest.raises(InputError, match=r"gold: .* is the (index|letter) of option [AD] and the text of option C; wr"):
        items(made, {"options": options, "answer": gold})
    clear = suite(options="options", gold=expression, answer=AnswerRule(type="choice"))
    assert items(clear, {"options": options, "answer": gold})[0].gold == answer


def test_gold_that_is_the_same_option_in_both_readings() -> None:
    made = suite(options="options", answer=AnswerRule(type="choice"))
    assert [
        item.gold for item in items(made, {"options": ["0", "1"], "answer": 1}, {"options": ["A", "B"], "answer": "B"})
    ] == [
        "B",
        "B",
    ]


@pytest.mark.parametrize(
    ("rule", "good", "bad", "reason"),
    [
        (AnswerRule(type="facts"), "crank; door", " ; ", "the gold answer is empty"),
        (AnswerRule(type="text"), "Paris", "", "the gold answer is empty"),
        (AnswerRule(), "\\frac{1}{2}", "", "the gold answer is empty"),
        (AnswerRule(), "1", None, "the gold answer is empty"),
    ],
)
def test_gold_that_nothing_can_match(rule: AnswerRule, good: str, bad: str | None, reason: str) -> None:
    made = suite(answer=rule)
    (item,) = items(made, {"answer": good})
    assert item.gold == (good.upper() if rule.type == "choice" else good)
    with pytest.raises(InputError, match=rf"set\.jsonl:2: suite 'name': gold: {reason}"):
        items(made, {"answer": good}, {"answer": bad})


@pytest.mark.parametrize(
    ("rule", "good", "bad", "reason"),
    [
        (AnswerRule(type="number"), "-1,234.5", "many", "'many' cannot be read as a number"),
        (AnswerRule(type="label"), "Yes", "perhaps", "'perhaps' cannot be one of the labels yes, no, maybe"),
        (AnswerRule(type="choice"), "c", "red", "'red' cannot be the name of an option"),
    ],
)
def test_gold_of_another_type_is_refused_with_its_line(rule: AnswerRule, good: str, bad: str, reason: str) -> None:
    made = suite(answer=rule)
    with AnswerChecker(workers=1) as checker:
        check_golds("name", rule, items(made, {"answer": good}), checker)
        with pytest.raises(InputError, match=rf"set\.jsonl:2: suite 'name': gold: {reason}"):
            check_golds("name", rule, items(made, {"answer": good}, {"answer": bad}), checker)


def test_a_set_without_answers_says_so() -> None:
    (item,) = items(suite(gold="none"), {})
    assert item.gold is None
    (item,) = items(suite("benign", gold="facts"), {"facts": None})
    assert item.gold is None


def test_an_id_twice_names_both_places() -> None:
    with pytest.raises(InputError, match=r"set\.jsonl:3: suite 'name': the id 'a' is already taken by set\.jsonl:1"):
        items(suite(id="ID"), *({"ID": name, "answer": 1} for name in "aba"))


def test_nothing_left() -> None:
    with pytest.raises(InputError, match=r"suite 'name': set\.jsonl has no record for which 'keep' is true"):
        items(suite(keep="answer > 5"), {"answer": 1})
    with pytest.raises(InputError, match=r"suite 'name': set\.jsonl has no record$"):
        items_of(suite(), [])


def test_an_empty_response() -> None:
    made = suite("perplexity", response="reply")
    with pytest.raises(InputError, match=r"set\.jsonl:2: suite 'name': the response is empty; leave .* with 'keep'"):
        items(made, {"reply": "Hi."}, {"reply": " "})
    assert len(items(suite("perplexity", response="reply", keep="reply"), {"reply": "Hi."}, {"reply": ""})) == 1


def test_a_local_file_has_its_own_expressions() -> None:
    local = LocalFile("set.jsonl", {"question": "Ask"})
    made = Suite("name", "answers", Source(local=local), gold="answer")
    assert items_of(made, lines({"Ask": "How?", "answer": 1}))[0].question == "How?"
    hub = Suite("name", "answers", Source(hub="some/set", local=local), gold="answer")
    assert items_of(hub, lines({"question": "Why?", "answer": 1}))[0].question == "Why?"
    folder = Suite("name", "answers", Source(hub="some/set", local=local, folder="data"), gold="answer")
    assert items_of(folder, lines({"Ask": "How?", "answer": 1}))[0].question == "How?"
    wrong = Suite("name", "answers", Source(local=LocalFile("set.jsonl", {"golden": "x"})), gold="answer")
    with pytest.raises(InputError, match=r"suite 'name': source\.local\.expressions: unknown name 'golden'"):
        items_of(wrong, lines({}))


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"gold": ""}, "kind answers needs 'gold'"),
        ({"kind": "perplexity"}, "kind perplexity needs 'response'"),
        ({"systems": ()}, "systems needs at least one entry"),
        ({"samples": 0}, "samples must be 1 or more"),
        ({"offset": -1}, "offset 0 or more"),
        ({"limit": 0}, "limit must be 1 or more, is 0"),
        ({"max_new_tokens": 0}, "max_new_tokens must be 1 or more, is 0"),
        ({"systems": ("plain", "plain")}, "systems: plain, plain: name each once"),
        ({"attack_templates": ("none", "base64", "none")}, "attack_templates: none, base64, none: name each once"),
    ],
)
def test_suites_that_cannot_be(settings: dict[str, Any], reason: str) -> None:
    with pytest.raises(InputError, match=rf"data\.suites: suite 'name': .*{reason}"):
        suite(**settings)
    with pytest.raises(InputError, match=r"suite 'a/b': a name may have letters"):
        Suite("a/b", "safety", Source("x"))


def test_the_user_turn() -> None:
    item = Item("1", "Which?", "A", ("red", "green"))
    made = suite(options="options", instruction="Answer with a letter.")
    assert user_question(item, made) == "Which?\nA. red\nB. green\nAnswer with a letter."
    assert user_question(Item("1", "Which?"), suite()) == "Which?"
