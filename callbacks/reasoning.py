"""Accuracy, length and AES of generated answers, in validation and test."""

import glob
import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn

from callbacks.reasoning_report import Baseline, baseline_of, describe_system, print_table, read_baseline
from callbacks.run_settings import generation_settings, language_model, library_versions
from datamodules.answers import AnswerChecker, extract_boxed
from datamodules.batch import PromptBatch, PromptRow, System
from datamodules.errors import InputError
from datamodules.filtering import has_loop
from datamodules.prompting import PromptData
from datamodules.records import Prediction
from datamodules.shards import JsonlShard, merge_shards, write_lines
from llm_modules.causal_lm import CausalLM
from llm_modules.generation import Completion
from llm_modules.metrics import Outcome, Outcomes, ReasoningMetric

SHOWN = 32
"""Answers in the table of samples for loggers that take tables; they are snapshots, so it stays short."""
_SHARDS = "predictions.rank*.jsonl"

Phase = Literal["val", "test"]


class ReasoningMetrics(Callback):
    """Measures the answers to `PromptBatch` rows in ``validate``, in ``fit``'s validation and in ``test``.

    Logs ``val/system1_accuracy`` (with ``_low`` and ``_high``), ``_tokens``, ``_truncation`` and ``_repetition``, the
    same for the other systems, and ``val/aes``: System 1 against the base model's System 2. All ranks' answers are
    merged by row id first, so that every rank logs the same numbers and padding counts for nothing.

    In ``fit`` the baseline is the model before the first step, when a fresh adapter still changes nothing: the
    callback makes Lightning's sanity check a whole validation and keeps its result, in checkpoints too (``base/...``
    in the loggers). ``test`` reads it from the ``metrics.json`` of the base model's test, and writes
    ``predictions.jsonl`` and ``metrics.json``.
    """

    def __init__(self, output: Path | None = None, baseline: Path | None = None) -> None:
        """Say where files go and what AES is measured against.

        Args:
            output: Folder of ``predictions.jsonl`` and ``metrics.json``; the run folder by default.
            baseline: ``metrics.json`` of a test of the base model on the same questions. ``fit`` measures its own
                where none is given; without one, ``test`` reports no AES.
        """
        self.output = output
        self.baseline_file = baseline
        self.baseline: Baseline | None = None
        self.metric = ReasoningMetric()
        self._stage = ""
        self._checker: AnswerChecker | None = None
        self._shard: JsonlShard | None = None
        self._shown: list[Prediction] = []

    def state_dict(self) -> dict[str, Any]:
        """The baseline, which a resumed run cannot measure any more."""
        return {"baseline": asdict(self.baseline) if self.baseline else None}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the baseline of the interrupted run; a test of its checkpoint asks other questions."""
        if state_dict.get("baseline") and self.baseline_file is None and self._stage == "fit":
            self.baseline = Baseline(**state_dict["baseline"])

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Check what is needed, before any weights are loaded.

        Raises:
            InputError: The questions have no gold answer or one that cannot be read, rows are steered, or the baseline
                cannot be read.
        """
        self._stage = stage
        if stage == "predict":
            return
        language_model(pl_module)
        self._check_rows(trainer)
        if self.baseline_file is not None:
            self.baseline = read_baseline(self.baseline_file)
        elif stage == "fit":
            # The sanity check comes before the first step, other callbacks keep out of it, and its logs go nowhere: all
            # that a measurement of the base model needs.
            trainer.num_sanity_val_steps = math.inf

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """What a run is resumed from is no base model any more."""
        if self._stage == "fit" and self.baseline_file is None:
            trainer.num_sanity_val_steps = 0

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin to count."""
        self._begin(pl_module)

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin to count and to write."""
        self._begin(pl_module)
        folder = self._folder(trainer)
        if trainer.is_global_zero:
            for path in folder.glob(_SHARDS):
                path.unlink()
        trainer.strategy.barrier("old predictions are removed")
        self._shard = JsonlShard(folder / f"predictions.rank{trainer.global_rank}.jsonl")

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Check the answers of a batch; supervised batches are not looked at."""
        if isinstance(batch, PromptBatch):
            self._take(language_model(pl_module), batch.rows, outputs)

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Check the answers of a batch."""
        self._take(language_model(pl_module), batch.rows, outputs)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Merge the ranks and log, before checkpoints are chosen."""
        outcomes = self._end()
        if not outcomes.systems:
            return
        if trainer.sanity_checking:
            self._keep_baseline(trainer, outcomes)
            return
        if trainer.state.fn == "fit" and self.baseline is None:
            rank_zero_warn(
                "val/aes is not measured: the checkpoint that this run goes on from has no baseline; give "
                "ReasoningMetrics the metrics.json of the base model's test as baseline"
            )
        pl_module.log_dict(self._scalars(outcomes, "val"))
        self._log_samples(trainer, f"val/samples_epoch{trainer.current_epoch}")

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Merge the ranks, log, write the files and print the table."""
        outcomes = self._end()
        trainer.strategy.barrier("all predictions are written")
        pl_module.log_dict(self._scalars(outcomes, "test"))
        if trainer.is_global_zero:
            self._report(trainer, language_model(pl_module), outcomes)
        self._log_samples(trainer, "test/samples")
        trainer.strategy.barrier("predictions are merged")

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Keep what is written, end the workers."""
        self._close()

    def _begin(self, pl_module: LightningModule) -> None:
        self.metric.to(pl_module.device)
        self.metric.reset()
        self._shown = []
        self._checker = self._checker or AnswerChecker()

    def _end(self) -> Outcomes:
        self._close()
        return self.metric.compute()

    def _close(self) -> None:
        if self._shard is not None:
            self._shard.close()
            self._shard = None
        if self._checker is not None:
            self._checker.close()

    def _take(self, module: CausalLM, rows: Sequence[PromptRow], completions: Sequence[Completion]) -> None:
        predictions = self._predictions(module, rows, completions)
        self.metric.update([_outcome(p, row) for p, row in zip(predictions, rows, strict=True)])
        self._shown += predictions[: SHOWN - len(self._shown)]
        if self._shard is not None:
            for prediction in predictions:
                self._shard.append(prediction)
            self._shard.flush()

    def _predictions(
        self, module: CausalLM, rows: Sequence[PromptRow], completions: Sequence[Completion]
    ) -> list[Prediction]:
        assert self._checker is not None
        texts = [str(module.tokenizer.decode(list(c.token_ids), skip_special_tokens=True)) for c in completions]
        answers = [extract_boxed(text) for text in texts]
        pairs = [(row.question.gold or "", answer) for row, answer in zip(rows, answers, strict=True)]
        verdicts = self._checker.check(pairs)
        return [
            Prediction(
                id=row.id,
                question_id=row.question.id,
                question=row.question.question,
                gold=row.question.gold,
                system=row.system,
                sample=row.sample,
                seed=row.seed,
                prompt=row.prompt,
                completion=text,
                n_tokens=completion.n_tokens,
                finish_reason=completion.finish_reason,
                answer=answer,
                correct=verdict if row.question.gold is not None else None,
                model=module.model_id,
            )
            for row, text, completion, answer, verdict in zip(rows, texts, completions, answers, verdicts, strict=True)
        ]

    def _scalars(self, outcomes: Outcomes, phase: Phase | Literal["base"]) -> dict[str, float]:
        scalars = {}
        for system in outcomes.systems:
            summary = outcomes.of(system=system).summary()
            for name in ("accuracy", "accuracy_low", "accuracy_high", "tokens", "truncation", "repetition"):
                scalars[f"{phase}/{system}_{name}"] = getattr(summary, name)
        if self.baseline is not None and "system1" in outcomes.systems:
            scalars[f"{phase}/aes"] = self.baseline.aes(outcomes.of(system="system1").summary())
        return scalars

    def _keep_baseline(self, trainer: Trainer, outcomes: Outcomes) -> None:
        self.baseline = self.baseline or baseline_of(outcomes)
        if self.baseline is None:
            rank_zero_warn("val/aes is not measured: there are no System 2 prompts in validation to be the baseline")
        for logger in trainer.loggers:
            logger.log_metrics(self._scalars(outcomes, "base"), step=trainer.global_step)

    def _report(self, trainer: Trainer, module: CausalLM, outcomes: Outcomes) -> None:
        folder = self._folder(trainer)
        merge_shards(Path(glob.escape(str(folder))) / _SHARDS, folder / "predictions.jsonl")
        for path in folder.glob(_SHARDS):
            path.unlink()
        systems: dict[System, dict[str, Any]] = {
            system: describe_system(outcomes.of(system=system), self.baseline) for system in outcomes.systems
        }
        if self.baseline and any(s["questions_fingerprint"] != self.baseline.questions for s in systems.values()):
            rank_zero_warn(f"AES compares different sets of questions: {self.baseline_file} was measured on others")
        metrics = {
            "model": module.model_id,
            "systems": systems,
            "baseline": asdict(self.baseline) if self.baseline else None,
            "baseline_file": str(self.baseline_file) if self.baseline_file else None,
            "settings": generation_settings(trainer, module),
            "versions": library_versions(),
        }
        write_lines(folder / "metrics.json", [json.dumps(metrics, indent=2, ensure_ascii=False, allow_nan=False)])
        print_table(systems, f"{module.model_id}, {len(set(outcomes.keys[:, 1]))} questions")

    def _log_samples(self, trainer: Trainer, key: str) -> None:
        if not trainer.is_global_zero or not self._shown:
            return
        columns = ["id", "question", "gold", "answer", "correct", "n_tokens", "completion"]
        data = [[getattr(prediction, column) for column in columns] for prediction in self._shown]
        for logger in trainer.loggers:
            if hasattr(logger, "log_table"):
                logger.log_table(key, columns=columns, data=data)

    def _folder(self, trainer: Trainer) -> Path:
        return self.output or Path(trainer.default_root_dir)

    def _check_rows(self, trainer: Trainer) -> None:
        data = getattr(trainer, "datamodule", None)
        data = data if isinstance(data, PromptData) else getattr(data, "validation", None)
        if not isinstance(data, PromptData):
            raise InputError("trainer.callbacks: ReasoningMetrics needs questions to put; give data.val_questions")
        if any(row.alpha != 0 for row in data.rows):
            raise InputError("data.alphas: ReasoningMetrics measures unsteered answers; calibrate strengths by predict")
        golds = {row.question.gold for row in data.rows}
        if golds == {None}:
            raise InputError("data: no question has a gold answer, so there is no accuracy to measure; map data.fields")
        with AnswerChecker() as checker:
            checker.check_gold(sorted(gold for gold in golds if gold is not None))


def _outcome(prediction: Prediction, row: PromptRow) -> Outcome:
    return Outcome(
        id=prediction.id,
        question_id=prediction.question_id,
        system=row.system,
        sample=prediction.sample,
        correct=prediction.correct,
        n_tokens=prediction.n_tokens,
        truncated=prediction.finish_reason == "length",
        looping=has_loop(prediction.completion),
    )
