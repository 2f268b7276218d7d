"""Plain supervised fine-tuning on requests and responses."""

import random
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

from datamodules.errors import InputError
from datamodules.prompts.chat_template import encode_pair
from datamodules.records.kinds import Instruction
from datamodules.records.reader import read_records
from datamodules.trainer_parts import tokenizer_of
from datamodules.training.supervised import Example, SupervisedData


class InstructionData(SupervisedData):
    """Requests and the responses to learn, from JSONL files, rendered with the chat template.

    Only the response and the end of its turn are learnt. The validation part is given by ``val_path``, or is split
    off by ``val_fraction``, or there is none.
    """

    def __init__(
        self,
        path: Path,
        val_path: Path | None = None,
        val_fraction: float = 0.0,
        fields: dict[str, str] | None = None,
        strict: bool = False,
        chat_template: str | None = None,
        batch_size: int | None = None,
        max_tokens: int | None = None,
        packing: bool = False,
        max_length: int | None = None,
        seed: int | None = None,
        num_workers: int = 0,
    ) -> None:
        """Describe the data; files are read in ``setup``.

        Args:
            path: JSONL file of requests and responses.
            val_path: JSONL file for the validation loss.
            val_fraction: Share of ``path`` that is kept from training for the validation loss.
            fields: Where the file's keys differ, ours to theirs: ``{prompt: instruction, response: output}``.
            strict: Stop at the first bad line; otherwise bad lines are set aside and counted.
            chat_template: ``plain``, or a jinja file, instead of the tokenizer's own template.
            batch_size: Rows of a batch on each process; 8 if neither this nor ``max_tokens`` is given.
            max_tokens: Instead of ``batch_size``: tokens of a batch on each process, padding included.
            packing: Pack examples end to end into single rows of at most ``max_tokens`` tokens, without leaks.
            max_length: Longest example in tokens; longer ones are left out, counted and reported.
            seed: Seed of the split and of the order. By default that of ``seed_everything``.
            num_workers: Worker processes that make batches.
        """
        super().__init__(batch_size, max_tokens, packing, max_length, seed, num_workers)
        if val_path is not None and val_fraction:
            raise InputError("data.val_path and data.val_fraction: give one, a file or a share to split off")
        if not 0 <= val_fraction < 1:
            raise InputError(f"data.val_fraction is a share from 0 to below 1, not {val_fraction:g}")
        self.path, self.val_path, self.val_fraction = path, val_path, val_fraction
        self.fields, self.strict, self.chat_template = fields, strict, chat_template

    def setup(self, stage: str) -> None:
        """Read the files and encode what is in them."""
        super().setup(stage)
        _ = self.examples

    def train_examples(self, stage: int) -> Sequence[Example]:
        """The same examples in every epoch."""
        return self.examples[0]

    def val_examples(self) -> Sequence[Example]:
        """The examples kept from training."""
        return self.examples[1]

    @cached_property
    def examples(self) -> tuple[list[Example], list[Example]]:
        """Encoded examples for training and for validation."""
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
        pairs = (
            encode_pair(tokenizer, r.prompt, r.response, system_prompt=r.system, template=self.chat_template)
            for r in records
        )
        return [Example(tuple(ids), tuple(labels)) for ids, labels in pairs]
