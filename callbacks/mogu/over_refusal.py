"""Measures over-refusal while routers are trained, on benign requests of a source that the pairs do not have."""

from contextlib import nullcontext
from dataclasses import replace

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn

from callbacks.trainer_parts import datamodule_of
from datamodules.batch import PromptRow
from datamodules.completions.refusals import ANY_REFUSAL, is_refusal
from datamodules.completions.thoughts import split_thought
from datamodules.errors import InputError
from datamodules.mogu.response_data import RouterData
from datamodules.prompts.chat_template import decode_completion
from llm_modules.mogu.config import Mode
from llm_modules.mogu.decoding import MoGUGenerator
from llm_modules.mogu.module import MoGU

SHIFTS = (-0.5, -1, -1.5, -2, -3, -4, -6, -8)
"""Shifts of the gates that are tried at the end of a fit whose routers refuse too much (ours)."""


class OverRefusal(Callback):
    """Logs the share of ``data.val_requests`` that the mixture refuses: ``val/over_refusal``, after each validation.

    ``val/over_refusal_base`` is the share that the base model refuses. The pairs cannot show over-refusal: gates that
    are right on requests like those of training may be undecided on others, and an undecided mixture refuses. The
    answers are greedy, and their first tokens are read. A completion that ends within its thought counts as no refusal;
    if all do, a warning says so.
    """

    def __init__(self, max_new_tokens: int = 16, warn_above: float = 0.05) -> None:
        """Describe the check.

        Args:
            max_new_tokens: Tokens of each answer (ours).
            warn_above: At the end of the fit, warn if the mixture refuses a share more than the base by this (ours).
        """
        if max_new_tokens < 1 or not 0 <= warn_above <= 1:
            raise InputError(
                "OverRefusal: max_new_tokens must be 1 or more and warn_above between 0 and 1; they are "
                f"{max_new_tokens} and {warn_above:g}"
            )
        self.max_new_tokens, self.warn_above = max_new_tokens, warn_above
        self.base: float | None = None
        self.mixed: float | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Raise InputError if no routers are trained; warn if there are no requests."""
        data = datamodule_of(trainer)
        if not isinstance(pl_module, MoGU) or not isinstance(data, RouterData):
            raise InputError("trainer.callbacks: OverRefusal checks routers in training, a MoGU on RouterData")
        if data.val_requests is None:
            rank_zero_warn(
                "over-refusal is not measured: set data.val_requests to a file of benign requests of a source that the "
                "pairs do not have"
            )

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Answer the requests and log both shares. All processes answer all of them."""
        assert isinstance(pl_module, MoGU)
        rows: list[PromptRow] = datamodule_of(trainer).val_rows
        if trainer.sanity_checking or not rows:
            return
        if self.base is None:
            self.base = self._refused(pl_module, rows, "off")
        self.mixed = self._refused(pl_module, rows, warn=True)
        pl_module.log_dict({"val/over_refusal": self.mixed, "val/over_refusal_base": self.base})

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Warn if the last validation found over-refusal, with the shift of the gates that ends it."""
        if self.mixed is None or not self._is_over(self.mixed):
            return
        assert isinstance(pl_module, MoGU)
        data: RouterData = datamodule_of(trainer)
        fitted = pl_module.fit_by_layers or pl_module.parts.folder or pl_module.parts.probes
        how = "" if fitted else ", or fit the routers by layers (--config mogu/real/router)"
        rank_zero_warn(
            f"over-refusal: of {len(data.val_rows)} benign requests of '{data.val_requests}' the routers refuse "
            f"{self.mixed:.0%}, the base model {self.base:.0%}; add benign requests of other sources and near-twins "
            f"of malicious ones to the pairs (rod pairs --answers){how}. "
            f"{self._remedy(data, pl_module)}; see docs/mogu.md"
        )

    def _is_over(self, refused: float) -> bool:
        return self.base is not None and refused - self.base > self.warn_above

    def _remedy(self, data: RouterData, module: MoGU) -> str:
        """The least shift of the gates that ends over-refusal, and what it costs; by the weights of the fit's end."""
        attacks = data.malicious_rows
        for shift in SHIFTS:
            module.mogu.shift_gates(shift)
            try:
                refused = self._refused(module, data.val_rows)
                after = None if self._is_over(refused) else self._refused(module, attacks)
            finally:
                module.mogu.shift_gates(-shift)
            if after is not None:
                return (
                    f"With model.gate_shift {shift} a test refuses {refused:.0%} of them, and of {len(attacks)} "
                    f"malicious validation requests {after:.0%} instead of {self._refused(module, attacks):.0%}"
                )
        return f"No model.gate_shift down to {SHIFTS[-1]} ends it"

    def _refused(self, module: MoGU, rows: list[PromptRow], mode: Mode | None = None, warn: bool = False) -> float:
        """Share of the rows that are refused; with ``warn``, a warning if no completion reaches its answer."""
        sharded = module.device_mesh is not None
        generator = MoGUGenerator(
            module.mogu,
            replace(module.generation, max_new_tokens=self.max_new_tokens, temperature=0.0),
            pad_id=module.pad_id,
            eos_ids=module.eos_ids,
            synced=sharded,
            mode=mode or module.mode,
            m=module.m,
        )
        with nullcontext() if sharded else module.mogu.joined():
            done = generator.generate([row.token_ids for row in rows])
        texts = [decode_completion(module.tokenizer, completion.token_ids) for completion in done]
        if warn and all(split_thought(text, row.prompt).answer is None for text, row in zip(texts, rows, strict=True)):
            rank_zero_warn(
                f"over-refusal is not measured: none of {len(rows)} completions reaches its answer within "
                f"{self.max_new_tokens} tokens, because thoughts come first; raise max_new_tokens of OverRefusal, or "
                "switch thoughts off with data.chat_template_kwargs if the template has a switch"
            )
        refused = [is_refusal(text, ANY_REFUSAL, row.prompt) for text, row in zip(texts, rows, strict=True)]
        return sum(refused) / len(rows)
