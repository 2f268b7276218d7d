import json
from collections.abc import Iterable
from pathlib import Path

import pytest

from datamodules.batch import IGNORE_INDEX
from datamodules.errors import InputError
from datamodules.records.files import HubData
from datamodules.training.instruction_data import InstructionData
from tests.datamodules.training.test_supervised import TinyModel, make_trainer
from tests.tiny import tiny_tokenizer

TOKENIZER = tiny_tokenizer()


def write(path: Path, n: int, names=("prompt", "response")) -> Path:
    lines = [json.dumps({names[0]: f"Say {i}", names[1]: f"It is {i}."}) for i in range(n)]
    path.write_text("\n".join(lines) + "\n")
    return path


def ready(path: Path, **kwargs) -> InstructionData:
    data = InstructionData(path, **kwargs)
    data.tokenizer = TOKENIZER
    data.setup("fit")
    return data


def text(token_ids: Iterable[int]) -> str:
    return str(TOKENIZER.decode(list(token_ids)))


def texts(examples) -> list[tuple[str, str]]:
    return [(text(e.input_ids), text(label for label in e.labels if label != IGNORE_INDEX)) for e in examples]


def test_only_the_response_and_its_end_are_learnt(tmp_path):
    data = ready(
        write(tmp_path / "a.jsonl", 3, ("question", "output")), fields={"prompt": "question", "response": "output"}
    )
    assert sorted(texts(data.train_examples(0))) == [
        (f"<|im_start|>user\nSay {i}<|im_end|>\n<|im_start|>assistant\nIt is {i}.<|im_end|>", f"It is {i}.<|im_end|>")
        for i in range(3)
    ]
    assert data.val_examples() == []


def test_validation_is_split_off_or_a_file_of_its_own(tmp_path):
    path, other = write(tmp_path / "a.jsonl", 20), write(tmp_path / "b.jsonl", 4)
    data = ready(path, val_fraction=0.25)
    train, val = texts(data.train_examples(0)), texts(data.val_examples())
    assert (len(train), len(val)) == (15, 5)
    assert len({*train, *val}) == 20
    assert texts(ready(path, val_fraction=0.25).val_examples()) == val
    assert texts(ready(path, val_fraction=0.25, seed=1).val_examples()) != val
    assert len(ready(path, val_path=other).val_examples()) == 4


def test_trains_and_validates_in_a_fit(tmp_path):
    class Model(TinyModel):
        tokenizer = TOKENIZER

        def __init__(self) -> None:
            super().__init__(vocabulary=len(TOKENIZER))

    trainer, model = make_trainer(tmp_path, max_epochs=2), Model()
    trainer.fit(model, datamodule=InstructionData(write(tmp_path / "a.jsonl", 20), val_fraction=0.2, batch_size=4))
    assert len(model.seen) == 8
    assert trainer.callback_metrics["val/loss"] > 0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"val_fraction": 1.0}, "from 0 to below 1"),
        ({"val_fraction": 0.1, "val_path": Path("b.jsonl")}, "give one"),
        ({"val_fraction": 0.9}, "leaves nothing to train on"),
    ],
)
def test_wrong_settings_are_explained(tmp_path, settings, message):
    with pytest.raises(InputError, match=message):
        ready(write(tmp_path / "a.jsonl", 2), **settings)


def chats(path: Path, *chats: list[str]) -> Path:
    roles = ("user", "assistant") * 9
    rows = [{"messages": [{"role": r, "content": t} for r, t in zip(roles, chat, strict=False)]} for chat in chats]
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


def test_all_turns_of_a_chat_are_learnt_or_the_last(tmp_path):
    path = chats(tmp_path / "c.jsonl", ["Hi", "Yes?", "1+1", "2"])
    assert [learnt for _, learnt in texts(ready(path).train_examples(0))] == ["Yes?<|im_end|>2<|im_end|>"]
    assert [learnt for _, learnt in texts(ready(path, loss_turns="last").train_examples(0))] == ["2<|im_end|>"]


@pytest.mark.parametrize("too_long", ["drop", "cut"])
def test_long_examples_are_dropped_or_cut_and_counted(tmp_path, too_long):
    path = chats(tmp_path / "c.jsonl", ["Hi", "Yes"], ["Hi", "long " * 50], ["long " * 50, "Yes"])
    data = ready(path, max_length=60, too_long=too_long)
    with pytest.warns(UserWarning, match="left out [12] of 3") as told:
        data.train_dataloader()
    assert ("2 longer than 60" if too_long == "drop" else "1 without a target") in str(told[0].message)
    assert data.n_dropped["epoch 0"] == (2 if too_long == "drop" else 1)
    with pytest.warns(UserWarning, match="cut 2 of 3 examples to 60 tokens"):
        ready(path, max_length=60, too_long="cut")


def test_examples_longer_than_the_positions_of_the_model_are_too_long(tmp_path):
    class Model(TinyModel):
        tokenizer, max_positions = TOKENIZER, 60

    trainer = make_trainer(tmp_path, max_epochs=1)
    data = InstructionData(chats(tmp_path / "c.jsonl", ["Hi", "Yes"], ["Hi", "long " * 50]), batch_size=1)
    with pytest.warns(UserWarning, match="1 longer than 60 tokens"):
        trainer.fit(Model(vocabulary=len(TOKENIZER)), datamodule=data)
    assert data.n_dropped == {"epoch 0": 1}


def test_a_conversation_that_the_template_refuses_is_left_out_and_counted(tmp_path):
    template = tmp_path / "strict.jinja"
    template.write_text(
        "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system turn') }}{% endif %}"
        "{{ m.content }}<|im_end|>{% endfor %}"
    )
    path = tmp_path / "c.jsonl"
    row = {"prompt": "Hi", "response": "Yes"}
    path.write_text("\n".join(map(json.dumps, [row, {**row, "system": "Be kind."}])))
    with pytest.warns(UserWarning, match=r"left out 1 of 2 conversations, such as .*c\.jsonl:2: .*no system turn"):
        assert len(ready(path, chat_template=str(template)).train_examples(0)) == 1
    with pytest.raises(InputError, match=r"c\.jsonl:2: .*no system turn"):
        ready(path, chat_template=str(template), strict=True)
    path.write_text(json.dumps({**row, "system": "Be kind."}))
    with pytest.raises(InputError, match=r"c\.jsonl:1: .*no system turn"):
        ready(path, chat_template=str(template))


def test_control_tokens_in_texts_are_told(tmp_path):
    path = chats(tmp_path / "c.jsonl", ["Hi", "Yes"], ["Hi <|im_end|>", "a<|im_end|>b"])
    with pytest.warns(UserWarning, match=r"text of 1 records .*'<\|im_end\|>' 2 times; first .*c\.jsonl:2"):
        ready(path)


def test_a_set_of_the_hub(tmp_path):
    pytest.importorskip("datasets", reason="the hub extra is not installed")
    write(tmp_path / "train.jsonl", 3)
    assert len(ready(HubData(str(tmp_path))).train_examples(0)) == 3


def test_empty_answers_and_ids_that_start_anew(tmp_path, caplog):
    path = tmp_path / "a.jsonl"
    rows = [{"id": i % 3, "instruction": f"Say {i}", "input": "", "output": f"{i}"} for i in range(6)]
    rows += [{"id": 9, "instruction": "Say", "output": "  "}, {"id": 10, "instruction": "", "output": "c"}]
    path.write_text("\n".join(map(json.dumps, rows)))
    assert len(ready(path).train_examples(0)) == 6
    assert "2 of 8 lines are bad" in caplog.text


def test_published_instructions(shared_data):
    path = shared_data / "alpaca_seed_tasks" / "seed_tasks.jsonl"
    fields = {"prompt": "instruction", "response": "name"}
    data = ready(path, fields=fields, max_length=400)
    assert len(data.train_examples(0)) > 100
    assert len(list(data.train_dataloader())) > 10
