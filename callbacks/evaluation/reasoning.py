"""Accuracy, length and AES of the answers to validation questions, while a model is trained."""

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn

from callbacks.evaluation.measures import Baseline, Measures
from callbacks.evaluation.scoring import check_answers
from callbacks.trainer_parts import language_model
from datamodules.answers.checker import AnswerChecker
from datamodules.batch import PromptBatch, PromptRow
from datamodules.errors import InputError
from datamodules.prompts.prompt_data import PromptData
from datamodules.suites.predictions import Prediction
from llm_modules.causal_lm import CausalLM
from llm_modules.generation import Completion

SHOWN = 32
"""Answers in the table of samples for loggers that take tables; they are snapshots, so it stays short."""
_LOGGED = ("accuracy", "tokens", "truncation", "repetition")


class ReasoningMetrics(Callback):
    """Measures the answers to `PromptBatch` rows in ``validate`` and in ``fit``'s validation.

    Logs ``val/system1_accuracy`` (with ``_low`` and ``_high``), ``_tokens``, ``_truncation`` and ``_repetition``, the
    same for the other systems, and ``val/aes``: System 1 against the base model's System 2. All ranks' answers are
    merged by row id first, so that every rank logs the same numbers and padding counts for nothing.

    The baseline is the model before the first step, when a fresh adapter still changes nothing: in ``fit`` the callback
    makes Lightning's sanity check a whole validation and keeps its result, in checkpoints too (``base/...`` in the
    loggers).
    """

    def __init__(self) -> None:
        self.baseline: Baseline | None = None
        self.measures: dict[str, Measures] = {}
        self._stage = ""
        self._checker: AnswerChecker | None = None
        self._shown: list[Prediction] = []

    def state_dict(self) -> dict[str, Any]:
        """The baseline, which a resumed run cannot measure any more."""
        return {"baseline": asdict(self.baseline) if self.baseline else None}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the baseline of the interrupted run."""
        if state_dict.get("baseline") and self._stage == "fit":
            self.baseline = Baseline(**state_dict["baseline"])

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Check what is needed, before any weights are loaded.

        Raises:
            InputError: The questions have no gold answer or one that cannot be read, or rows are steered.
        """
        self._stage = stage
        if stage not in ("fit", "validate"):
            return
        language_model(pl_module)
        _check_rows(_questions(trainer))
        if stage == "fit":
            # The sanity check comes before the first step, other callbacks keep out of it, and its logs go nowhere: all
            # that a measurement of the base model needs.
            trainer.num_sanity_val_steps = math.inf

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """What a run is resumed from is no base model any more."""
        if self._stage == "fit":
            trainer.num_sanity_val_steps = 0

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin to count."""
        systems = dict.fromkeys(row.system for row in _questions(trainer).rows)
        # Every process gathers every metric, whatever rows it has.
        self.measures = {system: Measures(synced=True).to(pl_module.device) for system in systems}
        self._shown = []
        self._checker = self._checker or AnswerChecker()

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
        if not isinstance(batch, PromptBatch):
            return
        assert self._checker is not None
        predictions = check_answers(_predictions(language_model(pl_module), batch.rows, outputs), self._checker)
        for system, measures in self.measures.items():
            measures.update([prediction for prediction in predictions if prediction.system == system])
        self._shown += predictions[: SHOWN - len(self._shown)]

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Merge the ranks and log, before checkpoints are chosen."""
        self._close()
        numbers = {system: measures.compute() for system, measures in self.measures.items()}
        if trainer.sanity_checking:
            self._keep_baseline(trainer, numbers)
            return
        if trainer.state.fn == "fit" and self.baseline is None:
            rank_zero_warn("val/aes is not measured: the checkpoint that this run goes on from has no baseline")
        pl_module.log_dict(self._scalars(numbers, "val"))
        self._log_samples(trainer, f"val/samples_epoch{trainer.current_epoch}")

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """End the workers."""
        self._close()

    def _close(self) -> None:
        if self._checker is not None:
            self._checker.close()

    def _scalars(self, numbers: dict[str, dict[str, dict[str, float]]], phase: str) -> dict[str, float]:
        scalars = {}
        for system, metrics in numbers.items():
            for name in _LOGGED:
                scalars[f"{phase}/{system}_{name}"] = metrics[name]["value"]
            for bound in ("low", "high"):
                scalars[f"{phase}/{system}_accuracy_{bound}"] = metrics["accuracy"][bound]
        if self.baseline is not None and "system1" in numbers:
            brief = numbers["system1"]
            scalars[f"{phase}/aes"] = self.baseline.aes(brief["accuracy"]["value"], brief["tokens"]["value"])
        return scalars

    def _keep_baseline(self, trainer: Trainer, numbers: dict[str, dict[str, dict[str, float]]]) -> None:
        if self.baseline is None and "system2" in numbers:
            slow = numbers["system2"]
            self.baseline = Baseline(slow["accuracy"]["value"], slow["tokens"]["value"])
        if self.baseline is None:
            rank_zero_warn("val/aes is not measured: there are no System 2 prompts in validation to be the baseline")
        for logger in trainer.loggers:
            logger.log_metrics(self._scalars(numbers, "base"), step=trainer.global_step)

    def _log_samples(self, trainer: Trainer, key: str) -> None:
        if not trainer.is_global_zero or not self._shown:
            return
        columns = ["id", "question", "gold", "answer", "correct", "n_tokens", "completion"]
        data = [[getattr(prediction, column) for column in columns] for prediction in self._shown]
        for logger in trainer.loggers:
            if hasattr(logger, "log_table"):
                logger.log_table(key, columns=columns, data=data)


def _questions(trainer: Trainer) -> PromptData:
    data = getattr(trainer, "datamodule", None)
    data = data if isinstance(data, PromptData) else getattr(data, "validation", None)
    if not isinstance(data, PromptData):
        raise InputError("trainer.callbacks: ReasoningMetrics needs questions to put; give data.val_questions")
    return data


def _check_rows(data: PromptData) -> None:
    if any(row.alpha != 0 for row in data.rows):
        raise InputError("data.alphas: ReasoningMetrics measures unsteered answers; calibrate strengths by predict")
    golds = {row.question.gold for row in data.rows}
    if golds == {None}:
        raise InputError("data: no question has a gold answer, so there is no accuracy to measure; map data.fields")
    with AnswerChecker() as checker:
        checker.check_gold(sorted(gold for gold in golds if gold is not None))


def _predictions(module: CausalLM, rows: Sequence[PromptRow], completions: Sequence[Completion]) -> list[Prediction]:
    return [
        Prediction(
            id=row.id,
            completion=str(module.tokenizer.decode(list(completion.token_ids), skip_special_tokens=True)),
            question_id=row.question.id,
            question=row.question.question,
            gold=row.question.gold,
            system=row.system,
            sample=row.sample,
            seed=row.seed,
            prompt=row.prompt,
            n_tokens=completion.n_tokens,
            finish_reason=completion.finish_reason,
            model=module.model_id,
        )
        for row, completion in zip(rows, completions, strict=True)
    ]
