import json
from pathlib import Path
from typing import Any

import pytest
import torch

from datamodules.batch import IGNORE_INDEX
from datamodules.crisp.distillation_data import DistillationData
from datamodules.errors import InputError
from datamodules.prompts.chat_template import SYSTEM1_SUFFIX, SYSTEM2_SUFFIX
from tests.tiny import tiny_tokenizer

TOKENIZER = tiny_tokenizer()


@pytest.fixture
def questions(tmp_path: Path) -> Path:
    path = tmp_path / "questions.jsonl"
    path.write_text("".join(json.dumps({"question": f"What is {n} + 1?", "gold": str(n + 1)}) + "\n" for n in range(9)))
    return path


def ready(questions: Path, **options: Any) -> DistillationData:
    data = DistillationData(questions, **{"batch_size": 4} | options)
    data.tokenizer = TOKENIZER
    data.setup("fit")
    return data


def test_student_and_teacher_are_asked_the_same_question_with_different_instructions(questions: Path) -> None:
    data = ready(questions)
    for batch in data.train_dataloader():
        for row, teacher_ids in zip(batch.student.rows, batch.teacher_ids, strict=True):
            asked, read = str(TOKENIZER.decode(list(row.token_ids))), str(TOKENIZER.decode(list(teacher_ids)))
            assert asked.replace(SYSTEM2_SUFFIX, SYSTEM1_SUFFIX) == read
            assert row.question.question in asked
            assert asked != read


def test_an_epoch_asks_every_question_once_and_each_epoch_samples_anew(questions: Path) -> None:
    data = ready(questions)
    asked = [row.question.id for batch in data.train_dataloader() for row in batch.student.rows]
    assert sorted(asked) == sorted(pair.row.question.id for pair in data.pairs)
    first, again, second = (
        {pair.row.question.id: pair.row.seed for pair in data.train_examples(epoch)} for epoch in (0, 0, 1)
    )
    assert first == again
    assert not set(first.values()) & set(second.values())


def test_answers_are_labelled_alike_after_both_prompts(questions: Path) -> None:
    batch = next(iter(ready(questions).train_dataloader()))
    answers = [[7, 8, 9, 5][: n + 1] for n in range(len(batch.student.rows))]
    student, teacher = batch.with_answers(answers, pad_id=0, device=torch.device("cpu"))
    for side in (student, teacher):
        assert [row[row != IGNORE_INDEX].tolist() for row in side.labels] == answers
        assert side.attention_mask is not None
        assert (side.labels[side.attention_mask == 0] == IGNORE_INDEX).all()
    for row, ids in zip(batch.student.rows, student.input_ids, strict=True):
        assert tuple(ids[: len(row.token_ids)].tolist()) == row.token_ids


def test_a_teacher_with_the_students_prompt_is_refused(questions: Path) -> None:
    with pytest.raises(InputError, match=r"data\.student and data\.teacher are both 'system2'"):
        DistillationData(questions, teacher="system2")


def test_validation_questions_that_are_trained_on_are_refused(questions: Path) -> None:
    with pytest.raises(InputError, match=r"data\.val_questions: 'questions-1' is also trained on"):
        ready(questions, val_questions=questions)


def test_validation_asks_both_prompts(questions: Path, tmp_path: Path) -> None:
    others = tmp_path / "dev.jsonl"
    others.write_text(json.dumps({"question": "What is 50 + 1?", "gold": "51"}) + "\n")
    data = ready(questions, val_questions=others)
    rows = [row for batch in data.val_dataloader() for row in batch.rows]
    assert sorted(row.system for row in rows) == ["system1", "system2"]
