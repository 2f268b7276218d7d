"""The DataModule of plain supervised fine-tuning."""

import random
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from datamodules.errors import InputError
from datamodules.prompts.chat_template import ChatTemplate, encode_pair
from datamodules.records.kinds import Instruction
from datamodules.records.reader import read_records
from datamodules.trainer_parts import tokenizer_of
from datamodules.training.packing import Example
from datamodules.training.supervised import SupervisedData


class InstructionData(SupervisedData):
    """Requests and responses from JSONL files, rendered with the chat template.

    The loss covers the response and the end of its turn. Validation data come from ``val_path`` or are split off by
    ``val_fraction``; by default there are none.
    """

    def __init__(
        self,
        path: Path,
        val_path: Path | None = None,
        val_fraction: float = 0.0,
        fields: dict[str, str] | None = None,
        strict: bool = False,
        chat_template: str | None = None,
        chat_template_kwargs: dict[str, Any] | None = None,
        batch_size: int | None = None,
        max_tokens: int | None = None,
        packing: bool = False,
        max_length: int | None = None,
        seed: int | None = None,
        num_workers: int = 0,
    ) -> None:
        """Configure the data; files are read in ``setup``.

        Args:
            path: JSONL file of requests and responses.
            val_path: JSONL file for the validation loss.
            val_fraction: Share of ``path`` to split off for the validation loss.
            fields: The file's name of a field, by the record's, if they differ: ``{prompt: instruction}``.
            strict: Stop at the first bad line. By default bad lines are set aside and counted.
            chat_template: ``plain`` or a jinja file, instead of the tokenizer's own template.
            chat_template_kwargs: Arguments of the template, such as ``{enable_thinking: false}``; see `ChatTemplate`.
            batch_size: Rows of a batch on each process. 8 by default.
            max_tokens: Instead of ``batch_size``: most tokens of a batch on each process, padding included.
            packing: Pack examples end to end into single rows of at most ``max_tokens`` tokens.
            max_length: Longest example in tokens. Longer ones are left out, and a warning counts them.
            seed: Seed of the split and of the order. By default that of ``seed_everything``.
            num_workers: Number of worker processes that collate batches.
        """
        super().__init__(batch_size, max_tokens, packing, max_length, seed, num_workers)
        if val_path is not None and val_fraction:
            raise InputError("data.val_path and data.val_fraction: give one, a file or a share to split off")
        if not 0 <= val_fraction < 1:
            raise InputError(f"data.val_fraction is a share from 0 to below 1, not {val_fraction:g}")
        self.path, self.val_path, self.val_fraction = path, val_path, val_fraction
        self.fields, self.strict = fields, strict
        self.chat_template = ChatTemplate(chat_template, chat_template_kwargs or {})

    def setup(self, stage: str) -> None:
        """Read the files and encode the examples."""
        super().setup(stage)
        _ = self.examples

    def train_examples(self, stage: int) -> Sequence[Example]:
        """Return the same examples in every epoch."""
        return self.examples[0]

    def val_examples(self) -> Sequence[Example]:
        """Return the validation examples."""
        return self.examples[1]

    @cached_property
    def examples(self) -> tuple[list[Example], list[Example]]:
        """The encoded examples for training and for validation."""
        train = self._read(self.path)
        if self.val_path is not None:
            return self._encode(train), self._encode(self._read(self.val_path))
        n_val = round(len(train) * self.val_fraction)
        if n_val == len(train):
            raise InputError(f"{self.path}: data.val_fraction {self.val_fraction:g} leaves nothing to train on")
        random.Random(f"{self.seed}/split").shuffle(train)
        return self._encode(train[n_val:]), self._encode(train[:n_val])

    def _read(self, path: Path) -> list[Instruction]:
        return read_records(path, Instruction, fields=self.fields, strict=self.strict)

    def _encode(self, records: Sequence[Instruction]) -> list[Example]:
        tokenizer = tokenizer_of(self)
        template = self.chat_template.of("plain")
        pairs = (
            encode_pair(tokenizer, r.prompt, r.response, system_prompt=r.system, template=template) for r in records
        )
        return [Example(tuple(ids), tuple(labels)) for ids, labels in pairs]
