"""Questions from a JSONL file, and what every datamodule that puts prompts needs to know of its run."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, TypeVar, cast

from lightning import Trainer
from transformers import PreTrainedTokenizerBase

from datamodules.errors import InputError
from datamodules.records.kinds import Question
from datamodules.records.reader import read_records

T = TypeVar("T")


def read_questions(
    path: Path,
    *,
    fields: dict[str, str] | None = None,
    gold_pattern: str | None = None,
    offset: int = 0,
    limit: int | None = None,
    rejected_dir: Path | None = None,
) -> list[Question]:
    """A part of a file of questions.

    Args:
        path: JSONL file.
        fields: Our names of fields to those of the file, where they differ: ``{gold: answer}``.
        gold_pattern: Regular expression round the answer within the gold field; GSM8K: ``#### (.+)``.
        offset: Questions to leave out at the beginning.
        limit: Questions to take; all by default.
        rejected_dir: Where bad lines are set aside if the file's own folder cannot be written.

    Raises:
        InputError: The file, the fields or the pattern cannot be used, or no question is left.
    """
    records = read_records(path, Question, fields=fields, gold_pattern=gold_pattern, rejected_dir=rejected_dir)
    return part_of(path, records, offset, limit)


def part_of(path: Path, records: Sequence[T], offset: int, limit: int | None) -> list[T]:
    """``limit`` records from ``offset`` on; InputError if there are none."""
    if offset < 0 or (limit is not None and limit < 1):
        raise InputError(f"data: offset must be 0 or more and limit 1 or more, are {offset} and {limit}")
    part = list(records[offset : None if limit is None else offset + limit])
    if not part:
        where = f" after the first {offset}" if offset else ""
        raise InputError(
            f"{path}: no record is left{where} of {len(records)}; check the file, data.fields, data.offset"
        )
    return part


class PromptingData(Protocol):
    """A datamodule that needs a tokenizer."""

    tokenizer: PreTrainedTokenizerBase | None
    trainer: Trainer | None


def tokenizer_of(data: PromptingData) -> PreTrainedTokenizerBase:
    """The tokenizer set on the datamodule, else that of the module which the trainer runs."""
    if data.tokenizer is None:
        if data.trainer is None:
            raise InputError("the data has no tokenizer: set its attribute `tokenizer`, or use it through a trainer")
        data.tokenizer = cast(PreTrainedTokenizerBase, data.trainer.lightning_module.tokenizer)
    return data.tokenizer


def shard_of(data: PromptingData) -> tuple[int, int]:
    """This process among those that share the data, and their number."""
    if data.trainer is None:
        return 0, 1
    # Processes of one tensor-parallel group need the same data, which only the strategy knows.
    shard = getattr(data.trainer.strategy, "distributed_sampler_kwargs", None) or {"rank": 0, "num_replicas": 1}
    return shard["rank"], shard["num_replicas"]


def run_folder(data: PromptingData) -> Path | None:
    """Where the run's files go; None without a trainer."""
    return Path(data.trainer.default_root_dir) if data.trainer is not None else None
