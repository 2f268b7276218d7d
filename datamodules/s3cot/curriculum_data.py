"""The progressive compression curriculum: a stage per epoch, two examples per pair, ever wider windows of lengths."""

import random
from array import array
from collections.abc import Sequence
from itertools import cycle, islice
from pathlib import Path
from typing import Any, Literal

from lightning.pytorch.utilities import rank_zero_warn

from datamodules.batch import IGNORE_INDEX
from datamodules.errors import InputError
from datamodules.prompts.chat_template import ChatTemplate, encode_pair, user_turn
from datamodules.prompts.prompt_data import PromptData
from datamodules.records import read_records
from datamodules.records.kinds import System
from datamodules.s3cot.records import CurriculumItem
from datamodules.s3cot.stage_table import StageRow, show_stages
from datamodules.s3cot.stages import LOWER_BOUNDS, Selection, Stage, count_buckets, draw_stages, is_usable, usable_pairs
from datamodules.trainer_parts import tokenizer_of
from datamodules.training.packing import Example
from datamodules.training.supervised import SupervisedData

SYSTEMS: tuple[System, System] = ("system1", "system2")
"""Each pair gives an example for both systems (paper: two examples per item; ours: 1:1)."""


class CurriculumData(SupervisedData):
    """Filtered self-sampled traces for dual-system fine-tuning, ever shorter for System 1 (paper, secs. 4 and 5).

    A pair of an item and one of its variants gives two examples: the question with the System 1 instruction and the
    variant, and the question (or another one, see ``system2_items``) with the System 2 instruction and the initial
    trace. Epoch ``s`` is stage ``s``: it draws variants whose length ratio is between ``lower_bounds[s]`` and 1. All
    stages and all selections have the same number of pairs, and with a fixed ``batch_size`` the same number of steps.

    Attributes:
        items: The items trained on.
        stages: The pairs drawn for each stage.
        stage_table: The stages in numbers. All three are set by ``setup("fit")``.
    """

    def __init__(
        self,
        items: Path,
        val_questions: Path | None = None,
        val_fields: dict[str, str] | None = None,
        val_gold_pattern: str = "",
        val_offset: int = 0,
        val_limit: int | None = None,
        lower_bounds: Sequence[float] = LOWER_BOUNDS,
        selection: Selection = "curriculum",
        items_per_stage: int | None = None,
        system2_items: Literal["drawn", "all"] = "drawn",
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
        """Describe the data; files are read in ``setup``.

        Args:
            items: JSONL file of filtered items.
            val_questions: JSONL file of questions to answer after each stage under both systems; questions that are
                trained on are left out.
            val_fields: Names of that file's fields, if they differ from ours: ``{gold: answer}``.
            val_gold_pattern: Regular expression whose first group is the answer within the gold field: ``#### (.+)``.
            val_offset: Questions to skip at the beginning.
            val_limit: Questions to take; all by default.
            lower_bounds: Lower end of each stage's window of length ratios; ``trainer.max_epochs`` is their number.
            selection: ``curriculum``, or a control with as many pairs: ``all_at_once`` draws from the widest window in
                every stage, ``shortest_only`` takes each item's shortest variant, ``verbose_only`` takes the initial
                trace for both systems.
            items_per_stage: Pairs per stage; the number of items by default (ours).
            system2_items: The initial traces that System 2 learns: those of the pairs ``drawn`` (paper: two examples
                per item), or as many out of ``all`` items in a random order (ours). Initial traces with a variant of a
                given length ratio differ in length from the others, and with ``drawn`` System 2 takes on their length.
            strict: Stop at bad lines of either file; by default they are set aside and counted.
            chat_template: ``plain`` or a jinja file, in place of the tokenizer's own template.
            chat_template_kwargs: Arguments of the template, such as ``{enable_thinking: false}``; see `ChatTemplate`.
            batch_size: Rows per batch and process; 8 if neither this nor ``max_tokens`` is given.
            max_tokens: In place of ``batch_size``: tokens per batch and process, including padding.
            packing: Pack examples end to end into rows of at most ``max_tokens`` tokens, without attention across them.
            max_length: Longest example in tokens; items with a longer one are left out, counted and reported.
            seed: Seed of the draws and of the order. By default that of ``seed_everything``.
            num_workers: Worker processes that make batches.
        """
        super().__init__(batch_size, max_tokens, packing, max_length, seed, num_workers)
        if items_per_stage is not None and items_per_stage < 1:
            raise InputError(f"data.items_per_stage must be at least 1, not {items_per_stage}")
        self.items_file, self.items_per_stage = items, items_per_stage
        self.lower_bounds, self.selection = list(lower_bounds), selection
        self.system2_items = system2_items
        self.strict = strict
        self.chat_template = ChatTemplate(chat_template, chat_template_kwargs or {})
        self.validation: PromptData | None = None
        if val_questions is not None:
            self.validation = PromptData(
                val_questions,
                fields=val_fields,
                gold_pattern=val_gold_pattern,
                offset=val_offset,
                limit=val_limit,
                systems=list(SYSTEMS),
                seed=self.seed,
                chat_template=chat_template,
                chat_template_kwargs=chat_template_kwargs,
                strict=strict,
            )
        self.items: list[CurriculumItem] = []
        self.stages: list[Stage] = []
        self.stage_table: list[StageRow] = []
        self._encoded: dict[tuple[int, System, int | None], tuple[array[int], int]] = {}

    @property
    def stage(self) -> int:
        """The current stage."""
        return self.trainer.current_epoch if self.trainer is not None else 0

    def setup(self, stage: str) -> None:
        """Read the items, draw all stages and print them; all input is checked here.

        InputError if a file is not usable, ``trainer.max_epochs`` is not the number of stages, or a stage has no
        variant in its window.
        """
        super().setup(stage)
        if stage == "fit":
            self._check_epochs()
        items = read_records(self.items_file, CurriculumItem, strict=self.strict)
        self._set_up_validation(stage, items)
        if stage != "fit":
            return
        self.items, self._encoded = self._usable_items(items), {}
        self.stages = draw_stages(
            self._ratios(),
            self.lower_bounds,
            self.selection,
            self.items_per_stage or len(self.items),
            self.seed,
        )
        self.stage_table = [self._row(drawn) for drawn in self.stages]
        show_stages(
            self.stage_table,
            count_buckets(usable_pairs(self._ratios())),
            f"{len(self.items):,} items, selection {self.selection}",
        )

    def train_examples(self, stage: int) -> list[Example]:
        """Return two examples per pair: System 1 with the variant, System 2 with an initial trace."""
        drawn = self.stages[stage]
        examples = []
        for pair, item in zip(drawn.pairs, self._system2(drawn), strict=True):
            examples.append(self._example(pair.item, "system1", pair.variant))
            examples.append(self._example(item, "system2", None))
        return examples

    def val_examples(self) -> list[Example]:
        """Return no examples: validation generates."""
        return []

    def val_dataloader(self) -> Any:
        """Return the validation prompts."""
        return [] if self.validation is None else self.validation.val_dataloader()

    def _system2(self, stage: Stage) -> list[int]:
        """Return, for each pair of a stage, the item whose initial trace System 2 learns."""
        if self.system2_items == "drawn":
            return [pair.item for pair in stage.pairs]
        rng = random.Random(f"{self.seed}/system2/{stage.index}")
        return list(islice(cycle(rng.sample(range(len(self.items)), len(self.items))), len(stage.pairs)))

    def _example(self, item: int, system: System, variant: int | None) -> Example:
        """Encode the question in a system's prompt with a variant (None: the initial trace), once for all stages."""
        key = item, system, variant
        if key not in self._encoded:
            self._encoded[key] = self._encode(self.items[item], system, self._trace(item, variant)[0])
        ids, n_prompt = self._encoded[key]
        return Example(tuple(ids), (*[IGNORE_INDEX] * n_prompt, *ids[n_prompt:]), record=self.items[item].id)

    def _encode(self, item: CurriculumItem, system: System, text: str) -> tuple["array[int]", int]:
        """Return the token ids (four bytes each) and the number of prompt tokens."""
        ids, labels = encode_pair(
            tokenizer_of(self),
            user_turn(item.question, system),
            text,
            earlier=item.earlier,
            template=self.chat_template.of(system),
        )
        return array("i", ids), labels.count(IGNORE_INDEX)

    def _trace(self, item: int, variant: int | None) -> tuple[str, int]:
        """Return text and token count of a variant (None: of the initial trace)."""
        if variant is None:
            return self.items[item].initial, self.items[item].initial_tokens
        chosen = self.items[item].variants[variant]
        return chosen.text, chosen.n_tokens

    def _check_epochs(self) -> None:
        if self.trainer is not None and self.trainer.max_epochs != len(self.lower_bounds):
            raise InputError(
                f"data.lower_bounds has {len(self.lower_bounds)} stages but trainer.max_epochs is"
                f" {self.trainer.max_epochs}: set trainer.max_epochs: {len(self.lower_bounds)}"
            )

    def _set_up_validation(self, stage: str, items: Sequence[CurriculumItem]) -> None:
        """Render the validation prompts without questions that are trained on, which would bias the choice."""
        if self.validation is None:
            return
        self.validation.tokenizer, self.validation.trainer = self.tokenizer, self.trainer
        self.validation.setup(stage)
        trained = {item.asked.strip() for item in items}
        rows = [row for row in self.validation.rows if row.question.asked.strip() not in trained]
        n_all, n_left = (len({row.question.id for row in some}) for some in (self.validation.rows, rows))
        if n_left == 0:
            raise InputError("data.val_questions: all of its questions are trained on; use others")
        if n_left < n_all:
            rank_zero_warn(f"data.val_questions: left out {n_all - n_left} of {n_all} questions, which are trained on")
            self.validation.rows = rows

    def _usable_items(self, items: Sequence[CurriculumItem]) -> list[CurriculumItem]:
        """Return the items that have a usable variant and fit ``max_length``; count and report the others.

        An item is kept or left out as a whole, and the items are the same for every selection.
        """
        shorter = [item for item in items if any(is_usable(v.length_ratio) for v in item.variants)]
        limit = self.longest_usable
        kept = [item for item in shorter if limit is None or self._longest(item) <= limit]
        self.n_dropped["items"] = len(items) - len(kept)
        if not kept:
            raise InputError(
                f"{self.items_file}: none of {len(items)} items can be trained on: {len(items) - len(shorter)} have no"
                f" variant that is no longer than the initial trace, {len(shorter) - len(kept)} are longer than {limit}"
                " tokens (data.max_length, data.max_tokens)"
            )
        if len(kept) < len(items):
            rank_zero_warn(
                f"{self.items_file}: left out {len(items) - len(kept)} of {len(items)} items"
                f" ({len(items) - len(shorter)} without a variant no longer than the initial trace,"
                f" {len(shorter) - len(kept)} longer than {limit} tokens)"
            )
        return kept

    def _longest(self, item: CurriculumItem) -> int:
        """Return the length of the longest example of an item: its initial trace after either instruction."""
        return max(len(self._encode(item, system, item.initial)[0]) for system in SYSTEMS)

    def _row(self, stage: Stage) -> StageRow:
        return StageRow(
            stage=stage.index,
            lower=stage.lower,
            pairs=len(stage.pairs),
            distinct=len(set(stage.pairs)),
            available=stage.available,
            drawn=stage.drawn,
            length_ratio=sum(pair.length_ratio for pair in stage.pairs) / len(stage.pairs),
            system1_tokens=sum(self._trace(pair.item, pair.variant)[1] for pair in stage.pairs),
            system2_tokens=sum(self.items[item].initial_tokens for item in self._system2(stage)),
        )

    def _ratios(self) -> list[list[float]]:
        return [[variant.length_ratio for variant in item.variants] for item in self.items]
