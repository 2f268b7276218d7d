import json
from collections.abc import Iterable
from pathlib import Path

import pytest

from datamodules.batch import IGNORE_INDEX
from datamodules.errors import InputError
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


def test_published_instructions(shared_data):
    path = shared_data / "alpaca_seed_tasks" / "seed_tasks.jsonl"
    fields = {"prompt": "instruction", "response": "name"}
    data = ready(path, fields=fields, max_length=400)
    assert len(data.train_examples(0)) > 100
    assert len(list(data.train_dataloader())) > 10
