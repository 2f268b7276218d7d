"""Traces of sampled chains of thought, as records."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info

from callbacks.generation.completion_writer import CompletionWriter, Finished
from callbacks.generation.run_settings import steering_of
from datamodules.answers import AnswerChecker, extract_boxed
from datamodules.prompts.prompt_data import GenerationData
from datamodules.records.kinds import Trace
from llm_modules.causal_lm import CausalLM


class TraceWriter(CompletionWriter):
    """Writes what ``predict`` generates to ``traces.rank{r}.jsonl``, and in the end all of it to ``traces.jsonl``."""

    verb = "predict"
    name = "traces"

    def __init__(self, output: Path | None = None, overwrite: bool = False) -> None:
        """``output``: folder, ``traces`` in the run folder by default; ``overwrite``: remove the traces in it first."""
        super().__init__(output, overwrite)
        self._checker: AnswerChecker | None = None

    def folder(self, trainer: Trainer) -> Path:
        """Where the traces are."""
        return self.output or Path(trainer.default_root_dir) / "traces"

    def check(self, trainer: Trainer, module: CausalLM, data: GenerationData) -> None:
        """Refuse gold answers that cannot be read."""
        with AnswerChecker() as checker:
            checker.check_gold(sorted({row.question.gold for row in data.rows if row.question.gold is not None}))

    def records(self, finished: Sequence[Finished]) -> list[Trace]:
        """A trace for each row."""
        assert self.module is not None
        assert self.trainer is not None
        self._checker = self._checker or AnswerChecker()
        steer, tokenizer = steering_of(self.trainer), self.module.tokenizer
        texts = [str(tokenizer.decode(list(done.token_ids), skip_special_tokens=True)) for _, done in finished]
        answers = [extract_boxed(text) for text in texts]
        golds = [row.question.gold for row, _ in finished]
        known = [i for i, (gold, answer) in enumerate(zip(golds, answers, strict=True)) if gold and answer]
        verdicts = dict(zip(known, self._checker.check([(golds[i] or "", answers[i]) for i in known]), strict=True))
        return [
            Trace(
                id=row.id,
                question_id=row.question.id,
                question=row.question.question,
                gold=row.question.gold,
                system=row.system,
                alpha=row.alpha,
                layers=steer.layers_of(row.layer_set) if steer is not None and row.alpha != 0 else (),
                sample=row.sample,
                seed=row.seed,
                prompt=row.prompt,
                completion=texts[i],
                n_tokens=completion.n_tokens,
                finish_reason=completion.finish_reason,
                answer=answers[i],
                correct=verdicts.get(i),
                model=self.module.model_id,
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
        """Write the rest of the batch."""
        self.flush()

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Merge the shards of all processes."""
        self.close()
        rank_zero_info(f"traces in {self.merge(trainer)}")

    def close(self) -> None:
        """Write what is finished, end the workers."""
        super().close()
        if self._checker is not None:
            self._checker.close()
