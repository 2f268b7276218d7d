"""A model whose loss or gradients go wrong at chosen batches."""

from typing import Any, Literal

from torch import Tensor

from llm_modules.causal_lm import CausalLM
from llm_modules.loss import Loss


class Poisoned(CausalLM):
    """Multiplies the loss, or its gradient alone, with ``factor`` in the batches ``at`` of one process."""

    def __init__(
        self, at: list[int], factor: float, what: Literal["loss", "gradient"] = "loss", rank: int = 0, **model: Any
    ) -> None:
        super().__init__(**model)
        self.at, self.factor, self.what, self.rank = at, factor, what, rank

    def loss(self, batch: Any) -> Loss:
        """The loss, poisoned."""
        loss = super().loss(batch)
        if self.trainer.fit_loop.batch_idx in self.at and self.global_rank == self.rank:
            values = loss.values.clone()
            if self.what == "gradient":
                values.register_hook(self._poisoned)
            else:
                values = self._poisoned(values)
            loss = Loss(values, loss.tokens, loss.per_batch)
        return loss

    def _poisoned(self, values: Tensor) -> Tensor:
        return values * self.factor
