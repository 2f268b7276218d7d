"""Pairs of prompts that differ in one respect; a direction is the difference of their hidden states."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning import LightningDataModule
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from datamodules.batch import ContrastBatch
from datamodules.errors import InputError
from datamodules.padding import pad_prompts
from datamodules.prompts.chat_template import SYSTEM1_SUFFIX, SYSTEM2_SUFFIX, ChatTemplate, encode_prompt, render_prompt
from datamodules.records.kinds import System
from datamodules.records.questions import part_of, read_questions
from datamodules.records.reader import read_records
from datamodules.records.requests import earlier_turns
from datamodules.records.turns import Turn
from datamodules.trainer_parts import check_lengths, max_positions_of, run_folder, shard_of, tokenizer_of


@dataclass(frozen=True)
class ContrastPair:
    """Two user turns, each with an optional system turn and the turns before it.

    The direction points from the negative to the positive one.
    """

    id: str
    positive: str
    negative: str
    system_positive: str | None = None
    system_negative: str | None = None
    earlier_positive: tuple[Turn, ...] = earlier_turns()
    earlier_negative: tuple[Turn, ...] = earlier_turns()


class ContrastData(LightningDataModule):
    """Pairs of prompts that differ in one respect, to extract a direction from.

    The default pairs give the variable-length direction (paper, sec. VL-D): each question with the System 2 suffix
    (long, positive) and with the System 1 suffix (short, negative). A contrast file gives any other pairs. To use the
    data without a trainer, set ``tokenizer``. ``pairs`` are those of all processes, after ``setup``.
    """

    def __init__(
        self,
        questions: Path | None = None,
        contrast_file: Path | None = None,
        fields: dict[str, str] | None = None,
        positive: str = SYSTEM2_SUFFIX,
        negative: str = SYSTEM1_SUFFIX,
        offset: int = 0,
        limit: int = 100,
        batch_size: int = 16,
        chat_template: str | None = None,
        chat_template_kwargs: dict[str, Any] | None = None,
    ) -> None:
        """Configure the pairs; files are read in ``setup``.

        Args:
            questions: JSONL file of questions, each asked with both instructions.
            contrast_file: Instead of ``questions``: JSONL file with the user turns ``positive`` and ``negative`` on
                each line, and optionally ``system_positive`` and ``system_negative``.
            fields: The file's name of a field, by the record's, if they differ.
            positive: Instruction appended to each question on the positive side.
            negative: Instruction on the negative side.
            offset: Number of lines to skip at the beginning.
            limit: Number of pairs to read.
            batch_size: Pairs in a forward pass.
            chat_template: ``plain`` or a jinja file, instead of the tokenizer's own template.
            chat_template_kwargs: Arguments of the template, such as ``{enable_thinking: false}``; see `ChatTemplate`.
        """
        super().__init__()
        self.questions_file, self.contrast_file, self.fields = questions, contrast_file, fields
        self.positive, self.negative = positive, negative
        self.chat_template = ChatTemplate(chat_template, chat_template_kwargs or {})
        self.offset, self.limit, self.batch_size = offset, limit, batch_size
        self.tokenizer: PreTrainedTokenizerBase | None = None
        self.pairs: list[ContrastPair] = []

    def setup(self, stage: str) -> None:
        """Read the pairs, before any weights are loaded.

        InputError if a file is not usable, there are too few pairs, their sides are the same, or the chat template
        cannot render them.
        """
        if self.pairs:
            return
        if (self.questions_file is None) == (self.contrast_file is None):
            raise InputError("data: give either data.questions or data.contrast_file")
        if self.batch_size < 1:
            raise InputError(f"data.batch_size: must be 1 or more, is {self.batch_size}")
        pairs = self._read()
        if all(
            (pair.positive, pair.system_positive, pair.earlier_positive)
            == (pair.negative, pair.system_negative, pair.earlier_negative)
            for pair in pairs
        ):
            raise InputError("data: the positive and the negative prompts are the same; their direction would be zero")
        _, world_size = shard_of(self)
        if len(pairs) < world_size:
            raise InputError(
                f"data.limit: {len(pairs)} pairs are too few for {world_size} processes; use fewer devices"
            )
        self.collate(pairs[:1])
        if max_positions_of(self) is not None:
            check_lengths(self, ((pair.id, self.collate([pair]).longest) for pair in pairs), self.source)
        self.pairs = pairs

    @property
    def source(self) -> Path | None:
        """The file that is read."""
        return self.contrast_file or self.questions_file

    def predict_dataloader(self) -> "ContrastBatches":
        """Return this process's batches."""
        return ContrastBatches(self, *shard_of(self))

    def collate(self, pairs: Sequence[ContrastPair]) -> ContrastBatch:
        """Render, encode and pad on the left: every row ends with its prompt's last token."""
        tokenizer = tokenizer_of(self)
        pad_id = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id or 0

        def side(system_of: System, turns: list[tuple[str, str | None, Sequence[Turn]]]) -> tuple[Tensor, Tensor]:
            template = self.chat_template.of(system_of)
            prompts = [
                render_prompt(tokenizer, user, system_prompt=system, earlier=earlier, template=template)
                for user, system, earlier in turns
            ]
            return pad_prompts([encode_prompt(tokenizer, prompt) for prompt in prompts], pad_id, "left")

        return ContrastBatch(
            tuple(pair.id for pair in pairs),
            *side("system2", [(pair.positive, pair.system_positive, pair.earlier_positive) for pair in pairs]),
            *side("system1", [(pair.negative, pair.system_negative, pair.earlier_negative) for pair in pairs]),
        )

    def _read(self) -> list[ContrastPair]:
        if self.contrast_file is not None:
            records = read_records(
                self.contrast_file, ContrastPair, fields=self.fields, rejected_dir=run_folder(self), key="data.fields"
            )
            return part_of(self.contrast_file, records, self.offset, self.limit)
        assert self.questions_file is not None
        questions = read_questions(
            self.questions_file,
            fields=self.fields,
            offset=self.offset,
            limit=self.limit,
            rejected_dir=run_folder(self),
            key="data.fields",
        )
        return [
            ContrastPair(
                q.id,
                q.question + self.positive,
                q.question + self.negative,
                earlier_positive=q.earlier,
                earlier_negative=q.earlier,
            )
            for q in questions
        ]


class ContrastBatches:
    """One process's pairs in batches, which are made when they are fetched.

    Each pair is on one process. All processes have the same number of batches and none is empty, as sharded models
    need; to this end a batch may have one pair more than ``batch_size``.
    """

    def __init__(self, data: ContrastData, rank: int, world_size: int) -> None:
        self.data = data
        n = len(data.pairs)
        batches = max(1, min(math.ceil(math.ceil(n / world_size) / data.batch_size), n // world_size))
        mine = data.pairs[rank::world_size]
        self.batches = [mine[len(mine) * i // batches : len(mine) * (i + 1) // batches] for i in range(batches)]

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[ContrastBatch]:
        return map(self.data.collate, self.batches)
