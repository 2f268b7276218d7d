"""Generation by a MoGU whose base model is in another process: the mixture begins here, the rest comes from there."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from datamodules.errors import InputError
from llm_modules.generation import Completion, GenerationEngine
from llm_modules.generation.interface import GenerationListener, StartsProcess
from llm_modules.generation.remote_steering import remote_steering
from llm_modules.mogu.decoding import MoGUGenerator


class HandOff(GenerationEngine):
    """Mode ``first_m`` in two engines: the first m tokens of each row from the mixture, the rest from the base model.

    The second engine reads the prompt and these tokens, as the base model does in slots. Tokens are those of
    `MoGUGenerator` but for rounding, sampled ones too, where the second engine takes a row's own random numbers.
    """

    name = "slots"

    def __init__(self, first: MoGUGenerator, rest: GenerationEngine) -> None:
        """Hand rows over from ``first`` to ``rest``, an engine of the base model."""
        super().__init__(rest.settings, pad_id=first.pad_id, eos_ids=first.eos_ids)
        self.first, self.rest = first, rest
        self.max_positions, self.positions_end = rest.max_positions, rest.positions_end

    @property
    def description(self) -> str:
        """Both engines."""
        return f"{self.first.description}, then {self.rest.description}"

    def close(self) -> None:
        """End the second engine's process."""
        if isinstance(self.rest, StartsProcess):
            self.rest.close()

    def _complete(
        self, prompts: Sequence[Sequence[int]], seeds: Sequence[int], limits: Sequence[int]
    ) -> list[Completion]:
        if remote_steering(self.listeners) is not None:
            raise InputError("model.generation.engine: a MoGU is not steered in another process; use slots")
        m = self.first.m
        self.first.settings = self.settings
        self.first.listeners = [_Relay(self, list(range(len(prompts))))]
        begun = self.first.generate(prompts, seeds, [min(m, limit) for limit in limits])
        self.settings = replace(self.settings, slots=self.first.settings.slots)  # fewer after a lack of memory
        going = [row for row, one in enumerate(begun) if one.finish_reason == "length" and limits[row] > m]
        if self.max_positions is not None:  # vLLM takes no prompt that fills all of them
            going = [row for row in going if len(prompts[row]) + m < self.max_positions]
        done = {row: self.finish(row, begun[row].token_ids) for row in sorted({*range(len(prompts))} - {*going})}
        self.rest.settings, self.rest.drawn = self.settings, m
        relay = _Relay(self, going, {row: begun[row].token_ids for row in going})
        self.rest.listeners = [relay]
        self.rest.generate(
            [[*prompts[row], *begun[row].token_ids] for row in going],
            [seeds[row] for row in going],
            [limits[row] - m for row in going],
        )
        done |= relay.done
        return [done[row] for row in sorted(done)]


class _Relay(GenerationListener):
    """Tells the listeners of a `HandOff` what happens in one of its engines, by the rows of the call.

    Attributes:
        done: Row of the call -> its completion, of rows that are ``begun``.
    """

    def __init__(self, owner: HandOff, rows: Sequence[int], begun: Mapping[int, tuple[int, ...]] | None = None) -> None:
        """``rows`` are those of the call, in the engine's order; of ``begun`` rows the tokens before are given."""
        self.owner, self.rows, self.begun = owner, rows, begun or {}
        self.done: dict[int, Completion] = {}

    def tokens_generated(self, number: int) -> None:
        self.owner.tokens_generated(number)

    def rows_begin_again(self, rows: Sequence[int]) -> None:
        self.owner.rows_begin_again([self.rows[row] for row in rows])

    def row_failed(self, row: int, reason: str) -> bool:
        taken = [listener.row_failed(self.rows[row], reason) for listener in self.owner.listeners]
        return any(taken)

    def row_finished(self, row: int, completion: Completion) -> None:
        own = self.rows[row]
        if own in self.begun:
            self.done[own] = self.owner.finish(own, self.begun[own] + completion.token_ids)
