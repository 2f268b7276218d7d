"""Prompts to generate for: questions by system, steering strength, layer set and sample."""

import hashlib
import math
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from lightning import LightningDataModule
from transformers import PreTrainedTokenizerBase

from datamodules.batch import PromptBatch, PromptRow, System
from datamodules.errors import InputError
from datamodules.prompts.chat_template import encode_prompt, render_prompt, user_turn
from datamodules.prompts.contrast_data import ContrastData
from datamodules.records.kinds import Question
from datamodules.records.questions import read_questions
from datamodules.trainer_parts import run_folder, run_seed, shard_of, tokenizer_of

__all__ = ["ContrastData", "GenerationData", "PromptBatches", "PromptData", "build_rows", "stable_seed"]


def build_rows(
    questions: Iterable[Question],
    tokenizer: PreTrainedTokenizerBase,
    *,
    systems: Sequence[System] = ("system2",),
    alphas: Sequence[float] = (0.0,),
    layer_sets: Sequence[str] = ("",),
    samples: int = 1,
    seed: int = 0,
    chat_template: str | None = None,
) -> list[PromptRow]:
    """Every question under every system, strength, layer set and sample, question by question.

    Strength 0 steers nothing, so that it appears once a (question, system, sample) however many layer sets there are:
    the initial trace. A row's seed depends on ``seed``, its question and its sample only: all strengths are compared
    on common random numbers.

    Args:
        questions: Their ids must differ.
        tokenizer: Renders and encodes the prompts.
        systems: How the questions are put.
        alphas: Steering strengths.
        layer_sets: Names of the sets of layers to steer; the steering callback says what they mean.
        samples: Completions of each.
        seed: Of the sampling.
        chat_template: As in `render_prompt`.

    Raises:
        InputError: A strength is no finite number, nothing is asked for, or two rows would be the same.
    """
    for alpha in alphas:
        if not math.isfinite(alpha):
            raise InputError(f"data.alphas: {alpha} is no strength; give finite numbers such as -0.2")
    if not systems or not alphas or not layer_sets or samples < 1:
        raise InputError("data: systems, alphas and layer_sets need one entry at least, samples must be 1 or more")
    conditions = [(0.0, "")] if 0 in alphas else []
    conditions += [(float(alpha), layer_set) for layer_set in layer_sets for alpha in alphas if alpha != 0]
    rows = []
    for question in questions:
        for system in systems:
            prompt = render_prompt(tokenizer, user_turn(question.question, system), template=chat_template)
            token_ids = tuple(encode_prompt(tokenizer, prompt))
            for alpha, layer_set in conditions:
                rows += [
                    PromptRow(
                        id=f"{question.id}|{system}|{layer_set or '-'}|a{alpha:g}|s{sample}",
                        question=question,
                        system=system,
                        prompt=prompt,
                        token_ids=token_ids,
                        seed=stable_seed(seed, question.id, sample),
                        sample=sample,
                        alpha=alpha,
                        layer_set=layer_set,
                    )
                    for sample in range(samples)
                ]
    twice = [identifier for identifier, count in Counter(row.id for row in rows).items() if count > 1]
    if twice:
        raise InputError(f"data: the row '{twice[0]}' occurs twice; ids, systems, alphas and layer_sets must differ")
    return rows


class PromptBatches:
    """One process's rows in batches for the generator; what a dataloader method returns.

    Questions are dealt out in turn and never split, so that all strengths of a question run in one batch. Every
    process gets the same number of batches, which sharded models need; where one runs out of rows it gets empty
    batches, never rows a second time. There is one batch at least, so that the hooks of a run take place even where
    nothing is left to do.
    """

    def __init__(
        self, rows: Iterable[PromptRow], *, rows_per_batch: int = 256, rank: int = 0, world_size: int = 1
    ) -> None:
        """Deal out.

        Args:
            rows: All rows of all processes, those of a question together or not.
            rows_per_batch: Rows of a batch, unless a single question has more.
            rank: This process.
            world_size: Number of processes.
        """
        questions: dict[str, list[PromptRow]] = {}
        for row in rows:
            questions.setdefault(row.question.id, []).append(row)
        groups = list(questions.values())
        shares = [_fill(groups[start::world_size], rows_per_batch) for start in range(world_size)]
        longest = max(1, *(len(share) for share in shares))
        self.batches = [PromptBatch(share) for share in shares[rank]]
        self.batches += [PromptBatch(())] * (longest - len(self.batches))

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[PromptBatch]:
        return iter(self.batches)


def _fill(questions: Sequence[list[PromptRow]], rows_per_batch: int) -> list[list[PromptRow]]:
    """Whole questions into batches of at most ``rows_per_batch`` rows, or a single question's."""
    batches: list[list[PromptRow]] = []
    for rows in questions:
        if not batches or len(batches[-1]) + len(rows) > rows_per_batch:
            batches.append([])
        batches[-1] += rows
    return batches


def stable_seed(seed: int, question_id: str, sample: int) -> int:
    """A non-negative 63-bit seed, the same in every process and on every machine."""
    digest = hashlib.blake2b(f"{seed}|{question_id}|{sample}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


class GenerationData(LightningDataModule):
    """Rows to generate for, of which those that are done can be left out.

    Attributes:
        tokenizer: Set it to use the data without a trainer; else the model's.
        rows: All rows of all processes, after ``setup``.
        rows_per_batch: Rows handed to the generator at once, from which it refills its slots.
        seed: Of the sampling.
    """

    def __init__(self, rows_per_batch: int, seed: int | None = None) -> None:
        super().__init__()
        if rows_per_batch < 1:
            raise InputError(f"data.rows_per_batch: must be 1 or more, is {rows_per_batch}")
        self.rows_per_batch, self.seed = rows_per_batch, run_seed(seed)
        self.tokenizer: PreTrainedTokenizerBase | None = None
        self.rows: list[PromptRow] = []
        self._done: Collection[str] = frozenset()

    def skip(self, ids: Collection[str]) -> None:
        """Leave out rows that are done. To be called before the loader is asked for, alike on all processes."""
        self._done = frozenset(ids)

    def predict_dataloader(self) -> PromptBatches:
        """This process's batches of the rows that are not done."""
        rank, world_size = shard_of(self)
        rows = [row for row in self.rows if row.id not in self._done]
        return PromptBatches(rows, rows_per_batch=self.rows_per_batch, rank=rank, world_size=world_size)

    def test_dataloader(self) -> Any:
        """As `predict_dataloader`."""
        return self.predict_dataloader()

    def val_dataloader(self) -> PromptBatches:
        """As `predict_dataloader`."""
        return self.predict_dataloader()


class PromptData(GenerationData):
    """Questions to be answered, at any steering strength."""

    def __init__(
        self,
        questions: Path,
        fields: dict[str, str] | None = None,
        gold_pattern: str = "",
        offset: int = 0,
        limit: int | None = None,
        systems: list[System] | None = None,
        alphas: list[float] | None = None,
        layer_sets: list[str] | None = None,
        samples: int = 1,
        rows_per_batch: int = 256,
        seed: int | None = None,
        chat_template: str | None = None,
        require_gold: bool = False,
    ) -> None:
        """Say what to ask; files are read in ``setup``.

        Args:
            questions: JSONL file, a question a line.
            fields: Our names of fields to those of the file, where they differ: ``{gold: answer}``.
            gold_pattern: Regular expression round the answer within the gold field, where that does not stand alone;
                GSM8K: ``#### (.+)``, on the command line ``[#]### (.+)``.
            offset: Questions to leave out at the beginning.
            limit: Questions to take; all by default.
            systems: How the questions are put; ``[system2]`` by default.
            alphas: Steering strengths; 0, no steering, by default.
            layer_sets: Sets of layers to steer; the steering callback's own by default.
            samples: Completions of each question, system, strength and layer set.
            rows_per_batch: Rows handed to the generator at once, from which it refills its slots.
            seed: Seed of the sampling. By default that of ``seed_everything``.
            chat_template: ``plain`` or a jinja file, for a model without one or instead of its own.
            require_gold: Refuse questions without a gold answer.
        """
        super().__init__(rows_per_batch, seed)
        self.questions_file, self.fields, self.gold_pattern = questions, fields, gold_pattern
        self.offset, self.limit, self.require_gold = offset, limit, require_gold
        self.systems: list[System] = systems if systems is not None else ["system2"]
        self.alphas = alphas if alphas is not None else [0.0]
        self.layer_sets = layer_sets if layer_sets is not None else [""]
        self.samples, self.chat_template = samples, chat_template

    def setup(self, stage: str) -> None:
        """Read the questions and render the prompts, before any weights are loaded.

        Raises:
            InputError: The file, a setting or the chat template is not usable, or a gold answer is missing.
        """
        if self.rows:
            return
        if self.gold_pattern is None:  # what the command line makes of "#### (.+)"; an optional string would hide it
            raise InputError("data.gold_pattern: YAML takes '#' for a comment; begin with '[#]', as in '[#]### (.+)'")
        tokenizer = tokenizer_of(self)
        questions = read_questions(
            self.questions_file,
            fields=self.fields,
            gold_pattern=self.gold_pattern or None,
            offset=self.offset,
            limit=self.limit,
            rejected_dir=run_folder(self),
        )
        missing = [question.id for question in questions if question.gold is None]
        if self.require_gold and missing:
            raise InputError(
                f"{self.questions_file}: {len(missing)} of {len(questions)} questions have no gold answer, first "
                f"'{missing[0]}'; map the field with data.fields and data.gold_pattern, or set data.require_gold: false"
            )
        self.rows = build_rows(
            questions,
            tokenizer,
            systems=self.systems,
            alphas=self.alphas,
            layer_sets=self.layer_sets,
            samples=self.samples,
            seed=self.seed,
            chat_template=self.chat_template,
        )
