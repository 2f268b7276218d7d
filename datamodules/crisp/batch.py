"""What a DataModule hands to CRISP: the same questions in a student's and in a teacher's prompt."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from datamodules.batch import IGNORE_INDEX, PromptBatch, SupervisedBatch
from datamodules.training.packing import Example, pad


@dataclass(frozen=True)
class DistillationBatch:
    """Rows to sample in training, each with a seed, and the prompts in which the teacher reads the answers."""

    student: PromptBatch
    teacher_ids: tuple[tuple[int, ...], ...]

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "DistillationBatch":
        """The same batch: there is no tensor in it. Lightning would take a dataclass without this method apart."""
        return self

    def with_answers(
        self, answers: Sequence[Sequence[int]], pad_id: int, device: torch.device
    ) -> tuple[SupervisedBatch, SupervisedBatch]:
        """The answers after the student's and after the teacher's prompts, (rows, seq), labelled alike row by row."""
        prompts = [row.token_ids for row in self.student.rows], self.teacher_ids
        student, teacher = (
            pad([_answered(*pair) for pair in zip(side, answers, strict=True)], pad_id).to(device) for side in prompts
        )
        return student, teacher


def _answered(prompt: Sequence[int], answer: Sequence[int]) -> Example:
    return Example((*prompt, *answer), (*[IGNORE_INDEX] * len(prompt), *answer))
