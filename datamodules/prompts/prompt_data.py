"""DataModules of prompts to generate for."""

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, TypeVar

from lightning import LightningDataModule
from transformers import PreTrainedTokenizerBase

from datamodules.batch import PromptRow
from datamodules.errors import InputError
from datamodules.prompts.chat_template import ChatTemplate
from datamodules.prompts.control_tokens import tell_control_tokens
from datamodules.prompts.rows import PromptBatches, build_rows
from datamodules.records.files import with_project
from datamodules.records.kinds import System
from datamodules.records.questions import read_questions
from datamodules.trainer_parts import check_lengths, parse_shard, run_folder, run_seed, shard_of, tokenizer_of

Record = TypeVar("Record")


class GenerationData(LightningDataModule):
    """Rows to generate for. Rows that an earlier run has done can be skipped.

    ``rows`` are those of all processes, after ``setup``. To use the data without a trainer, set ``tokenizer``.
    """

    def __init__(self, rows_per_batch: int, seed: int | None = None, shard: str | None = None) -> None:
        super().__init__()
        if rows_per_batch < 1:
            raise InputError(f"data.rows_per_batch: must be 1 or more, is {rows_per_batch}")
        self.rows_per_batch, self.seed = rows_per_batch, run_seed(seed)
        self.shard = parse_shard(shard)
        self.tokenizer: PreTrainedTokenizerBase | None = None
        self.rows: list[PromptRow] = []
        self._done: Collection[str] = frozenset()

    def skip(self, ids: Collection[str]) -> None:
        """Skip rows that are done. Call it on all processes alike, before the loader is made."""
        self._done = frozenset(ids)

    def cut(self, records: Sequence[Record], source: object) -> list[Record]:
        """The records of this shard: every n-th; all without ``shard``.

        Raises:
            InputError: None is left.
        """
        first, n = self.shard
        kept = list(records[first::n])
        if records and not kept:
            raise InputError(
                f"data.shard: {first + 1}/{n} of {len(records)} records of {source} is none; take fewer shards"
            )
        return kept

    def check_prompts(self, source: object) -> None:
        """Check all rows before any weights are loaded; warn of control tokens in the questions.

        InputError if the model has too few positions for a prompt.
        """
        check_lengths(self, ((row.question.id, len(row.token_ids)) for row in self.rows), source)
        questions = {row.question.id: row.question.asked for row in self.rows}
        tell_control_tokens(tokenizer_of(self), source, questions.items(), "they end the turn, or begin another")

    def predict_dataloader(self) -> PromptBatches:
        """Return this process's batches of the rows that are not done."""
        rank, world_size = shard_of(self)
        rows = [row for row in self.rows if row.id not in self._done]
        return PromptBatches(rows, rows_per_batch=self.rows_per_batch, rank=rank, world_size=world_size)

    def test_dataloader(self) -> Any:
        """Return the same batches as `predict_dataloader`."""
        return self.predict_dataloader()

    def val_dataloader(self) -> PromptBatches:
        """Return the same batches as `predict_dataloader`."""
        return self.predict_dataloader()


class PromptData(GenerationData):
    """Questions to answer, at any steering strengths."""

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
        chat_template_kwargs: dict[str, Any] | None = None,
        require_gold: bool = False,
        strict: bool = False,
        shard: str | None = None,
    ) -> None:
        """Configure the data; files are read in ``setup``.

        Args:
            questions: JSONL file with one question on each line.
            fields: The file's name of a field, by the record's, if they differ: ``{gold: answer}``.
            gold_pattern: Regular expression whose one group is the answer in the gold field. GSM8K: ``#### (.+)``, in
                YAML and on the command line ``[#]### (.+)``.
            offset: Number of questions to skip at the beginning.
            limit: Number of questions to read. All by default.
            systems: Instructions to ask the questions with. ``[system2]`` by default.
            alphas: Steering strengths. 0, no steering, by default.
            layer_sets: Sets of layers to steer. The steering callback's own by default.
            samples: Number of completions for each question, system, strength and layer set.
            rows_per_batch: Number of rows that the generator gets at once and refills its slots from.
            seed: Seed of the sampling. By default that of ``seed_everything``.
            chat_template: ``plain`` or a jinja file, instead of the tokenizer's own template.
            chat_template_kwargs: Arguments of the template, such as ``{enable_thinking: false}``; see `ChatTemplate`.
            require_gold: Raise an error if a question has no gold answer.
            strict: Stop at bad lines; by default they are set aside and counted.
            shard: Part of the questions for this run: ``2/8`` is the second of eight; see docs/scale.md.
        """
        super().__init__(rows_per_batch, seed, shard)
        self.questions_file, self.fields, self.gold_pattern = with_project(questions), fields, gold_pattern
        self.offset, self.limit, self.require_gold, self.strict = offset, limit, require_gold, strict
        self.systems: list[System] = systems if systems is not None else ["system2"]
        self.alphas = alphas if alphas is not None else [0.0]
        self.layer_sets = layer_sets if layer_sets is not None else [""]
        self.samples = samples
        self.chat_template = ChatTemplate(chat_template, chat_template_kwargs or {})

    def setup(self, stage: str) -> None:
        """Read the questions and render the prompts, before any weights are loaded.

        InputError if the file, a setting or the chat template is not usable, or a gold answer is missing.
        """
        if self.rows:
            return
        if self.gold_pattern is None:  # what YAML makes of "#### (.+)"; a type of `str | None` would hide it
            raise InputError("data.gold_pattern: in YAML '#' starts a comment; begin with '[#]', as in '[#]### (.+)'")
        tokenizer = tokenizer_of(self)
        questions = read_questions(
            self.questions_file,
            fields=self.fields,
            gold_pattern=self.gold_pattern or None,
            offset=self.offset,
            limit=self.limit,
            strict=self.strict,
            rejected_dir=run_folder(self),
            key="data.fields",
        )
        missing = [question.id for question in questions if question.gold is None]
        if self.require_gold and missing:
            raise InputError(
                f"{self.questions_file}: {len(missing)} of {len(questions)} questions have no gold answer, first "
                f"'{missing[0]}'; map the field with data.fields and data.gold_pattern, or set data.require_gold: false"
            )
        self.rows = build_rows(
            self.cut(questions, self.questions_file),
            tokenizer,
            systems=self.systems,
            alphas=self.alphas,
            layer_sets=self.layer_sets,
            samples=self.samples,
            seed=self.seed,
            chat_template=self.chat_template,
        )
        self.check_prompts(self.questions_file)
