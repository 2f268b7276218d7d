"""The DataModule of plain supervised fine-tuning."""

import random
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn

from datamodules.errors import InputError
from datamodules.prompts.chat_template import ChatTemplate
from datamodules.prompts.control_tokens import tell_control_tokens
from datamodules.prompts.conversation import ConversationEncoder, LossTurns
from datamodules.records.conversations import Conversation, read_conversations
from datamodules.records.files import HubData
from datamodules.trainer_parts import run_folder, tokenizer_of
from datamodules.training.packing import Example
from datamodules.training.supervised import SupervisedData

Source = HubData | Path


class InstructionData(SupervisedData):
    """Conversations or pairs of request and response, rendered with the chat template; see `read_conversations`.

    The loss covers the assistant's turns and their ends; see `ConversationEncoder`. Validation data come from
    ``val_path`` or are split off by ``val_fraction``; by default there are none.
    """

    def __init__(
        self,
        path: Source,
        val_path: Source | None = None,
        val_fraction: float = 0.0,
        fields: dict[str, str] | None = None,
        strict: bool = False,
        loss_turns: LossTurns = "all",
        chat_template: str | None = None,
        chat_template_kwargs: dict[str, Any] | None = None,
        batch_size: int | None = None,
        max_tokens: int | None = None,
        packing: bool = False,
        max_length: int | None = None,
        too_long: Literal["drop", "cut"] = "drop",
        seed: int | None = None,
        num_workers: int = 0,
    ) -> None:
        """Configure the data; files are read in ``setup``.

        Args:
            path: JSONL, a JSON list, CSV, TSV or Parquet; or a set of the hub: ``{hub: name, split: train}``.
            val_path: The same, for the validation loss.
            val_fraction: Share of ``path`` to split off for the validation loss.
            fields: The file's name of ``messages``, ``prompt``, ``response``, ``system`` or ``tools``, if it differs:
                ``{prompt: question}``.
            strict: Stop at the first bad line. By default bad lines are set aside and counted.
            loss_turns: Learn ``all`` turns of the assistant, or the ``last`` one of each conversation.
            chat_template: ``plain`` or a jinja file, instead of the tokenizer's own template.
            chat_template_kwargs: Arguments of the template, such as ``{enable_thinking: false}``; see `ChatTemplate`.
            batch_size: Rows of a batch on each process. 8 by default.
            max_tokens: Instead of ``batch_size``: most tokens of a batch on each process, padding included.
            packing: Pack examples end to end into single rows of at most ``max_tokens`` tokens.
            max_length: Longest example in tokens; at most ``max_tokens`` and the positions of the model.
            too_long: ``drop`` longer examples, or ``cut`` their end off. A warning counts them.
            seed: Seed of the split and of the order. By default that of ``seed_everything``.
            num_workers: Number of worker processes that collate batches.
        """
        super().__init__(batch_size, max_tokens, packing, max_length, seed, num_workers)
        if val_path is not None and val_fraction:
            raise InputError("data.val_path and data.val_fraction: give one, a file or a share to split off")
        if not 0 <= val_fraction < 1:
            raise InputError(f"data.val_fraction is a share from 0 to below 1, not {val_fraction:g}")
        self.path, self.val_path, self.val_fraction = path, val_path, val_fraction
        self.fields, self.strict, self.loss_turns, self.too_long = fields, strict, loss_turns, too_long
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
            return self._encode(self.path, train), self._encode(self.val_path, self._read(self.val_path))
        n_val = round(len(train) * self.val_fraction)
        if n_val == len(train):
            raise InputError(f"{self.path}: data.val_fraction {self.val_fraction:g} leaves nothing to train on")
        random.Random(f"{self.seed}/split").shuffle(train)
        val = self._encode(self.path, train[:n_val]) if n_val else []
        return self._encode(self.path, train[n_val:]), val

    def _read(self, source: Source) -> list[Conversation]:
        return read_conversations(source, fields=self.fields, strict=self.strict, rejected_dir=run_folder(self))

    def _encode(self, source: Source, conversations: Sequence[Conversation]) -> list[Example]:
        """Encode conversations; those that the template cannot render are bad lines."""
        encoder = ConversationEncoder(tokenizer_of(self), self.chat_template.of("plain"), self.loss_turns)
        examples: list[Example] = []
        refused: list[str] = []
        for conversation in conversations:
            try:
                where = conversation.where
                examples += [Example(tuple(ids), tuple(labels), record=where) for ids, labels in encoder(conversation)]
            except InputError as error:
                refused.append(f"{conversation.where}: {error}")
                if self.strict or len(refused) == len(conversations):
                    raise InputError(refused[0]) from error
        n = len(conversations)
        if refused:
            rank_zero_warn(f"{source}: left out {len(refused):,} of {n:,} conversations, such as {refused[0]}")
        if encoder.n_thoughts_left_out:
            rank_zero_warn(
                f"{source}: the thoughts of {encoder.n_thoughts_left_out:,} turns are not learnt, because their "
                "prompts close the thought (data.chat_template_kwargs)"
            )
        if encoder.n_rewritten:
            rank_zero_info(
                f"{source}: {n:,} conversations make {len(examples):,} examples, because the chat template rewrites "
                f"earlier turns of {encoder.n_rewritten:,}"
            )
        texts = ((c.where, turn.content) for c in conversations for turn in c.turns)
        tell_control_tokens(tokenizer_of(self), source, texts, "the model learns them as such")
        return self._cut(source, examples)

    def _cut(self, source: Source, examples: list[Example]) -> list[Example]:
        limit = self.longest_usable
        if self.too_long == "drop" or limit is None:
            return examples
        n_long = sum(example.longest > limit for example in examples)
        if n_long:
            rank_zero_warn(f"{source}: cut {n_long:,} of {len(examples):,} examples to {limit:,} tokens")
        return [replace(e, input_ids=e.input_ids[:limit], labels=e.labels[:limit]) for e in examples]
