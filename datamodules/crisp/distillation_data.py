"""Questions for on-policy self-distillation: a prompt without and a prompt with the instruction to be brief."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from datamodules.batch import PromptBatch, PromptRow
from datamodules.crisp.batch import DistillationBatch
from datamodules.errors import InputError
from datamodules.prompts.chat_template import ChatTemplate
from datamodules.prompts.prompt_data import PromptData
from datamodules.prompts.rows import build_rows, stable_seed
from datamodules.records.kinds import Question, System
from datamodules.records.questions import read_questions
from datamodules.trainer_parts import run_folder, tokenizer_of
from datamodules.training.packing import Example
from datamodules.training.supervised import SupervisedData


@dataclass(frozen=True)
class PromptPair(Example):
    """A question in the student's prompt, to be answered in training, and in the teacher's."""

    row: PromptRow
    teacher_ids: tuple[int, ...]


class DistillationData(SupervisedData):
    """Questions that the model answers while it is trained; no answers and no gold answers are needed.

    Every epoch asks all questions, in a new order and with new seeds. Validation asks other questions in both prompts.
    """

    def __init__(
        self,
        questions: Path,
        fields: dict[str, str] | None = None,
        limit: int | None = None,
        val_questions: Path | None = None,
        val_limit: int | None = None,
        student: System = "system2",
        teacher: System = "system1",
        chat_template: str | None = None,
        chat_template_kwargs: dict[str, Any] | None = None,
        batch_size: int = 32,
        max_length: int | None = None,
        seed: int | None = None,
        num_workers: int = 0,
    ) -> None:
        """Describe the data; files are read in ``setup``.

        Args:
            questions: JSONL file, one question per line.
            fields: Our names of fields to those of the file, if they differ: ``{question: problem}``.
            limit: Questions to train on; all by default.
            val_questions: Questions with gold answers to choose the checkpoint on; none of them may be trained on.
            val_limit: Questions of that file to take; all by default.
            student: Prompt that is trained (paper: the plain task prompt, which asks for step-by-step reasoning).
            teacher: Prompt whose next-token distribution is the target (paper: "solve concisely").
            chat_template: ``plain`` or a jinja file instead of the tokenizer's own template.
            chat_template_kwargs: Arguments of the template, such as ``{enable_thinking: false}``; see `ChatTemplate`.
            batch_size: Questions per batch on each process (paper: 32).
            max_length: Longest prompt in tokens; longer ones are left out, counted and reported.
            seed: Of the order and of the sampling; the seed of the run by default.
            num_workers: Worker processes that make batches.

        Raises:
            InputError: Student and teacher have the same prompt, so that there is nothing to learn.
        """
        super().__init__(batch_size, None, False, max_length, seed, num_workers)
        if student == teacher:
            raise InputError(f"data.student and data.teacher are both '{student}': there is nothing to distil")
        self.questions_file, self.fields, self.limit = questions, fields, limit
        self.student, self.teacher = student, teacher
        self.chat_template = ChatTemplate(chat_template, chat_template_kwargs or {})
        self.validation: PromptData | None = None
        if val_questions is not None:
            systems = [student, teacher]
            self.validation = PromptData(
                val_questions,
                fields,
                limit=val_limit,
                systems=systems,
                seed=self.seed,
                chat_template=chat_template,
                chat_template_kwargs=chat_template_kwargs,
            )
        self.pairs: list[PromptPair] = []

    def setup(self, stage: str) -> None:
        """Read the questions and render both prompts, before any weights are loaded.

        InputError if a file or the chat template is not usable, or a validation question is trained on.
        """
        super().setup(stage)
        if self.pairs:
            return
        questions = read_questions(
            self.questions_file, fields=self.fields, limit=self.limit, rejected_dir=run_folder(self), key="data.fields"
        )
        student, teacher = (self._rows(questions, system) for system in (self.student, self.teacher))
        self.pairs = [
            PromptPair(row.token_ids, row.token_ids, row, other.token_ids, record=row.question.id)
            for row, other in zip(student, teacher, strict=True)
        ]
        if self.validation is not None:
            self.validation.tokenizer, self.validation.trainer = self.tokenizer, self.trainer
            self.validation.setup(stage)
            trained = {question.asked.strip() for question in questions}
            if shared := [row for row in self.validation.rows if row.question.asked.strip() in trained]:
                raise InputError(
                    f"data.val_questions: '{shared[0].question.id}' is also trained on ({self.questions_file}); "
                    "give other questions"
                )

    def train_examples(self, stage: int) -> Sequence[PromptPair]:
        """All questions, with the seeds of an epoch."""
        return [replace(pair, row=_reseeded(pair.row, self.seed, stage)) for pair in self.pairs]

    def val_examples(self) -> Sequence[Example]:
        """None: validation generates."""
        return []

    def val_dataloader(self) -> Any:
        """Prompts to answer."""
        return [] if self.validation is None else self.validation.val_dataloader()

    def collate(self, mean_targets: float | None, mean_items: float | None) -> Callable[[Sequence[Any]], Any]:
        """Batches of prompt pairs; a step's mean is over the tokens of its own answers (paper)."""
        return _collate

    def _rows(self, questions: Sequence[Question], system: System) -> list[PromptRow]:
        return build_rows(questions, tokenizer_of(self), systems=[system], chat_template=self.chat_template)


def _reseeded(row: PromptRow, seed: int, epoch: int) -> PromptRow:
    return PromptRow(
        row.id, row.question, row.system, row.prompt, row.token_ids, seed=stable_seed(seed, row.question.id, epoch)
    )


def _collate(pairs: Sequence[PromptPair]) -> DistillationBatch:
    return DistillationBatch(PromptBatch(pair.row for pair in pairs), tuple(pair.teacher_ids for pair in pairs))
