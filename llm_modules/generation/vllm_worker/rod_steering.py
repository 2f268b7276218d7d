"""Steering inside vLLM's workers: what is added to which tokens of a pass, and what is told of it."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import torch
from torch import Tensor, nn

END = 2**62
ROWS = 1024
"""Rows of a direction that are kept at least after they have ended."""


def cache_salt(steering: str | None, positions: str, strengths: dict[str, float], prompt: int) -> str:
    """What a steered prompt shares its keys and values with: prompts that are steered alike at each of their tokens.

    ``steering`` is its name. Where a token is steered depends on the length of the ``prompt``, unless all are.
    """
    alike = json.dumps([steering, positions, sorted(strengths.items()), None if positions == "all" else prompt])
    return hashlib.sha256(alike.encode()).hexdigest()


def summed(workers: list[list[tuple[int, int, float] | None] | None]) -> list[tuple[int, float] | None]:
    """Places of rows, and the mean relative size there, over the workers that the layers are spread over.

    None for rows that they do not know.
    """
    parts = [part for part in workers if part is not None]
    found: list[tuple[int, float] | None] = []
    for own in zip(*parts, strict=True):
        known = [one for one in own if one is not None]
        places, computed, total = (sum(column) for column in zip(*known, strict=True)) if known else (0, 0, 0.0)
        found.append((int(places), total / computed if computed else 0.0) if len(known) == len(own) else None)
    return found


def steered_range(positions: str, prompt: int) -> tuple[int, int]:
    """First and last place (exclusive) that is steered in a row with a prompt of so many tokens."""
    return {"all": (0, END), "prompt": (0, prompt), "last": (prompt - 1, prompt), "generated": (prompt, END)}[positions]


@dataclass(frozen=True)
class Part:
    """The tokens of one request in a pass: ``start`` to ``end`` of the pass, ``first`` is the place of the first."""

    name: str
    row: int
    strengths: dict[str, float]
    prompt: int
    first: int
    start: int
    end: int


@dataclass
class Seen:
    """What is kept of a request.

    Attributes:
        entry: Its entry in the sums.
        setting: Number of its strengths.
        next: The next place.
        reused: Places that it took over.
        last: Number of the last pass that computed a part of it.
    """

    entry: int
    setting: int
    next: int = -1
    reused: int = 0
    last: int = 0


class PassSteering:
    """Hooks on decoder layers that add ``strength * vectors[layer]`` to tokens of the requests of a pass.

    A layer returns the residual stream after it, or two tensors whose sum that is: (tokens, hidden), all requests of
    the pass in a row.
    """

    def __init__(
        self,
        layers: nn.ModuleList,
        vectors: Tensor,
        positions: str,
        key: Callable[[], Any],
        parts: Callable[[], list[Part]],
        rows: Callable[[], set[int]],
    ) -> None:
        """Attach the hooks.

        Args:
            layers: The decoder layers; those of other workers may be placeholders that never run.
            vectors: (layers, hidden), float32.
            positions: ``all``, ``prompt``, ``last`` or ``generated``.
            key: An object of its own for each pass; None for passes that belong to no request.
            parts: The requests of the current pass.
            rows: The rows that are steered by these vectors and have not ended.
        """
        self.vectors, self.positions, self.key, self.parts, self.rows = vectors, positions, key, parts, rows
        self.passes, self.most = 0, 2 * ROWS
        self.pass_: Any = None
        self.settings: dict[tuple[tuple[str, float], ...], int] = {}  # strengths by layer -> number
        self.strengths = torch.zeros(0, len(layers))
        self.steers: list[set[int]] = []  # layers of a setting
        self.seen: dict[int, Seen] = {}
        self.free: list[int] = []
        self.sums = torch.zeros(0, 2, dtype=torch.double, device=vectors.device)  # places, sizes
        self.products: dict[tuple[int, torch.dtype], Tensor] = {}
        # Of the current pass: its steered tokens, their settings and entries.
        self.tokens: list[tuple[int, int, int]] = []
        self.present: set[int] = set()
        self.chosen: dict[frozenset[int], tuple[Tensor, Tensor, Tensor]] = {}
        self.here = [not type(layer).__name__.startswith("PPMissing") for layer in layers]
        self.hooks = [
            layer.register_forward_hook(partial(self.add, number))
            for number, layer in enumerate(layers)
            if self.here[number]
        ]

    def remove(self) -> None:
        """Remove the hooks."""
        for hook in self.hooks:
            hook.remove()

    def told(self, row: int) -> tuple[int, int, float] | None:
        """A row's places, those of them that it computed itself, and the sum of the relative sizes there.

        None if the row is not known (any more). Asking again gives the same, so that an answer may be lost.
        """
        if row not in self.seen:
            return None
        seen = self.seen[row]
        computed, total = self.sums[seen.entry].tolist()
        layers = sum(self.here[layer] for layer in self.steers[seen.setting])
        return int(computed) + seen.reused * layers, int(computed), total

    def forget(self) -> None:
        """Forget all rows that have ended but the last ones."""
        going_on = self.rows()
        ended = sorted((seen.last, row) for row, seen in self.seen.items() if row not in going_on)
        for _, row in ended[:-ROWS]:
            self.free.append(self.seen.pop(row).entry)
        self.most = len(self.seen) + ROWS

    def add(self, layer: int, _module: nn.Module, _args: Any, output: Any) -> Any:
        """Forward hook."""
        key = self.key()
        if key is None:
            return None
        if key is not self.pass_:
            self.pass_ = key
            self.plan()
        found = self.tokens_of(layer)
        if found is None:
            return None
        places, settings, entries = found
        change, *others = output if isinstance(output, tuple) else (output,)
        flat = change[0] if change.ndim == 3 and len(change) == 1 else change
        if flat.ndim != 2:
            raise ValueError(f"a decoder layer returns {tuple(change.shape)}: this family cannot be steered")
        before = flat[places] if not others or others[0] is None else flat[places] + others[0][places]
        added = self.product(layer, change.dtype)[settings]
        sizes = added.float().norm(dim=-1) / before.float().norm(dim=-1).clamp(min=torch.finfo(torch.float32).tiny)
        self.sums.index_add_(0, entries, torch.stack([torch.ones_like(sizes), sizes], dim=1).double())
        steered = flat.index_add(0, places, added).view_as(change)
        return (steered, *others) if isinstance(output, tuple) else steered

    def plan(self) -> None:
        """Find the tokens of this pass that are steered."""
        self.tokens, self.chosen = [], {}
        self.passes += 1
        for part in self.parts():
            if not part.strengths:
                continue
            seen = self.seen.get(part.row) or self.begin(part)
            low, high = steered_range(self.positions, part.prompt)
            if part.first != seen.next:  # a new request, or one that was set back and computes its tokens again
                seen.reused = max(0, min(high, part.first) - low)
                self.sums[seen.entry] = 0.0
            seen.next, seen.last = part.first + part.end - part.start, self.passes
            shift = part.start - part.first
            for place in range(max(low, part.first), min(high, seen.next)):
                self.tokens.append((place + shift, seen.setting, seen.entry))
        self.present = {setting for _, setting, _ in self.tokens}

    def begin(self, part: Part) -> Seen:
        """Note a new row."""
        if len(self.seen) >= self.most:
            self.forget()
        key = tuple(sorted(part.strengths.items()))
        if key not in self.settings:
            self.settings[key] = len(self.settings)
            new = torch.zeros(1, self.strengths.shape[1])
            for layer, strength in key:
                new[0, int(layer)] = strength
            self.strengths = torch.cat([self.strengths, new])
            self.steers.append({int(layer) for layer, strength in key if strength})
            self.products.clear()
        if not self.free:
            more = max(64, len(self.sums))
            self.free = list(range(len(self.sums), len(self.sums) + more))
            self.sums = torch.cat([self.sums, self.sums.new_zeros(more, 2)])
        self.seen[part.row] = Seen(self.free.pop(), self.settings[key], last=self.passes)
        return self.seen[part.row]

    def tokens_of(self, layer: int) -> tuple[Tensor, Tensor, Tensor] | None:
        """The tokens of this pass that are steered in a layer, their settings and entries; None if there are none."""
        settings = frozenset(setting for setting in self.present if layer in self.steers[setting])
        if not settings:
            return None
        if settings not in self.chosen:
            rows = [token for token in self.tokens if token[1] in settings]
            tensor = torch.tensor(rows, device=self.vectors.device).T.contiguous()
            self.chosen[settings] = (tensor[0], tensor[1], tensor[2])
        return self.chosen[settings]

    def product(self, layer: int, dtype: torch.dtype) -> Tensor:
        """What each setting adds to a layer, (settings, hidden): computed in float32 and rounded once."""
        if (layer, dtype) not in self.products:
            strengths = self.strengths[:, layer, None].to(self.vectors.device)
            self.products[layer, dtype] = (strengths * self.vectors[layer]).to(dtype)
        return self.products[layer, dtype]


def decoder_layers(model: nn.Module, number: int) -> nn.ModuleList:
    """The decoder layers of a model of vLLM; ValueError if it has no list of so many."""
    for name, module in model.named_modules():
        other = any(word in name for word in ("vision", "visual", "audio"))
        if isinstance(module, nn.ModuleList) and len(module) == number and not other:
            return module
    raise ValueError(f"{type(model).__name__} has no list of {number} decoder layers, so it cannot be steered")


def parts_of(runner: Any, steering: str) -> list[Part]:
    """The requests of the pass that vLLM's model runner computes; only those of this steering have strengths."""
    batch, starts = runner.input_batch, runner.query_start_loc.np
    found = []
    for index, name in enumerate(batch.req_ids):
        state = runner.requests[name]
        own = state.sampling_params.extra_args or {}
        strengths = own.get("strengths") if own.get("steering") == steering else None
        found.append(
            Part(
                name,
                own.get("row", -1),
                strengths_of(strengths) if isinstance(strengths, str) else strengths or {},
                state.num_prompt_tokens,
                int(batch.num_computed_tokens_cpu[index]),
                int(starts[index]),
                int(starts[index + 1]),
            )
        )
    return found


def rows_of(runner: Any, steering: str) -> set[int]:
    """The rows of this steering that vLLM's model runner has begun and not ended, those that are set back too."""
    extra = (state.sampling_params.extra_args or {} for state in runner.requests.values() if state.sampling_params)
    return {own.get("row", -1) for own in extra if own.get("steering") == steering}


@lru_cache
def strengths_of(text: str) -> dict[str, float]:
    """Strengths by layer from the JSON that a request to the server carries."""
    found: dict[str, float] = json.loads(text)
    return found
