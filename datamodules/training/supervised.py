"""The base class of DataModules for supervised training: batches, sharding, resuming within an epoch."""

import hashlib
from abc import ABC, abstractmethod
from array import array
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, cast

import torch
from lightning import LightningDataModule
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from torch.utils.data import DataLoader, Dataset
from transformers import PreTrainedTokenizerBase

from datamodules.errors import InputError
from datamodules.trainer_parts import max_positions_of, run_seed, shard_of
from datamodules.training.packing import Example, pack, pad
from datamodules.training.sampler import LengthGroupedBatchSampler, check_batch_settings


class BatchLoader:
    """The batches of one epoch that training has not yet seen.

    ``n_done``, the number that it has seen, is called when the first batch is fetched, not when the loader is made:
    Lightning may make the loader before it restores its progress, and a resumed epoch must start at its first unseen
    batch. ``batches`` are this process's, as indices of ``examples``.
    """

    def __init__(
        self,
        examples: Sequence[Example],
        batches: Sequence[list[int]],
        collate: Callable[[Sequence[Any]], Any],
        num_workers: int = 0,
        n_done: Callable[[], int] = lambda: 0,
    ) -> None:
        self.examples, self.batches, self.collate, self.num_workers = examples, batches, collate, num_workers
        self.n_done = n_done

    def __len__(self) -> int:
        """Return the number of batches of the whole epoch, seen ones included, as Lightning expects."""
        return len(self.batches)

    def ids(self, batch: int) -> list[str]:
        """The records of a batch, counted from the epoch's first: their ids, or their numbers in ``examples``."""
        return [self.examples[index].record or f"example {index}" for index in self.batches[batch]]

    def __iter__(self) -> Iterator[Any]:
        yield from DataLoader(
            cast(Dataset[Any], self.examples),  # torch takes any sequence
            batch_sampler=self.batches[self.n_done() :],
            collate_fn=self.collate,
            num_workers=self.num_workers,
            generator=torch.Generator(),  # by default it would draw from the global one, once more after a resume
        )

    def state_dict(self) -> dict[str, Any]:
        """Return nothing: the trainer's progress is the state. Lightning resumes epochs of loaders with this method."""
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Do nothing, see `state_dict`."""


class SupervisedData(LightningDataModule, ABC):
    """Examples for supervised training, one stage per epoch. Subclasses give the examples.

    Batches are grouped by length or packed. They depend on the examples, the settings, the epoch and the number of
    processes alone, and every process has the same number of them. A run that is resumed within an epoch continues
    with the next batch. Arguments as in `InstructionData`.

    Attributes:
        tokenizer: Set it before ``setup``, or the trained module's is taken.
        n_dropped: Number of examples left out, by epoch and in validation.
    """

    def __init__(
        self,
        batch_size: int | None = None,
        max_tokens: int | None = None,
        packing: bool = False,
        max_length: int | None = None,
        seed: int | None = None,
        num_workers: int = 0,
    ) -> None:
        super().__init__()
        self.batch_size = 8 if batch_size is None and max_tokens is None else batch_size
        check_batch_settings(self.batch_size, max_tokens, packing)
        self.max_tokens, self.packing, self.max_length = max_tokens, packing, max_length
        self.seed, self.num_workers = run_seed(seed), num_workers
        self.tokenizer: PreTrainedTokenizerBase | None = None
        self.n_dropped: dict[str, int] = {}
        self._told: set[str] = set()
        self._plan: dict[str, Any] = {}
        self._restored_plan: dict[str, Any] = {}

    @abstractmethod
    def train_examples(self, stage: int) -> Sequence[Example]:
        """Return the examples of a stage (= epoch); the same ones at every call."""

    @abstractmethod
    def val_examples(self) -> Sequence[Example]:
        """Return the examples for the validation loss; may be empty."""

    def setup(self, stage: str) -> None:
        """Take the tokenizer of the trained module."""
        if self.tokenizer is None and self.trainer is not None:
            self.tokenizer = getattr(self.trainer.lightning_module, "tokenizer", None)

    def train_dataloader(self) -> BatchLoader:
        """Return the batches of the current epoch.

        InputError if no example is left, or the trainer does not reload its loaders every epoch.
        """
        trainer: Any = self.trainer  # a Trainer gets this option after its constructor's types
        epoch = trainer.current_epoch if trainer is not None else 0
        if trainer is not None and trainer.max_epochs != 1 and trainer.reload_dataloaders_every_n_epochs != 1:
            raise InputError("every epoch has its own batches: set trainer.reload_dataloaders_every_n_epochs: 1")
        examples = self._usable(self.train_examples(epoch), f"epoch {epoch}")
        sampler = self._sampler(examples)
        steps = sampler.steps(epoch)
        self._plan = {"epoch": epoch, "digest": _digest(examples, steps)}
        targets = [sum(examples[index].n_targets for index in batch) for step in steps for batch in step]
        means = sum(targets) / len(targets), sum(len(batch) for step in steps for batch in step) / len(targets)
        return self._loader(examples, [step[sampler.rank] for step in steps], self._n_done, *means)

    def val_dataloader(self) -> BatchLoader | list[Any]:
        """Return the batches of the validation examples, always in the same order; an empty list without examples."""
        examples = self.val_examples()
        if not examples:
            return []
        examples = self._usable(examples, "validation")
        return self._loader(examples, list(self._sampler(examples)))

    @property
    def longest_usable(self) -> int | None:
        """Longest example in tokens: ``max_length``, ``max_tokens`` or the positions of the trained model."""
        return min(
            (n for n in (self.max_length, self.max_tokens, max_positions_of(self)) if n is not None), default=None
        )

    def state_dict(self) -> dict[str, Any]:
        """Return a fingerprint of the epoch's batches, saved with every checkpoint."""
        return dict(self._plan)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Remember the fingerprint of the batches that the checkpoint's run was trained on."""
        self._restored_plan = dict(state_dict)

    def _sampler(self, examples: Sequence[Example]) -> LengthGroupedBatchSampler:
        rank, world_size = shard_of(self)
        return LengthGroupedBatchSampler(
            [len(example.input_ids) for example in examples],
            batch_size=self.batch_size,
            max_tokens=self.max_tokens,
            packing=self.packing,
            seed=self.seed,
            world_size=world_size,
            rank=rank,
        )

    def _loader(
        self,
        examples: Sequence[Example],
        batches: list[list[int]],
        n_done: Callable[[], int] = lambda: 0,
        mean_targets: float | None = None,
        mean_items: float | None = None,
    ) -> BatchLoader:
        return BatchLoader(examples, batches, self.collate(mean_targets, mean_items), self.num_workers, n_done)

    def collate(self, mean_targets: float | None, mean_items: float | None) -> Callable[[Sequence[Any]], Any]:
        """A picklable function that makes a batch; the means are those of an epoch's batches, None in validation."""
        pad_id = getattr(self.tokenizer, "pad_token_id", None) or 0
        return partial(pack if self.packing else partial(pad, pad_id=pad_id), mean_targets=mean_targets)

    def _usable(self, examples: Sequence[Example], where: str) -> list[Example]:
        """Leave out examples that are too long or have no token to learn, and warn once about each number of them."""
        limit = self.longest_usable
        fits = [e for e in examples if limit is None or e.longest <= limit]
        kept = [e for e in fits if e.n_targets]
        self.n_dropped[where] = len(examples) - len(kept)
        reasons = f"{len(examples) - len(fits)} longer than {limit} tokens, {len(fits) - len(kept)} without a target"
        if not kept:
            raise InputError(
                f"{where}: none of {len(examples)} examples can be trained on ({reasons}):"
                " raise data.max_length or data.max_tokens, or give other data"
            )
        told = f"left out {len(examples) - len(kept)} of {len(examples)} examples ({reasons})"
        if len(kept) < len(examples) and told not in self._told:
            self._told.add(told)
            rank_zero_warn(f"{where}: {told}")
        return kept

    def _n_done(self) -> int:
        """Return the number of this epoch's batches that training has seen; call it once progress is restored.

        InputError if the epoch was begun with other batches.
        """
        if self.trainer is None:
            return 0
        done = self.trainer.fit_loop.batch_idx + 1
        if done == 0:
            return 0
        restored = self._restored_plan
        if restored.get("epoch") == self._plan["epoch"] and restored["digest"] != self._plan["digest"]:
            raise InputError(
                f"the checkpoint was written after {done} batches of epoch {restored['epoch']}, but the data, the batch"
                " settings, the seed or the number of processes have changed since: restore them, or start from a"
                " checkpoint that was written at the end of an epoch"
            )
        if done % self.trainer.accumulate_grad_batches:
            rank_zero_warn(
                "the checkpoint was written between two optimizer steps: the gradients between them are lost"
            )
        rank_zero_info(f"continuing with batch {done} of epoch {self._plan['epoch']}")
        return done


def _digest(examples: Sequence[Example], steps: list[list[list[int]]]) -> str:
    """Return a fingerprint of the batches of all processes."""
    digest = hashlib.sha256(repr(steps).encode())
    for example in examples:
        digest.update(array("q", (*example.input_ids, *example.labels)).tobytes())
    return digest.hexdigest()
