"""Generation by a MoGU: every row of a batch has its first tokens from the mixture and the rest from the base model."""

from collections.abc import Collection, Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from transformers import Cache

from llm_modules.generation import Completion, GenerationSettings, Generator
from llm_modules.mogu.config import FORCED, Mode, check_mode
from llm_modules.mogu.mixture import GateRecord

if TYPE_CHECKING:
    from llm_modules.mogu.model import MoGUModel


class MoGUGenerator(Generator):
    """A `Generator` whose passes are mixed for the rows that are still among their first ``m`` tokens.

    The pass that gives a row's token k (from 0) is mixed where k < m, prompt and all. In mode ``first_m`` the row is
    then prefilled again by the base model (paper, exactly); with ``keep_cache`` the base model goes on from the keys
    and values that the mixture has left. An end of sequence among the first tokens ends the row.

    Attributes:
        mode: See ``Mode``.
        m: Tokens from the mixture.
        keep_gates: Whether to keep the gates of the next call.
        gates: By row of the last call that kept them: (tokens, layers, 2) on the CPU, glad first, for those tokens of
            prompt and completion that the mixture has read, in order.
    """

    def __init__(
        self,
        mogu: "MoGUModel",
        settings: GenerationSettings,
        *,
        pad_id: int,
        eos_ids: Collection[int],
        synced: bool = False,
        mode: Mode = "first_m",
        m: int = 5,
    ) -> None:
        """Take a MoGU; arguments as in `Generator`."""
        super().__init__(mogu.model, settings, pad_id=pad_id, eos_ids=eos_ids, synced=synced)
        check_mode(mode, m)
        self.mogu, self.mode, self.m = mogu, mode, m
        self.keep_gates = False
        self.gates: dict[int, Tensor] = {}
        self._prompt_lengths = torch.empty(0, dtype=torch.long)
        self._rows: Tensor | None = None
        self._lowest = self._highest = 0

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        seeds: Sequence[int] | None = None,
        max_new_tokens: Sequence[int] | None = None,
    ) -> list[Completion]:
        """As `Generator.generate`."""
        self._begin(prompts)
        return super().generate(prompts, seeds, max_new_tokens)

    def stream(
        self,
        prompts: Sequence[Sequence[int]],
        seeds: Sequence[int] | None = None,
        max_new_tokens: Sequence[int] | None = None,
    ) -> Iterator[tuple[int, int]]:
        """As `Generator.stream`; one stream at a time."""
        self._begin(prompts)
        yield from super().stream(prompts, seeds, max_new_tokens)

    def forward(self, rows: Tensor, ids: Tensor, mask: Tensor, positions: Tensor, cache: Cache) -> Tensor:
        """One pass, mixed for the rows to which that is due."""
        if self.mode == "off":
            with self.mogu.base():
                return super().forward(rows, ids, mask, positions, cache)
        active, mixed = self._phase(rows, positions)
        if not (active and self.keep_gates):
            forced = FORCED.get(self.mode)
            with self.mogu.control.set(active=active, rows=mixed, forced=forced):
                return super().forward(rows, ids, mask, positions, cache)
        with self.mogu.recording(rows=mixed, forced=FORCED.get(self.mode)) as record:
            logits = super().forward(rows, ids, mask, positions, cache)
        self._keep(record, rows, mask[:, -ids.shape[1] :], mixed)
        return logits

    def _begin(self, prompts: Sequence[Sequence[int]]) -> None:
        check_mode(self.mode, self.m)
        self.reprefill_at = frozenset({self.m} if self.mode == "first_m" else ())
        self._prompt_lengths = torch.tensor([len(prompt) for prompt in prompts])
        self._rows = None
        if self.keep_gates:
            self.gates = {}

    def _phase(self, rows: Tensor, positions: Tensor) -> tuple[bool, Tensor | None]:
        """Whether any row of the pass is mixed, and which ones where not all are."""
        if not len(rows):
            return False, None
        if self.mode not in ("first_m", "keep_cache"):
            return True, None
        # The token that a pass gives has a number, its position less the prompt's length. Rows of one tensor go on
        # together, so that the device is asked only where the rows have changed.
        if rows is self._rows:
            self._lowest, self._highest = self._lowest + 1, self._highest + 1
        else:
            self._prompt_lengths = self._prompt_lengths.to(rows.device)
            numbers = positions[:, -1] + 1 - self._prompt_lengths[rows]
            self._rows, (self._lowest, self._highest) = rows, torch.stack(numbers.aminmax()).tolist()
        if self._lowest >= self.m:
            return False, None
        if self._highest < self.m:
            return True, None
        return True, positions[:, -1] + 1 - self._prompt_lengths[rows] < self.m

    def _keep(self, record: GateRecord, rows: Tensor, is_token: Tensor, mixed: Tensor | None) -> None:
        gates = record.stacked().permute(1, 2, 0, 3).float().cpu()
        chosen = [True] * len(rows) if mixed is None else mixed.tolist()
        for index, row in enumerate(rows.tolist()):
            if chosen[index]:
                new = gates[index][is_token[index].bool().cpu()]
                self.gates[row] = torch.cat([self.gates[row], new]) if row in self.gates else new
