"""Features of fixed prompts under many perturbations: a forward pass restarts at the first layer that differs."""

from collections import OrderedDict
from collections.abc import Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from llm_modules.backbone.architecture import decoder_layers, inner_decoder, uncompiled, unwrap
from llm_modules.backbone.modes import evaluation_mode

Signature = tuple[Hashable, ...]
"""What is done to each layer; equal entries mean equal weights. ``CLEAN`` for a layer as it is."""
CLEAN: Hashable = ()


@dataclass
class Work:
    """Layer evaluations: one decoder layer on one token of one prompt, padding included.

    Attributes:
        done: How many were made.
        full: How many a whole forward pass for each request would have made.
        requests: How often features were asked for.
        passes: How often anything had to be computed for them.
    """

    done: int = 0
    full: int = 0
    requests: int = 0
    passes: int = 0


class CachedForward:
    """Last-layer features of the last token of fixed prompts, to the bit those of a whole forward pass.

    Prompts come in named parts, of which only those asked for are computed; each is sorted by length and cut into
    batches once. What a layer gives out is kept for the layers of a base state (the clean model, or the set that a
    search has found so far), within a limit of memory; a pass begins after the deepest kept layer below which nothing
    differs. Features are kept by signature, so that other classifiers cost nothing.

    The layers that are passed over do not run; the model's own forward does, so that masks and positions are what the
    family makes of them.
    """

    def __init__(
        self,
        model: nn.Module,
        parts: Mapping[str, Sequence[Sequence[int]]],
        *,
        batch_size: int = 32,
        memory: int = 1 << 30,
        pad_id: int = 0,
        restart: bool = True,
    ) -> None:
        """Take the prompts.

        Args:
            model: A causal language model; put in evaluation mode during passes.
            parts: Prompts by name of a part: token ids, at least one each.
            batch_size: Prompts of a forward pass.
            memory: Bytes that kept activations may take.
            pad_id: Any token; it stands to the right of a prompt, where nothing looks at it.
            restart: False recomputes everything: the reference that the benchmark and the tests compare with.
        """
        self.model = model
        self.work = Work()
        self.layers = [unwrap(layer) for layer in decoder_layers(model)]
        self.restart = restart
        device = next(model.parameters()).device
        self._parts = {
            name: _Part.make(prompts, batch_size, pad_id, device, prefix=name) for name, prompts in parts.items()
        }
        self._features: dict[tuple[str, Signature], Tensor] = {}
        self._kept: OrderedDict[tuple[str, Signature], Tensor] = OrderedDict()
        self._memory, self._held = memory, 0
        self._stride = 1
        self._extras: int | None = None  # what layers give out beside hidden states, where they give tuples

    def features(self, part: str, signature: Signature, base: Signature | None = None) -> Tensor:
        """Features of the model as its weights stand.

        Args:
            part: Name of a part of the prompts.
            signature: What was done to each layer; the caller answers for its being true.
            base: States of layers below which this signature is that of the base are kept for later; the clean model
                by default.

        Returns:
            (prompts, hidden) float32 on the CPU, in the order of the part's prompts.
        """
        batches = self._parts[part].batches
        self.work.requests += 1
        self.work.full += sum(batch.ids.numel() for batch in batches) * len(self.layers)
        if self.restart and (part, signature) in self._features:
            return self._features[part, signature]
        self.work.passes += 1
        base = base if base is not None else (CLEAN,) * len(self.layers)
        with torch.no_grad(), uncompiled(), evaluation_mode(self.model):
            rows = [self._run(batch, signature, base) for batch in batches]
        found = torch.cat(rows)[self._parts[part].place]
        if self.restart:
            self._features[part, signature] = found
        return found

    def forget(self) -> None:
        """Free what is kept but the clean model's features: perturbations are about to mean something else."""
        clean = (CLEAN,) * len(self.layers)
        self._features = {key: found for key, found in self._features.items() if key[1] == clean}
        self._kept.clear()
        self._held = 0

    def _run(self, batch: "_Batch", signature: Signature, base: Signature) -> Tensor:
        start, state = self._deepest(batch.name, signature)
        self.work.done += batch.ids.numel() * (len(self.layers) - start)
        shared = next((i for i, (a, b) in enumerate(zip(signature, base, strict=True)) if a != b), len(signature))
        outputs: dict[int, Tensor] = {}

        def keep(layer: int) -> Any:
            def hook(_module: nn.Module, _args: Any, output: Any) -> None:
                outputs[layer + 1] = output[0] if isinstance(output, tuple) else output
                self._extras = len(output) - 1 if isinstance(output, tuple) else None

            return hook

        wanted = [k for k in range(start + 1, shared + 1) if k < len(self.layers)] if self.restart else []
        handles = [self.layers[k - 1].register_forward_hook(keep(k - 1)) for k in wanted]
        try:
            with _skipping(self.layers[:start], state, self._extras):
                hidden = inner_decoder(self.model)(input_ids=batch.ids, use_cache=False).last_hidden_state
        finally:
            for handle in handles:
                handle.remove()
        self._keep(batch.name, signature, outputs)
        return hidden[torch.arange(len(hidden), device=hidden.device), batch.last].float().cpu()

    def _deepest(self, batch: str, signature: Signature) -> tuple[int, Tensor | None]:
        """The deepest kept state that this signature shares, as (layers passed, their output)."""
        if self.restart:
            for depth in range(len(self.layers) - 1, 0, -1):
                key = (batch, signature[:depth])
                if key in self._kept:
                    self._kept.move_to_end(key)
                    return depth, self._kept[key]
        return 0, None

    def _keep(self, batch: str, signature: Signature, outputs: dict[int, Tensor]) -> None:
        if outputs and not self._kept:
            # As many depths of the clean model as fill half of the memory, evenly spread, and one at the least.
            each = next(iter(outputs.values()))
            tokens = sum(batch.ids.numel() for part in self._parts.values() for batch in part.batches)
            whole = each.element_size() * each.shape[-1] * tokens * len(self.layers)
            self._stride = min((len(self.layers) + 1) // 2, max(1, -(-2 * whole // max(1, self._memory))))
        for depth, state in outputs.items():
            key, size = (batch, signature[:depth]), state.element_size() * state.numel()
            if depth % self._stride or key in self._kept or size > self._memory:
                continue
            self._kept[key] = state
            self._held += size
            while self._held > self._memory:
                _, gone = self._kept.popitem(last=False)
                self._held -= gone.element_size() * gone.numel()


@dataclass(frozen=True)
class _Batch:
    """Prompts padded on the right, where a causal model does not look; ``last`` is each one's last token."""

    name: str
    ids: Tensor
    last: Tensor


@dataclass(frozen=True)
class _Part:
    """Batches of like length, and where each prompt is in them."""

    batches: list[_Batch]
    place: Tensor

    @classmethod
    def make(
        cls, prompts: Sequence[Sequence[int]], batch_size: int, pad_id: int, device: torch.device, prefix: str
    ) -> "_Part":
        order = sorted(range(len(prompts)), key=lambda i: (len(prompts[i]), i))
        batches = []
        for at in range(0, len(order), batch_size):
            rows = [list(prompts[i]) for i in order[at : at + batch_size]]
            width = len(rows[-1])
            ids = torch.tensor([row + [pad_id] * (width - len(row)) for row in rows], device=device)
            last = torch.tensor([len(row) - 1 for row in rows], device=device)
            batches.append(_Batch(f"{prefix}/{at}", ids, last))
        return cls(batches, torch.tensor(order).argsort())


@contextmanager
def _skipping(layers: Sequence[nn.Module], state: Tensor | None, extras: int | None) -> Iterator[None]:
    """Within the block these layers do nothing, and the last of them gives out ``state``.

    Args:
        layers: The first ones of the model.
        state: What comes out of them, (batch, seq, hidden).
        extras: None where a layer gives a tensor; else it gives a tuple with that many entries more (attentions).
    """
    for layer in layers:

        def passed(hidden: Tensor, *_args: Any, _last: bool = layer is layers[-1], **_kwargs: Any) -> Any:
            out = state if _last else hidden
            return out if extras is None else (out, *[None] * extras)

        layer.forward = passed
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward
