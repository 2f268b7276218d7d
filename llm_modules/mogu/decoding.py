"""Generation by a MoGU: in every row the first tokens come from the mixture, the rest from the base model."""

from collections.abc import Collection, Sequence
from collections.abc import Generator as Steps

import torch
from torch import Tensor
from transformers import Cache

from llm_modules.generation import Completion, GenerationSettings, Generator
from llm_modules.mogu.config import FORCED, Mode, check_mode
from llm_modules.mogu.mixed_model import MixedModel
from llm_modules.mogu.mixture import GateRecord


class MoGUGenerator(Generator):
    """A `Generator` that mixes the passes of each row's first ``m`` tokens.

    The pass that gives token k of a row (from 0) is mixed if k < m, for the prompt as well. In mode ``first_m`` the
    base model then prefills the row again (as in the paper); with ``keep_cache`` it continues from the mixture's keys
    and values. An end-of-sequence token among the first tokens ends the row.

    Attributes:
        keep_gates: Whether the next call keeps its gates.
        gates: Kept gates of the last call, by row: (tokens, layers, 2) on the CPU, glad first, one per token of prompt
            and completion that the mixture has read.
    """

    def __init__(
        self,
        mogu: MixedModel,
        settings: GenerationSettings,
        *,
        pad_id: int,
        eos_ids: Collection[int],
        synced: bool = False,
        mode: Mode = "first_m",
        m: int = 5,
    ) -> None:
        """Arguments as in `Generator`; ``mode`` and ``m`` as above."""
        super().__init__(mogu.model, settings, pad_id=pad_id, eos_ids=eos_ids, synced=synced)
        check_mode(mode, m)
        self._may_share = self.shares_prompts
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
    ) -> Steps[tuple[int, int], None, None]:
        """As `Generator.stream`; one stream at a time."""
        self._begin(prompts)
        yield from super().stream(prompts, seeds, max_new_tokens)

    def forward(self, rows: Tensor, ids: Tensor, mask: Tensor, positions: Tensor, cache: Cache) -> Tensor:
        """One pass, mixed for the rows that are among their first ``m`` tokens."""
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
        self._keep(record, rows, positions, mask[:, -ids.shape[1] :], mixed)
        return logits

    def _begin(self, prompts: Sequence[Sequence[int]]) -> None:
        check_mode(self.mode, self.m)
        self.reprefill_at = frozenset({self.m} if self.mode == "first_m" else ())
        self._prompt_lengths = torch.tensor([len(prompt) for prompt in prompts])
        self._rows = None
        self.shares_prompts = self._may_share and not self.keep_gates  # each row has gates of its own
        if self.keep_gates:
            self.gates = {}

    def _phase(self, rows: Tensor, positions: Tensor) -> tuple[bool, Tensor | None]:
        """Whether any row of the pass is mixed; and the mixed rows, None for all."""
        if not len(rows):
            return False, None
        if self.mode not in ("first_m", "keep_cache"):
            return True, None
        # The number of the token that a pass gives is its position minus the prompt's length. As long as the rows are
        # the same, the numbers rise by one per pass: the device is asked only after a change of rows.
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

    def _keep(
        self, record: GateRecord, rows: Tensor, positions: Tensor, is_token: Tensor, mixed: Tensor | None
    ) -> None:
        gates = record.stacked().permute(1, 2, 0, 3).float().cpu()
        chosen = [True] * len(rows) if mixed is None else mixed.tolist()
        for index, row in enumerate(rows.tolist()):
            if chosen[index]:
                chosen_columns = is_token[index].bool()
                new = gates[index][chosen_columns.cpu()]
                begins = int(positions[index][chosen_columns][0]) == 0  # also again, after a lack of memory
                self.gates[row] = new if begins else torch.cat([self.gates[row], new])
