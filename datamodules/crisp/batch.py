"""What a DataModule hands to CRISP: the same questions in a student's and in a teacher's prompt."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from datamodules.batch import IGNORE_INDEX, PromptBatch, SupervisedBatch
from datamodules.training.packing import Example, pad


@dataclass(frozen=True)
class DistillationBatch:
    """Questions to answer in training.

    Attributes:
        student: Rows to sample from the model that is trained, each with a seed of its own.
        teacher_ids: The prompt in which the teacher reads the answer to each row, as token ids.
    """

    student: PromptBatch
    teacher_ids: tuple[tuple[int, ...], ...]

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "DistillationBatch":
        """The same batch: there is no tensor in it. Lightning would take a dataclass without this method apart."""
        return self

    def with_answers(
        self, answers: Sequence[Sequence[int]], pad_id: int, device: torch.device
    ) -> tuple[SupervisedBatch, SupervisedBatch]:
        """The answers after the student's and after the teacher's prompts, labelled alike.

        Args:
            answers: The sampled token ids of each row.
            pad_id: Fills rows up on the right.
            device: Where the tensors go.

        Returns:
            Student and teacher, each (rows, seq); the labelled positions are the answers', row by row in both.
        """
        prompts = [row.token_ids for row in self.student.rows], self.teacher_ids
        student, teacher = (
            pad([_answered(*pair) for pair in zip(side, answers, strict=True)], pad_id).to(device) for side in prompts
        )
        return student, teacher


def _answered(prompt: Sequence[int], answer: Sequence[int]) -> Example:
    return Example((*prompt, *answer), (*[IGNORE_INDEX] * len(prompt), *answer))
