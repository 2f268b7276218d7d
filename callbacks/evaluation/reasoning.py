"""Accuracy, length and AES of the answers to validation questions during training."""

import math
from dataclasses import asdict
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn

from callbacks.evaluation.measures import Baseline, Measures
from callbacks.evaluation.metrics import WON
from callbacks.evaluation.predictions import SHOWN, log_samples, prediction_of
from callbacks.evaluation.scoring import check_answers
from callbacks.trainer_parts import language_model
from datamodules.answers import AnswerChecker
from datamodules.batch import PromptBatch
from datamodules.errors import InputError
from datamodules.prompts.prompt_data import PromptData
from datamodules.suites.predictions import Prediction

_LOGGED = ("accuracy", "tokens", "truncation", "repetition")


class ReasoningMetrics(Callback):
    """Measures the answers to `PromptBatch` rows in ``validate`` and in the validation of ``fit``.

    Logs ``val/system1_accuracy`` (with ``_low`` and ``_high``), ``_tokens``, ``_truncation`` and ``_repetition``, the
    same for the other systems, and ``val/aes``: System 1 against the base model's System 2. Answers are merged over all
    ranks by row id, so every rank logs the same numbers and duplicates count once.

    The baseline is the model before the first step, when a fresh adapter has no effect yet. In ``fit`` the callback
    turns Lightning's sanity check into a full validation, logs its result as ``base/...`` and keeps it in checkpoints.
    """

    def __init__(self) -> None:
        self.baseline: Baseline | None = None
        self.measures: dict[str, Measures] = {}
        self._stage = ""
        self._checker: AnswerChecker | None = None
        self._shown: list[Prediction] = []

    def state_dict(self) -> dict[str, Any]:
        """The baseline, which a resumed run can no longer measure."""
        return {"baseline": asdict(self.baseline) if self.baseline else None}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the baseline of the interrupted run."""
        if state_dict.get("baseline") and self._stage == "fit":
            self.baseline = Baseline(**state_dict["baseline"])

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Check the questions before any weights are loaded.

        InputError if the questions have no gold answers, one cannot be read, or rows are steered.
        """
        self._stage = stage
        if stage not in ("fit", "validate"):
            return
        language_model(pl_module)
        _check_rows(_questions(trainer))
        if stage == "fit":
            # The sanity check runs before the first step, other callbacks ignore it, and nothing is logged from it:
            # the right moment to measure the base model.
            trainer.num_sanity_val_steps = math.inf

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Skip the sanity check of a resumed run, which no longer starts from the base model."""
        if self._stage == "fit":
            trainer.num_sanity_val_steps = 0

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start with empty measures."""
        systems = dict.fromkeys(row.system for row in _questions(trainer).rows)
        # Every process needs every metric, whatever its rows: gathering is collective.
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
        """Check the answers of a batch; supervised batches are ignored."""
        if not isinstance(batch, PromptBatch):
            return
        assert self._checker is not None
        module = language_model(pl_module)
        made = [prediction_of(module, row, completion) for row, completion in zip(batch.rows, outputs, strict=True)]
        predictions = check_answers(made, self._checker)
        for system, measures in self.measures.items():
            measures.update([prediction for prediction in predictions if prediction.system == system])
        self._shown += predictions[: SHOWN - len(self._shown)]

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Merge the ranks and log, before a checkpoint is chosen."""
        self._close()
        numbers = {system: measures.compute() for system, measures in self.measures.items()}
        if trainer.sanity_checking:
            self._keep_baseline(trainer, numbers)
            return
        if trainer.state.fn == "fit" and self.baseline is None:
            rank_zero_warn("val/aes is not measured: the resumed checkpoint has no baseline")
        pl_module.log_dict(self._scalars(numbers, "val"))
        if trainer.is_global_zero and self._shown:
            log_samples(trainer, "val/samples", self._shown)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """End the answer checker's processes."""
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
        if self.baseline is not None:
            for system, metrics in numbers.items():
                score = self.baseline.aes(metrics["accuracy"]["value"], metrics["tokens"]["value"])
                scalars[f"{phase}/{system}_aes"] = score
                if system == "system1":
                    scalars[f"{phase}/aes"] = score
        return scalars

    def _keep_baseline(self, trainer: Trainer, numbers: dict[str, dict[str, dict[str, float]]]) -> None:
        if self.baseline is None and "system2" in numbers:
            slow = numbers["system2"]
            self.baseline = Baseline(slow["accuracy"]["value"], slow["tokens"]["value"])
            if warning := chance_warning(slow["accuracy"]):
                rank_zero_warn(warning)
        if self.baseline is None:
            rank_zero_warn("val/aes is not measured: its baseline needs System 2 prompts in the validation data")
        for logger in trainer.loggers:
            logger.log_metrics(self._scalars(numbers, "base"), step=trainer.global_step)


def chance_warning(accuracy: dict[str, float]) -> str:
    """What to do if AES chooses checkpoints by chance; empty if the base model's ``accuracy`` is known well enough.

    The threshold is ours: half of the 95 % interval moves AES by at least 1, which is more than saved tokens can.
    """
    if WON * (accuracy["high"] - accuracy["low"]) / 2 < accuracy["value"]:
        return ""
    return (
        f"val/aes: the validation questions tell the base model's accuracy of {accuracy['value']:.2f} to within "
        f"{accuracy['low']:.2f} to {accuracy['high']:.2f} only, which moves AES by more than saved tokens can: the "
        "best checkpoint is the best by chance; give more questions (data.val_questions, data.val_limit), or test the "
        "last checkpoint"
    )


def _questions(trainer: Trainer) -> PromptData:
    data = getattr(trainer, "datamodule", None)
    data = data if isinstance(data, PromptData) else getattr(data, "validation", None)
    if not isinstance(data, PromptData):
        raise InputError("trainer.callbacks: ReasoningMetrics needs validation questions; give data.val_questions")
    return data


def _check_rows(data: PromptData) -> None:
    if any(row.alpha != 0 for row in data.rows):
        raise InputError("data.alphas: ReasoningMetrics measures unsteered answers; use rod predict to sweep strengths")
    golds = {row.question.gold for row in data.rows}
    if golds == {None}:
        raise InputError("data: no question has a gold answer, so there is no accuracy to measure; map data.fields")
    with AnswerChecker() as checker:
        checker.check_gold(sorted(gold for gold in golds if gold is not None))
