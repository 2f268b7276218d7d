"""What a DataModule takes from its run: tokenizer, share of the data, folder, seed."""

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol, cast

from lightning import Trainer
from transformers import PreTrainedTokenizerBase

from datamodules.errors import InputError


class PromptingData(Protocol):
    """A DataModule that needs a tokenizer."""

    tokenizer: PreTrainedTokenizerBase | None
    trainer: Trainer | None


def tokenizer_of(data: PromptingData) -> PreTrainedTokenizerBase:
    """Return the DataModule's tokenizer, by default that of the module that its trainer runs.

    InputError if there is neither a tokenizer nor a trainer.
    """
    if data.tokenizer is None:
        if data.trainer is None:
            raise InputError("the data has no tokenizer: set its attribute `tokenizer`, or use it through a trainer")
        data.tokenizer = cast(PreTrainedTokenizerBase, data.trainer.lightning_module.tokenizer)
    return data.tokenizer


def max_positions_of(data: PromptingData) -> int | None:
    """Return the longest input of the module that the trainer runs, in tokens; None if nothing limits it."""
    if data.trainer is None:
        return None
    return getattr(getattr(data.trainer, "lightning_module", None), "max_positions", None)


def check_lengths(data: PromptingData, lengths: Iterable[tuple[str, int]], source: object) -> None:
    """Raise `InputError` if the module has too few positions for a prompt; ``lengths`` are names and token counts."""
    most = max_positions_of(data)
    if most is None:
        return
    if too_long := [(name, length) for name, length in lengths if length > most]:
        name, length = too_long[0]
        more = f" (and {len(too_long) - 1:,} more)" if len(too_long) > 1 else ""
        raise InputError(
            f"{source}: '{name}' has {length:,} tokens as a prompt{more}, the model {most:,} positions; leave it out"
        )


def shard_of(data: PromptingData) -> tuple[int, int]:
    """Return this process's rank among the processes that share the data, and their number."""
    if data.trainer is None:
        return 0, 1
    # Processes of one tensor-parallel group need the same data, which only the strategy knows.
    shard = getattr(data.trainer.strategy, "distributed_sampler_kwargs", None) or {"rank": 0, "num_replicas": 1}
    return shard["rank"], shard["num_replicas"]


def parse_shard(shard: str | None) -> tuple[int, int]:
    """Return the number of a shard, from 0, and the number of shards, of a text such as ``2/8``; (0, 1) of None.

    Raises:
        InputError: It is no such text.
    """
    if shard is None:
        return 0, 1
    found = re.fullmatch(r"(\d+)/(\d+)", shard)
    if found is None or not 1 <= int(found[1]) <= int(found[2]):
        raise InputError(f"data.shard: '{shard}' is no part; give 1/8 for the first of eight, 8/8 for the last")
    return int(found[1]) - 1, int(found[2])


def run_folder(data: PromptingData) -> Path | None:
    """Return the folder of the run's files; None without a trainer."""
    return Path(data.trainer.default_root_dir) if data.trainer is not None else None


def run_seed(seed: int | None = None) -> int:
    """Return ``seed`` if it is given, else the seed of ``seed_everything``, else 0.

    Lightning keeps the seed of ``seed_everything`` in the environment, where the processes that it starts find it.
    """
    return int(os.environ.get("PL_GLOBAL_SEED", 0)) if seed is None else seed
