"""The LightningModule of CRISP."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor

from datamodules.batch import IGNORE_INDEX
from datamodules.crisp.batch import DistillationBatch
from datamodules.errors import InputError
from llm_modules.backbone.architecture import decoder_of
from llm_modules.backbone.modes import evaluation_mode
from llm_modules.backbone.sharding import call_as_forward
from llm_modules.causal_lm import CausalLM
from llm_modules.loss import Divergence, Loss, last_hidden, token_divergence

_TEACHER = "crisp_teacher"


class CRISP(CausalLM):
    """On-policy self-distillation: the model asked to be brief teaches the model that is not asked (arXiv 2603.05433).

    In each step the model answers questions as it is now. The teacher reads the same answers after a prompt that asks
    for brevity, and the divergence between the two next-token distributions is minimised at every token. The teacher
    is the model with its adapter off, or with the adapter's weights of the last refresh: there is no second model.
    """

    def __init__(self, divergence: Divergence = "reverse_kl", teacher_refresh: int | None = 50, **model: Any) -> None:
        """Describe the model; ``model`` are the options of `CausalLM`.

        Args:
            divergence: ``reverse_kl`` is KL(student || teacher) (paper), ``forward_kl`` KL(teacher || student).
            teacher_refresh: Optimiser steps after which the teacher takes on the student's weights (paper: 50); null
                keeps the untrained model as the teacher.
            **model: The options of `CausalLM`; ``peft`` or ``adapter`` is required.

        Raises:
            InputError: There is no adapter to switch off, or a number is out of range.
        """
        super().__init__(**model)
        if self.peft is None and self.adapter is None:
            raise InputError("model.peft: CRISP trains an adapter; the model without it is the teacher")
        if teacher_refresh is not None and teacher_refresh < 1:
            raise InputError(f"model.teacher_refresh: must be 1 or more, or null, is {teacher_refresh}")
        self.divergence: Divergence = divergence
        self.teacher_refresh = teacher_refresh
        self._teacher: dict[str, Tensor] = {}

    def loss(self, batch: DistillationBatch) -> Loss:
        """Divergence from the teacher, the mean over the tokens of answers that the model samples now (paper)."""
        answers = self.complete(batch.student)
        student, teacher = batch.with_answers([a.token_ids for a in answers], self.pad_id, self.device)
        model = self.language_model
        with torch.no_grad(), self._as_teacher():
            target = call_as_forward(model, lambda: last_hidden(decoder_of(model), teacher))
        hidden = call_as_forward(model, lambda: last_hidden(decoder_of(model), student))
        said, read = (rows.labels[:, 1:] != IGNORE_INDEX for rows in (student, teacher))
        losses = token_divergence(hidden[:, :-1][said], target[:, :-1][read], self.head, self.divergence)
        finished = torch.tensor([float(answer.finish_reason == "stop") for answer in answers])
        return Loss(
            losses.mean(),
            tokens=said.sum(),
            per_batch=self._mean_over_processes(said.sum()),
            logged={"answer_tokens": said.sum(dim=1).float(), "finished": finished.to(losses.device)},
        )

    def _mean_over_processes(self, tokens: Tensor) -> float | None:
        """The mean number of answer tokens of this step, so that they weigh alike on all processes; None on one."""
        if self._trainer is None or self._trainer.world_size == 1:
            return None
        return float(self._trainer.strategy.reduce(tokens.float(), reduce_op="mean"))

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Refresh the teacher; before a step, so that a run resumed from any checkpoint does it too."""
        step = self.trainer.global_step
        if self.teacher_refresh is not None and step > 0 and step % self.teacher_refresh == 0:
            self._teacher = {name: weights.detach().clone() for name, weights in self._trained()}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """What `CausalLM` keeps, and the teacher, which a resumed run goes on with."""
        super().on_save_checkpoint(checkpoint)
        if self._teacher:
            checkpoint[_TEACHER] = dict(self._teacher)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """As `CausalLM`, and the teacher."""
        super().on_load_checkpoint(checkpoint)
        self._teacher = {name: weights.to(self.device) for name, weights in checkpoint.get(_TEACHER, {}).items()}

    def _trained(self) -> Iterator[tuple[str, Tensor]]:
        return ((name, weights) for name, weights in self.named_parameters() if weights.requires_grad)

    @contextmanager
    def _as_teacher(self) -> Iterator[None]:
        """The model as the teacher, without dropout: its adapter off, or with the weights of the last refresh."""
        assert isinstance(self.model, PeftModel)
        with evaluation_mode(self.model), self._swapped() if self._teacher else self.model.disable_adapter():
            yield

    @contextmanager
    def _swapped(self) -> Iterator[None]:
        own = {name: weights.data for name, weights in self._trained()}
        try:
            for name, weights in self._trained():
                weights.data = self._teacher[name].to(weights.device)
            yield
        finally:
            for name, weights in self._trained():
                weights.data = own[name]
