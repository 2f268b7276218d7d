"""Both responses of a request in one batch; where the instruction stands, in any template; classes that are empty."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from datamodules.batch import IGNORE_INDEX
from datamodules.errors import InputError
from datamodules.mogu.batch import ResponderBatch, RouterBatch
from datamodules.mogu.records import ResponsePair
from datamodules.mogu.response_data import ResponderData, Role, RoutedExample, RouterData, encode_response
from datamodules.prompts.chat_template import encode_prompt, render_prompt
from datamodules.prompts.instruction_span import InstructionFinder
from datamodules.records.reader import to_json
from datamodules.records.turns import Turn
from tests.datamodules.prompts.test_chat_template import R1_TEMPLATE, byte_tokenizer
from tests.tiny import tiny_tokenizer

TOKENIZER = tiny_tokenizer()
BENIGN = ResponsePair("b", "Open the jar.", False, "Twist the lid.", "No, sorry.")
MALICIOUS = ResponsePair("m", "Open the vault!", True, "Sure, here is", "I cannot.", glad_is_opening=True)


def write(folder: Path, *pairs: ResponsePair) -> Path:
    path = folder / "pairs.jsonl"
    path.write_text("\n".join(map(to_json, pairs)), encoding="utf-8")
    return path


def several(kind: ResponsePair, n: int) -> list[ResponsePair]:
    return [replace(kind, id=f"{kind.id}{i}", prompt=f"{kind.prompt} {i}") for i in range(n)]


def with_tokenizer(data: ResponderData | RouterData) -> ResponderData | RouterData:
    data.tokenizer = TOKENIZER
    return data


def learnt(labels: list[int]) -> str:
    return str(TOKENIZER.decode([label for label in labels if label != IGNORE_INDEX]))


@pytest.mark.parametrize(
    ("role", "wanted", "opposite"),
    [
        ("glad", "Sure, here is", "I cannot.<|im_end|>"),
        ("unwilling", "No, sorry.<|im_end|>", "Twist the lid.<|im_end|>"),
    ],
)
def test_both_responses_of_a_request_are_rows_of_one_batch(
    role: Role, wanted: str, opposite: str, tmp_path: Path
) -> None:
    path = write(tmp_path, *several(BENIGN, 3), *several(MALICIOUS, 3))
    data = with_tokenizer(ResponderData(path, role, batch_size=4))
    batches = list(data.train_dataloader())
    assert sum(batch.items for batch in batches) == 3, "of the role's class only"
    for batch in batches:
        assert isinstance(batch, ResponderBatch)
        assert batch.mean_items == 3
        for item in range(batch.items):
            first, second = (batch.rows.labels[row].tolist() for row in (item, batch.items + item))
            assert learnt(first) == wanted
            assert learnt(second) == opposite
            end = first.index(next(label for label in first if label != IGNORE_INDEX))
            ids = batch.rows.input_ids
            assert ids[item, :end].tolist() == ids[batch.items + item, :end].tolist(), "the same prompt"


def test_an_opening_is_learnt_without_an_end_and_an_answer_with_it() -> None:
    tokenizer = tiny_tokenizer()
    opening = encode_response(tokenizer, MALICIOUS, glad=True)
    answer = encode_response(tokenizer, BENIGN, glad=True)
    assert opening.labels[-1] != tokenizer.eos_token_id
    assert answer.labels[-1] == tokenizer.eos_token_id
    assert len(opening.input_ids) == len(opening.labels)


def test_an_opening_has_no_end_by_a_template_of_its_own_either(tmp_path: Path) -> None:
    own = byte_tokenizer("{% for m in messages %}{{ m['content'] }}<|eot|>\n{% endfor %}")
    own.add_special_tokens({"additional_special_tokens": ["<|eot|>"]})
    (tmp_path / "own.jinja").write_text(str(own.chat_template))
    own.chat_template = None
    labels = encode_response(own, MALICIOUS, glad=True, template=str(tmp_path / "own.jinja")).labels
    assert own.decode([label for label in labels if label != IGNORE_INDEX]) == "Sure, here is"


def test_responses_close_the_thought_that_their_prompt_opens() -> None:
    """Glad openings, answers and refusals alike; what a model wrote after its thought stays."""
    tokenizer = byte_tokenizer(R1_TEMPLATE)
    own = replace(BENIGN, glad="They ask.\n</think>\n\nTwist.")
    said = [(MALICIOUS, True), (MALICIOUS, False), (BENIGN, True), (own, True)]
    found = [encode_response(tokenizer, pair, glad) for pair, glad in said]
    texts = [tokenizer.decode([label for label in e.labels if label != IGNORE_INDEX]) for e in found]
    close = "\n</think>\n\n"
    assert texts[:3] == [f"{close}Sure, here is", f"{close}I cannot.<E>", f"{close}Twist the lid.<E>"]
    assert texts[3] == "They ask.\n</think>\n\nTwist.<E>"


def test_router_rows_have_the_right_response_and_know_their_class(tmp_path: Path) -> None:
    data = with_tokenizer(RouterData(write(tmp_path, *several(BENIGN, 4), *several(MALICIOUS, 4)), batch_size=4))
    seen = []
    for batch in data.train_dataloader():
        assert isinstance(batch, RouterBatch)
        for row, malicious in enumerate(batch.malicious.tolist()):
            text = learnt(batch.rows.labels[row].tolist())
            assert text == ("I cannot.<|im_end|>" if malicious else "Twist the lid.<|im_end|>")
            ids = batch.rows.input_ids[row].tolist()
            instruction = TOKENIZER.decode(ids[batch.starts[row] : batch.ends[row]])
            assert instruction[:-2] == (MALICIOUS if malicious else BENIGN).prompt
            seen.append(malicious)
    assert sorted(seen) == [False] * 4 + [True] * 4


def test_a_limit_is_one_of_each_class(tmp_path: Path) -> None:
    path = write(tmp_path, *several(BENIGN, 5), *several(MALICIOUS, 3))
    data = with_tokenizer(RouterData(path, limit=2))
    examples: Any = data.train_examples(0)
    assert sorted(example.malicious for example in examples) == [False, False, True, True]


TEMPLATES = {
    "chatml": None,
    "nothing before": "{% for m in messages %}{{ m['content'] }}{% endfor %}\n",
    "long head": "SYSTEM be good\n{% for m in messages %}[INST] {{ m['content'] }} [/INST]{% endfor %}",
    "trimmed": "<s>{% for m in messages %}{{ m['content'] | trim }}</s>{% endfor %}",
}


@pytest.mark.parametrize("name", TEMPLATES)
def test_the_instruction_is_found_in_any_template(name: str, tmp_path: Path) -> None:
    tokenizer, template, source = tiny_tokenizer(), None, TEMPLATES[name]
    if source is not None:
        template = str(tmp_path / "template.jinja")
        Path(template).write_text(source)
    for text in ("Open the jar.", "A", "zebras have", "Apples are green. And more"):
        ids = encode_prompt(tokenizer, render_prompt(tokenizer, text, template=template))
        start, end = InstructionFinder(tokenizer, template).find(text, ids)
        found = tokenizer.decode(ids[start:end])
        if name == "nothing before":
            assert found == text[: len(found)]
            assert end == len(ids) - 1, "the last token of the prompt counts as after the instruction"
        else:
            assert found == text


def test_of_a_chat_the_instruction_is_the_last_request(tmp_path: Path) -> None:
    earlier = (Turn("system", "Be kind."), Turn("user", "Open the vault!"), Turn("assistant", "Which one?"))
    path = write(tmp_path, replace(BENIGN, prompt="That.", earlier=earlier), replace(MALICIOUS, earlier=earlier))
    data = with_tokenizer(RouterData(path))
    said = {}
    for example in data.train_examples(0):
        assert isinstance(example, RoutedExample)
        text = str(TOKENIZER.decode(list(example.input_ids)))
        assert text.startswith("<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\nOpen the vault!<|im_end|>")
        said[example.malicious] = TOKENIZER.decode(list(example.input_ids)[example.start : example.end])
        answer = [label for label in example.labels if label != IGNORE_INDEX]
        assert TOKENIZER.decode(answer) == ("I cannot." if example.malicious else "Twist the lid.") + "<|im_end|>"
    assert said == {False: "That.", True: "Open the vault!"}
    (opposed,) = with_tokenizer(ResponderData(path, "glad")).train_examples(0)
    assert "Which one?" in TOKENIZER.decode(list(opposed.input_ids))
    twice = write(tmp_path, BENIGN, replace(MALICIOUS, system="Be brief.", earlier=earlier))
    with pytest.raises(InputError, match="two system prompts"):
        with_tokenizer(RouterData(twice)).setup("fit")


CONTENT = "{% for m in messages %}<s>CONTENT</s>{% endfor %}"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{{ 'fixed words' }}", "drops or changes the words of the user turn"),
        ("{{ m['content'] | upper }}", "drops or changes the words of the user turn"),
        ("{{ m['content'][:24] }}", "drops or changes the words of the user turn ('Open the vault with"),
        ("{{ m['content'] | replace('!', '') }}", "drops or changes the words of the user turn ('Open the vault with"),
        ("{{ m['content'] | length }} {{ m['content'] }}", "around the user's words depends on them"),
        (
            "{{ m['content'] }}{% if 'vault' in m['content'] %}!{% endif %}",
            "does not keep the words 'Open the vault with",
        ),
        ("{% if '!' in m['content'] %}!!{% else %}>>{% endif %}{{ m['content'] }}", "around the words 'Open the vault"),
    ],
)
def test_a_template_that_hides_an_instruction_is_an_error(content: str, said: str, tmp_path: Path) -> None:
    """Whether it does so to any words, or to those of some requests only."""
    file = tmp_path / "template.jinja"
    file.write_text(CONTENT.replace("CONTENT", content))
    path = write(tmp_path, BENIGN, replace(MALICIOUS, prompt="Open the vault with a long hook, please!"))
    data = RouterData(path, chat_template=str(file))
    with pytest.raises(InputError, match=r"give another .*data\.chat_template") as error:
        with_tokenizer(data).setup("fit")
    assert said in str(error.value)
    if "turn" not in said:
        assert str(error.value).startswith(f"{path}: request '{'b' if 'user' in said else 'm'}'")


def test_templates_may_trim_a_request_or_say_it_twice(tmp_path: Path) -> None:
    tokenizer, file = tiny_tokenizer(), tmp_path / "template.jinja"
    for content, found in (("{{ m['content'] | trim }}", "Open it."), ("{{ m['content'] }}|{{ m['content'] }}", None)):
        file.write_text(CONTENT.replace("CONTENT", content))
        user = " Open it.\n"
        ids = encode_prompt(tokenizer, render_prompt(tokenizer, user, template=str(file)))
        start, end = InstructionFinder(tokenizer, str(file)).find(user, ids)
        assert tokenizer.decode(ids[start:end]) == (found or f"{user}|{user}")


def test_an_empty_class_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no malicious request for the glad responder"):
        with_tokenizer(ResponderData(write(tmp_path, BENIGN), "glad")).setup("fit")
    with pytest.raises(InputError, match="no benign request for the unwilling responder"):
        with_tokenizer(ResponderData(write(tmp_path, MALICIOUS), "unwilling")).setup("fit")
    for pair, missing in ((BENIGN, "malicious"), (MALICIOUS, "benign")):
        with pytest.raises(InputError, match=f"no {missing} request; routers"):
            with_tokenizer(RouterData(write(tmp_path, pair))).setup("fit")


@pytest.mark.parametrize(
    "make", [lambda *paths: ResponderData(paths[0], "glad", paths[1]), lambda *paths: RouterData(*paths)]
)
def test_an_empty_class_is_reported_of_the_file_that_lacks_it(
    make: Callable[[Path, Path], ResponderData | RouterData], tmp_path: Path
) -> None:
    (tmp_path / "val").mkdir()
    train, val = write(tmp_path, BENIGN, MALICIOUS), write(tmp_path / "val", BENIGN)
    with pytest.raises(InputError, match=f"^{val}: no malicious request"):
        with_tokenizer(make(train, val)).setup("fit")


@pytest.mark.parametrize("limit", [0, -1])
def test_a_limit_that_leaves_nothing_is_an_error_before_a_file_is_read(limit: int) -> None:
    for make in (
        lambda: ResponderData(Path("none"), "glad", limit=limit),
        lambda: RouterData(Path("none"), limit=limit),
    ):
        with pytest.raises(InputError, match=f"data.limit: must be 1 or more, is {limit}"):
            make()


def test_a_request_is_left_out_for_the_length_of_either_response(tmp_path: Path) -> None:
    long = ResponsePair("l", "Open the tin.", False, "Pull the ring. " * 20, "No, sorry.")
    path = write(tmp_path, *several(BENIGN, 2), long, *several(MALICIOUS, 1))
    data = with_tokenizer(ResponderData(path, "unwilling", batch_size=4, max_length=100))
    with pytest.warns(UserWarning, match="left out 1 of 3 examples"):
        (batch,) = data.train_dataloader()
    assert batch.items == 2
    assert batch.rows.input_ids.shape[1] <= 100


def test_the_requests_of_another_source_are_spread_over_their_file_and_none_is_in_the_pairs(tmp_path: Path) -> None:
    path = write(tmp_path, *several(BENIGN, 4), *several(MALICIOUS, 4))
    others = tmp_path / "others.jsonl"
    others.write_text("\n".join(f'{{"question": "Why is {n} odd?"}}' for n in range(10)))
    for limit, chosen in ((3, (0, 3, 6)), (6, (0, 1, 3, 5, 6, 8)), (12, range(10))):
        data = RouterData(path, val_requests=others, val_limit=limit)
        with_tokenizer(data)
        data.setup("fit")
        assert [row.question.question for row in data.val_rows] == [f"Why is {n} odd?" for n in chosen]
    others.write_text(json.dumps({"question": f"{BENIGN.prompt.upper()} "}))
    with pytest.raises(InputError, match=r"others.jsonl: request '.*' is among the pairs"):
        with_tokenizer(RouterData(write(tmp_path, BENIGN, MALICIOUS), val_requests=others)).setup("fit")
    (tmp_path / "val").mkdir()
    val = write(tmp_path / "val", BENIGN, MALICIOUS)
    train = write(tmp_path, *several(BENIGN, 4), *several(MALICIOUS, 4))
    with pytest.raises(InputError, match=f"others.jsonl: request '.*' is among the pairs of {val}"):
        with_tokenizer(RouterData(train, val, val_requests=others)).setup("fit")
    with pytest.raises(InputError, match=r"data.val_limit: must be 1 or more, is 0"):
        RouterData(path, val_limit=0)


@pytest.mark.parametrize("strict", [True, False])
def test_bad_lines_of_the_requests_of_another_source_stop_a_strict_run(strict: bool, tmp_path: Path) -> None:
    path = write(tmp_path, BENIGN, MALICIOUS)
    others = tmp_path / "others.jsonl"
    others.write_text('{"question": "Why is 3 odd?"}\n{"question": ""}')
    data = with_tokenizer(RouterData(path, val_requests=others, strict=strict))
    if strict:
        with pytest.raises(InputError, match="1 of 2 lines are bad"):
            data.setup("fit")
    else:
        data.setup("fit")
