"""The decoding loop of a `Generator`: a fixed number of slots; a finished row frees its slot for a waiting prompt."""

import warnings
from collections import deque
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, distributed
from torch.nn.functional import pad
from transformers import Cache

from datamodules.errors import InputError
from llm_modules.generation.interface import Completion, SlotEngine
from llm_modules.generation.prefill import left_pad
from llm_modules.generation.slot_cache import BatchCache, SlotCache
from llm_modules.generation.token_sampling import row_uniforms, sample_tokens

REFILL_SHARE = 1 / 8
"""Waiting prompts are prefilled together once this share of the slots is free."""
PREFILL_TOKENS = 16_384
"""Most tokens of one prefill, including padding; bounds the memory of its activations."""


class Decoding:
    """The state of one call of `Generator.generate`: rows in the slots, waiting rows, finished rows.

    The first `SlotCache.rows` entries of each tensor belong to the rows being decoded, in batch order.
    """

    def __init__(
        self, engine: SlotEngine, prompts: Sequence[Sequence[int]], seeds: Sequence[int], limits: Sequence[int]
    ) -> None:
        self.engine, self.settings = engine, engine.settings
        self.prompts, self.seeds, self.limits = prompts, seeds, limits
        self.completions: dict[int, Completion] = {}
        self.begun: dict[int, tuple[int, ...]] = {}  # tokens so far of rows that wait to be prefilled again
        self.device = engine.device
        self.eos_ids = torch.tensor(engine.eos_ids, dtype=torch.long, device=self.device)
        self._start(min(self.settings.slots, len(prompts)))

    def _start(self, slots: int) -> None:
        """Let all rows that are not complete wait for their first pass in so many empty slots."""
        self.slots = slots
        # Longest first: a new row is never longer than the rows in the slots, and prompts prefilled together have
        # about the same length.
        rows = (row for row in range(len(self.prompts)) if row not in self.completions)
        self.waiting = deque(sorted(rows, key=lambda row: -len(self.prompts[row])))
        self.begun.clear()
        self.cache = SlotCache(self.slots) if self.engine.takes_newcomers else BatchCache(self.device)
        longest = max(self.limits, default=0)
        self.tokens = torch.empty((self.slots, longest), dtype=torch.long, device=self.device)
        self.last = torch.empty((self.slots, 1), dtype=torch.long, device=self.device)
        self.uniforms = torch.empty((self.slots, longest if self.settings.temperature else 0), device=self.device)
        # Columns: row, tokens it may generate, tokens it has generated, position of its last prompt token.
        self.state = torch.empty((self.slots, 4), dtype=torch.long, device=self.device)
        self.row, self.limit, self.count, self.origin = self.state.unbind(1)
        self.rows = self.row[:0]

    def finish(self) -> list[Completion]:
        """Decode all rows to their end."""
        while self.turn():
            pass
        return [self.completions[row] for row in range(len(self.prompts))]

    def turn(self) -> bool:
        """Run one forward pass; return False if nothing was left to do.

        If the device runs out of memory, the rows in the slots begin again with half as many slots.

        Raises:
            InputError: One row alone does not fit, or the model is sharded, whose ranks depend on each other's passes.
        """
        if not self._goes_on():
            return False
        try:
            self._pass()
            return True
        except torch.OutOfMemoryError as error:
            if self.engine.synced or self.slots == 1:
                raise InputError(
                    f"the device runs out of memory with generation.slots {self.slots}: "
                    + ("lower it" if self.slots > 1 else "lower generation.max_new_tokens or give shorter prompts")
                ) from error
        # Here, because the error keeps what the pass has allocated.
        self._halve()
        return True

    def _halve(self) -> None:
        """Start again with half as many slots, in later calls too."""
        self._start(self.slots // 2)
        self.engine.rows_begin_again(list(self.waiting))
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        self.engine.settings = replace(self.engine.settings, slots=self.slots)
        warnings.warn(
            f"the device ran out of memory with {2 * self.slots} rows; going on with generation.slots {self.slots}",
            stacklevel=2,
        )

    def _pass(self) -> None:
        free = self.slots - self.cache.rows
        if not self.engine.takes_newcomers and self.cache.rows:
            free = 0
        if self.waiting and free >= min(len(self.waiting), max(1, int(self.slots * REFILL_SHARE))):
            self._prefill(self._newcomers(free))
        elif self.cache.rows:
            self._decode()
        else:
            self._idle()

    def so_far(self) -> dict[int, tuple[int, ...]]:
        """Return the tokens of every row that has started."""
        found = {row: done.token_ids for row, done in self.completions.items()} | self.begun
        for slot in range(self.cache.rows):
            found[int(self.row[slot])] = tuple(self.tokens[slot, : int(self.count[slot])].tolist())
        return found

    def _goes_on(self) -> bool:
        busy = bool(self.waiting or self.cache.rows)
        if self.engine.synced:
            anyone = torch.tensor([busy], dtype=torch.int32, device=self.device)
            distributed.all_reduce(anyone, distributed.ReduceOp.MAX)
            busy = bool(anyone)
        return busy

    def _newcomers(self, free: int) -> list[int]:
        """Take the next rows to prefill together: of similar length, at most ``PREFILL_TOKENS`` tokens."""
        longest = self._length(self.waiting[0])
        shortest = longest if self.engine.equal_lengths else longest / 2
        most = min(free, max(1, PREFILL_TOKENS // longest))
        rows: list[int] = []
        while self.waiting and len(rows) < most and shortest <= self._length(self.waiting[0]) <= longest:
            rows.append(self.waiting.popleft())
        return rows

    def _length(self, row: int) -> int:
        """Tokens that a prefill of this row computes."""
        return len(self.prompts[row]) + len(self.begun.get(row, ()))

    def _prefill(self, rows: list[int]) -> None:
        begun = [self.begun.pop(row, ()) for row in rows]
        prompts = [(*self.prompts[row], *ids) for row, ids in zip(rows, begun, strict=True)]
        lengths = [len(prompt) for prompt in prompts]
        prefilled = self.engine.new_cache()
        readers = self.engine.readers(rows, prompts) if not any(begun) and min(lengths) > 1 else list(range(len(rows)))
        unique = sorted(set(readers))
        if 2 * sum(lengths[index] for index in unique) <= sum(lengths):
            logits = self._read_once(rows, prompts, readers, unique, prefilled)
        else:
            logits = self._read(rows, prompts, prefilled)
        self.cache.append(prefilled, lengths)
        new = slice(self.cache.rows - len(rows), self.cache.rows)
        state = [
            (row, self.limits[row], len(ids), len(self.prompts[row]) - 1) for row, ids in zip(rows, begun, strict=True)
        ]
        self.state[new] = torch.tensor(state, device=self.device)
        for slot, generated in enumerate(begun, start=new.start):
            self.tokens[slot, : len(generated)] = torch.tensor(generated, dtype=torch.long)
        if self.settings.temperature:
            # As many as the row itself may need: its draws must not depend on the other rows of the call.
            drawn = [row_uniforms(self.seeds[row], self.limits[row]) for row in rows]
            width = self.uniforms.shape[1]
            self.uniforms[new] = torch.stack([pad(u, (0, width - len(u))) for u in drawn]).to(self.device)
        self.rows = self.row[: self.cache.rows].clone()
        self._extend(new, logits)

    def _read(self, rows: Sequence[int], prompts: Sequence[Sequence[int]], cache: Cache) -> Tensor:
        """Read prompts into an empty cache; return the logits after each, (rows, vocab)."""
        ids, mask, positions = (t.to(self.device) for t in left_pad(prompts, self.engine.pad_id))
        return self.engine.forward(torch.tensor(rows, device=self.device), ids, mask, positions, cache)

    def _read_once(
        self,
        rows: Sequence[int],
        prompts: Sequence[Sequence[int]],
        readers: Sequence[int],
        unique: Sequence[int],
        cache: Cache,
    ) -> Tensor:
        """As `_read`, but all tokens except the last only in the rows ``unique``, by which the others are read."""
        all_rows = torch.tensor(rows, device=self.device)
        self.engine.before_shared_prompts(all_rows, all_rows[list(readers)])
        self._read([rows[index] for index in unique], [prompts[index][:-1] for index in unique], cache)
        place = {index: place for place, index in enumerate(unique)}
        cache.batch_select_indices(torch.tensor([place[reader] for reader in readers], device=self.device))
        ids, mask, positions = (t.to(self.device) for t in left_pad(prompts, self.engine.pad_id))
        return self.engine.forward(all_rows, ids[:, -1:], mask, positions[:, -1:], cache)

    def _decode(self) -> None:
        n = self.cache.rows
        positions = (self.origin[:n] + self.count[:n])[:, None]
        logits = self.engine.forward(self.rows, self.last[:n], self.cache.mask(), positions, self.cache.past)
        self._extend(slice(0, n), logits)

    def _idle(self) -> None:
        """Run a pass whose result is discarded: the other ranks of a sharded model need this rank's part in it."""
        ids = torch.full((1, 1), self.engine.pad_id, device=self.device)
        self.engine.forward(self.row[:0], ids, torch.ones_like(ids, dtype=torch.bool), ids * 0, self.engine.new_cache())

    def _extend(self, slots: slice, logits: Tensor) -> None:
        """Append the next token to the rows in these slots; remove rows that are complete."""
        count, settings = self.count[slots], self.settings
        if settings.temperature:
            uniforms = self.uniforms[slots].gather(1, count[:, None])[:, 0]
            ids = sample_tokens(logits, uniforms, settings.temperature, settings.top_p, settings.top_k)[:, None]
        else:
            ids = logits.argmax(dim=-1, keepdim=True)
        self.last[slots] = ids
        self.tokens[slots].scatter_(1, count[:, None], ids)
        count += 1
        self.engine.tokens_generated(len(ids))
        done = (ids == self.eos_ids).any(dim=1) | (count == self.limit[slots])
        if done.any():
            self._remove((done.nonzero()[:, 0] + slots.start).tolist())
        if self.engine.reprefill_at:
            self._send_back()

    def _remove(self, slots: list[int]) -> None:
        """Free the slots of complete rows and report the rows to the listeners."""
        complete = [(int(self.row[slot]), tuple(self.tokens[slot, : int(self.count[slot])].tolist())) for slot in slots]
        self._drop(slots)
        for row, ids in complete:
            self.completions[row] = self.engine.finish(row, ids)

    def _drop(self, slots: list[int]) -> None:
        """Free slots; the last rows move into them."""
        for source, target in self.cache.drop(slots):
            for tensor in (self.state, self.tokens, self.last, self.uniforms):
                tensor[target] = tensor[source]
        self.rows = self.row[: self.cache.rows].clone()

    def _send_back(self) -> None:
        """Return rows to the queue if their next token must come from a prefill of prompt and tokens together."""
        counts = self.count[: self.cache.rows].tolist()
        slots = [slot for slot, count in enumerate(counts) if count in self.engine.reprefill_at]
        if not slots:
            return
        for slot in slots:
            self.begun[int(self.row[slot])] = tuple(self.tokens[slot, : counts[slot]].tolist())
        # At the front of the queue, longest first like the others.
        self.waiting.extendleft(
            sorted(
                (int(self.row[slot]) for slot in slots), key=lambda row: len(self.prompts[row]) + len(self.begun[row])
            )
        )
        self._drop(slots)
