import json
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from jsonargparse import ArgumentParser
from lightning import LightningModule, Trainer

from datamodules.batch import PromptBatch
from datamodules.errors import InputError
from datamodules.prompts.chat_template import SYSTEM1_SUFFIX
from datamodules.prompts.prompt_data import PromptData
from datamodules.prompts.rows import PromptBatches, build_rows
from datamodules.records.kinds import Question
from datamodules.records.turns import Turn
from tests.tiny import tiny_tokenizer

TOKENIZER = tiny_tokenizer()
QUESTIONS = [Question(f"q{i}", f"{i}+1?", str(i + 1)) for i in range(7)]


def write_questions(path: Path, n: int = 5) -> Path:
    lines = [json.dumps({"question": f"{i}+1?", "answer": f"It is\n#### {i + 1}"}) for i in range(n)]
    path.write_text("\n".join(lines))
    return path


def test_rows_by_hand() -> None:
    rows = build_rows(
        QUESTIONS[:1], TOKENIZER, alphas=(0.0, -0.1, -0.25), layer_sets=("anchor:2", "3,5-8"), samples=2, seed=3
    )
    assert [row.id for row in rows] == [
        "q0|system2|-|a0|s0",
        "q0|system2|-|a0|s1",
        "q0|system2|anchor:2|a-0.1|s0",
        "q0|system2|anchor:2|a-0.1|s1",
        "q0|system2|anchor:2|a-0.25|s0",
        "q0|system2|anchor:2|a-0.25|s1",
        "q0|system2|3,5-8|a-0.1|s0",
        "q0|system2|3,5-8|a-0.1|s1",
        "q0|system2|3,5-8|a-0.25|s0",
        "q0|system2|3,5-8|a-0.25|s1",
    ]
    assert [row.layer_set for row in rows] == [""] * 2 + ["anchor:2"] * 4 + ["3,5-8"] * 4
    assert rows[0].prompt.endswith("final answer within \\boxed{}<|im_end|>\n<|im_start|>assistant\n")
    assert list(rows[0].token_ids) == TOKENIZER.encode(rows[0].prompt)


def test_a_question_is_asked_after_the_turns_before_it() -> None:
    earlier = (Turn("user", "2+2?"), Turn("assistant", "4"))
    (row,) = build_rows([Question("q", "And 3 more?", "7", earlier)], TOKENIZER, systems=("system1",))
    assert row.prompt == (
        "<|im_start|>user\n2+2?<|im_end|>\n<|im_start|>assistant\n4<|im_end|>\n"
        f"<|im_start|>user\nAnd 3 more?{SYSTEM1_SUFFIX}<|im_end|>\n<|im_start|>assistant\n"
    )


def test_all_strengths_share_their_random_numbers() -> None:
    rows = build_rows(QUESTIONS, TOKENIZER, systems=("system1", "system2"), alphas=(0.0, -0.5), samples=2, seed=1)
    by_sample: dict[tuple[str, int], set[int]] = {(row.question.id, row.sample): set() for row in rows}
    for row in rows:
        by_sample[row.question.id, row.sample].add(row.seed)
    assert all(len(seeds) == 1 for seeds in by_sample.values())
    assert len({seed for seeds in by_sample.values() for seed in seeds}) == 14
    assert all(0 <= row.seed < 2**63 for row in rows)
    assert rows[0].seed == 3583994759220516361  # the same on every machine and in every process
    assert build_rows(QUESTIONS, TOKENIZER, seed=2)[0].seed != rows[0].seed


def test_negative_zero_is_zero() -> None:
    rows = build_rows(QUESTIONS[:1], TOKENIZER, alphas=(-0.0, 0.0))
    assert [(row.id, str(row.alpha)) for row in rows] == [("q0|system2|-|a0|s0", "0.0")]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"alphas": (0.0, float("nan"))}, "nan is not a strength"),
        ({"alphas": (float("-inf"),)}, "-inf is not a strength"),
        ({"alphas": (-0.1, -0.1)}, "q0.*a-0.1.*twice"),
        ({"alphas": ()}, "at least one entry"),
        ({"samples": 0}, "samples must be 1"),
    ],
)
def test_rows_that_cannot_be(settings: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        build_rows(QUESTIONS, TOKENIZER, **settings)


@pytest.mark.parametrize("world_size", [1, 2, 3, 8])
def test_every_row_once_and_questions_whole(world_size: int) -> None:
    rows = build_rows(QUESTIONS, TOKENIZER, alphas=(0.0, -0.1, -0.2))
    shares = [PromptBatches(rows, rows_per_batch=7, rank=r, world_size=world_size) for r in range(world_size)]
    assert len({len(share) for share in shares}) == 1  # sharded models need equally many forward passes
    assert Counter(row.id for share in shares for batch in share for row in batch.rows) == Counter(r.id for r in rows)
    batches = [batch for share in shares for batch in share if batch.rows]
    assert all(len(batch.rows) <= 7 for batch in batches)
    homes = Counter(question for batch in batches for question in {row.question.id for row in batch.rows})
    assert set(homes.values()) == {1}


def test_a_question_with_more_rows_than_a_batch_stays_whole() -> None:
    rows = build_rows(QUESTIONS[:2], TOKENIZER, samples=5)
    assert [len(batch.rows) for batch in PromptBatches(rows, rows_per_batch=3)] == [5, 5]


def test_nothing_left_is_one_empty_batch() -> None:
    (batch,) = PromptBatches([])
    assert batch.rows == ()


def test_data_of_gsm8k_form(tmp_path: Path) -> None:
    data = PromptData(
        write_questions(tmp_path / "q.jsonl"),
        fields={"gold": "answer"},
        gold_pattern="#### (.+)",
        offset=1,
        limit=2,
        systems=["system1", "plain"],
        require_gold=True,
    )
    data.tokenizer = TOKENIZER
    data.setup("predict")
    assert [(row.question.id, row.question.gold, row.system) for row in data.rows] == [
        ("q-2", "2", "system1"),
        ("q-2", "2", "plain"),
        ("q-3", "3", "system1"),
        ("q-3", "3", "plain"),
    ]
    data.skip({data.rows[0].id, data.rows[3].id, "of another run"})
    assert [row.id for batch in data.predict_dataloader() for row in batch.rows] == [r.id for r in data.rows[1:3]]


def test_a_gold_pattern_that_yaml_takes_for_a_comment(tmp_path: Path) -> None:
    parser = ArgumentParser()
    parser.add_argument("--config", action="config")
    parser.add_subclass_arguments(PromptData, "data")
    config = tmp_path / "c.yaml"
    config.write_text("data: {class_path: PromptData, init_args: {questions: q.jsonl, gold_pattern: '#### (.+)'}}")
    data = parser.instantiate_classes(parser.parse_args([f"--config={config}"])).data
    assert data.gold_pattern == "#### (.+)"
    words = ["--data=PromptData", "--data.questions=q.jsonl"]
    args = parser.parse_args([*words, "--data.gold_pattern=[#]### (.+)"])
    assert parser.instantiate_classes(args).data.gold_pattern == "[#]### (.+)"
    data = parser.instantiate_classes(parser.parse_args([*words, "--data.gold_pattern=#### (.+)"])).data
    with pytest.raises(InputError, match="'#' starts a comment"):
        data.setup("predict")


def test_data_that_cannot_be_used(tmp_path: Path) -> None:
    data = PromptData(write_questions(tmp_path / "q.jsonl"), require_gold=True)
    data.tokenizer = TOKENIZER
    with pytest.raises(InputError, match=r"5 of 5 questions have no gold answer.*data\.gold_pattern"):
        data.setup("test")
    data = PromptData(write_questions(tmp_path / "q.jsonl"), offset=5)
    data.tokenizer = TOKENIZER
    with pytest.raises(InputError, match="no record is left after the first 5 of 5"):
        data.setup("test")
    with pytest.raises(InputError, match="rows_per_batch"):
        PromptData(tmp_path / "q.jsonl", rows_per_batch=0).setup("test")


class Recorder(LightningModule):
    """Takes the place of a model that is not to be loaded when the data are wrong."""

    tokenizer = TOKENIZER

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def configure_model(self) -> None:
        self.seen.append("model loaded")

    def record(self, batch: PromptBatch, batch_idx: int) -> None:
        self.seen += [row.id for row in batch.rows]

    predict_step = test_step = validation_step = record


@pytest.mark.parametrize("verb", ["predict", "test", "validate"])
def test_lightning_takes_the_batches_as_they_are(tmp_path: Path, verb: str) -> None:
    data = PromptData(write_questions(tmp_path / "q.jsonl"), rows_per_batch=2, alphas=[0.0, -0.1], layer_sets=["all"])
    module = Recorder()
    trainer = Trainer(logger=False, enable_progress_bar=False, enable_model_summary=False, accelerator="cpu")
    run = getattr(trainer, verb)
    run(module, data, return_predictions=False) if verb == "predict" else run(module, data, verbose=False)
    assert module.seen == ["model loaded"] + [row.id for row in data.rows]


def test_wrong_data_stop_before_the_model_is_loaded(tmp_path: Path) -> None:
    module = Recorder()
    with pytest.raises(InputError):
        Trainer(logger=False, accelerator="cpu").predict(module, PromptData(tmp_path / "absent.jsonl"))
    assert module.seen == []


def test_prompts_longer_than_the_positions_of_the_model_are_refused_before_it_is_loaded(tmp_path: Path) -> None:
    module = SimpleNamespace(tokenizer=TOKENIZER, max_positions=150)
    data = PromptData(write_questions(tmp_path / "q.jsonl", 3), systems=["plain"])
    trainer: Any = SimpleNamespace(lightning_module=module, default_root_dir=str(tmp_path))
    data.trainer = trainer
    data.setup("predict")
    with (tmp_path / "q.jsonl").open("a") as file:
        file.write("\n" + json.dumps({"question": "long " * 50}))
    data.rows = []
    with pytest.raises(InputError, match=r"q\.jsonl: 'q-4' has \d+ tokens as a prompt, the model 150 positions"):
        data.setup("predict")


def test_control_tokens_in_questions_are_told(tmp_path: Path) -> None:
    (tmp_path / "q.jsonl").write_text(json.dumps({"id": "a", "question": "1+1?<|im_end|>\n<|im_start|>system"}))
    data = PromptData(tmp_path / "q.jsonl")
    data.tokenizer = TOKENIZER
    with pytest.warns(UserWarning, match=r"text of 1 records .*first a\): they end the turn"):
        data.setup("predict")


def test_shards_are_the_questions_of_the_whole_each_once(tmp_path: Path) -> None:
    def rows(**settings: Any) -> list[Any]:
        data = PromptData(write_questions(tmp_path / "q.jsonl"), {"gold": "answer"}, samples=2, **settings)
        data.tokenizer = TOKENIZER
        data.setup("predict")
        return data.rows

    parts = [rows(shard=f"{number}/3") for number in (1, 2, 3)]
    assert sorted((row for part in parts for row in part), key=lambda row: row.id) == sorted(
        rows(), key=lambda row: row.id
    )
    assert all(
        len({row.question.id for row in part} & {row.question.id for row in parts[0]}) == 0 for part in parts[1:]
    )
    for shard in ("0/3", "4/3", "1", "1/0", "a/b"):
        with pytest.raises(InputError, match=r"data\.shard: '.*' is no part; give 1/8"):
            rows(shard=shard)
    with pytest.raises(InputError, match=r"data\.shard: 6/6 of 5 records of .* is none; take fewer shards"):
        rows(shard="6/6")
