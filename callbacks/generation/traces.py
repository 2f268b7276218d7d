"""A callback that writes sampled chains of thought as trace records."""

import json
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn

from callbacks.columns import print_columns, terminal
from callbacks.generation.completion_writer import CompletionWriter, Finished
from callbacks.generation.steering import steering_of
from callbacks.trainer_parts import datamodule_of
from datamodules.answers import AnswerChecker, AnswerRule
from datamodules.prompts.chat_template import decode_completion
from datamodules.prompts.prompt_data import GenerationData
from datamodules.records.kinds import Trace
from llm_modules.causal_lm import CausalLM


class TraceWriter(CompletionWriter):
    """Writes what ``predict`` generates to ``traces.rank{r}.jsonl``; merges all of it into ``traces.jsonl`` at the end.

    Each line is a `Trace`, with its boxed answer checked against the gold answer.
    """

    verb = "predict"
    name = "traces"

    def __init__(self, output: Path | None = None, overwrite: bool = False) -> None:
        """Set where the traces go.

        Args:
            output: Folder; ``traces`` in the run folder by default.
            overwrite: Remove the traces that the folder already holds.
        """
        super().__init__(output, overwrite)
        self._checker: AnswerChecker | None = None

    def folder(self, trainer: Trainer) -> Path:
        """Return the folder of the traces."""
        return self.output or Path(trainer.default_root_dir) / "traces"

    def check(self, trainer: Trainer, module: CausalLM, data: GenerationData) -> None:
        """Raise InputError if a gold answer cannot be parsed."""
        with AnswerChecker() as checker:
            checker.check_gold(sorted({row.question.gold for row in data.rows if row.question.gold is not None}))

    def records(self, finished: Sequence[Finished]) -> list[Trace]:
        """Return a trace for each row, its answer extracted and checked."""
        assert self.module is not None
        assert self.trainer is not None
        self._checker = self._checker or AnswerChecker()
        steering, tokenizer = steering_of(self.trainer), self.module.tokenizer
        texts = [decode_completion(tokenizer, done.token_ids) for _, done in finished]
        answers = [
            AnswerRule().extract(text, prompt=row.prompt) for (row, _), text in zip(finished, texts, strict=True)
        ]
        golds = [row.question.gold for row, _ in finished]
        known = [i for i, (gold, answer) in enumerate(zip(golds, answers, strict=True)) if gold and answer]
        verdicts = dict(zip(known, self._checker.check([(golds[i] or "", answers[i]) for i in known]), strict=True))
        self.count_verdicts(verdicts.get(i, False) for i, gold in enumerate(golds) if gold)
        return [
            Trace(
                id=row.id,
                question_id=row.question.id,
                question=row.question.question,
                earlier=row.question.earlier,
                gold=row.question.gold,
                system=row.system,
                alpha=row.alpha,
                layers=steering.layers_of(row.layer_set) if steering is not None and row.alpha != 0 else (),
                sample=row.sample,
                seed=row.seed,
                prompt=row.prompt,
                completion=texts[i],
                n_tokens=completion.n_tokens,
                finish_reason=completion.finish_reason,
                answer=answers[i],
                correct=verdicts.get(i),
                model=self.module.model_id,
                layer_set=row.layer_set,
                chat_template_kwargs=row.chat_template_kwargs,
                engine=self.module.generator.description,
                **completion.steered_fields,
            )
            for i, (row, completion) in enumerate(finished)
        ]

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Write the last rows of the batch."""
        self.flush()

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Merge the files of all processes."""
        self.close()
        merged = self.merge(trainer)
        if trainer.is_global_zero:
            _print_table(merged)
        rank_zero_info(f"traces in {merged}")
        if trainer.is_global_zero:
            for words in self.told_of_failures(datamodule_of(trainer)):
                rank_zero_warn(words)

    def close(self) -> None:
        """Write what has finished and end the worker processes that check answers."""
        super().close()
        if self._checker is not None:
            self._checker.close()


def _print_table(merged: Path) -> None:
    """Print how many traces there are by prompt and strength, how long they are, and how many are cut off or right."""
    groups: defaultdict[tuple[str, float], list[dict[str, Any]]] = defaultdict(list)
    with merged.open(encoding="utf-8") as file:
        for trace in map(json.loads, file):
            told = {"tokens": trace["n_tokens"], "cut": trace["finish_reason"] == "length"}
            right = {} if trace["gold"] is None else {"right": trace["correct"] is True}
            groups[trace["system"], trace["alpha"]].append(told | right)
    rows = []
    for (system, alpha), found in sorted(groups.items(), key=lambda group: (group[0][0], -group[0][1])):
        known = [trace["right"] for trace in found if "right" in trace]
        tokens, cut = (sum(trace[name] for trace in found) / len(found) for name in ("tokens", "cut"))
        share = f"{sum(known) / len(known):.1%}" if known else "-"
        rows.append([system, f"{alpha:+g}" if alpha else "0", f"{len(found):,}", f"{tokens:,.1f}", f"{cut:.1%}", share])
    if rows:
        print_columns(terminal(), ["prompt", "strength", "traces", "tokens", "cut off", "right"], rows, names=1)
