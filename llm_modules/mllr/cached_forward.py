"""Last-layer features of fixed prompts under many perturbations, restarted at the first layer that differs."""

from collections import OrderedDict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from datamodules.padding import pad_prompts
from llm_modules.backbone.architecture import decoder_layers, inner_decoder, residual_of, uncompiled, unwrap
from llm_modules.backbone.modes import evaluation_mode
from llm_modules.backbone.skipping import extras_of, skipping

Signature = tuple[Hashable, ...]
"""The state of each layer: equal entries mean equal weights, ``CLEAN`` an unperturbed layer."""
CLEAN: Hashable = ()


@dataclass
class Work:
    """Layer evaluations (one layer on one token, padding included) that were ``done`` and that whole passes would take.

    ``requests`` are the calls of `CachedForward.features`, ``passes`` those that had to compute anything.
    """

    done: int = 0
    full: int = 0
    requests: int = 0
    passes: int = 0


class CachedForward:
    """Last-layer features at the last token of fixed prompts; the same bits as those of a whole forward pass.

    Three things save work. Features are kept by signature, so that another probe costs nothing. Prompts come in named
    parts, each sorted by length and cut into batches once, and only the part asked for runs. And the outputs of the
    layers of a base state (the clean model, or the set that a search has found so far) are kept within a limit of
    memory: a pass starts after the deepest kept layer below which no layer differs.

    Layers that are skipped do not run, but the model's own forward does: masks and positions are the family's own.
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
        """Batch the prompts.

        Args:
            model: In evaluation mode during passes.
            parts: Token ids of the prompts of each part.
            batch_size: Prompts in a forward pass.
            memory: Bytes for kept activations.
            pad_id: Any token; padding is on the right, where a causal model does not look.
            restart: False computes everything anew, as a reference.
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
        self._extras: int | None = None  # as in `skipping`

    @property
    def clean(self) -> Signature:
        """Signature of the unperturbed model."""
        return (CLEAN,) * len(self.layers)

    def features(self, part: str, signature: Signature, base: Signature | None = None) -> Tensor:
        """Features of the model with its present weights, (prompts, hidden) float32 on the CPU, in the part's order.

        ``signature`` is the state of each layer; that it is true is up to the caller. Outputs of the lowest layers, as
        far as it equals ``base`` (the clean model by default), are kept for later calls.
        """
        batches = self._parts[part].batches
        self.work.requests += 1
        self.work.full += sum(batch.ids.numel() for batch in batches) * len(self.layers)
        if self.restart and (part, signature) in self._features:
            return self._features[part, signature]
        self.work.passes += 1
        base = base if base is not None else self.clean
        with torch.no_grad(), uncompiled(), evaluation_mode(self.model):
            rows = [self._run(batch, signature, base) for batch in batches]
        found = torch.cat(rows)[self._parts[part].place]
        if self.restart:
            self._features[part, signature] = found
        return found

    def forget(self) -> None:
        """Free everything but the clean model's features; call it before signatures get another meaning."""
        self._features = {key: found for key, found in self._features.items() if key[1] == self.clean}
        self._kept.clear()
        self._held = 0

    def _run(self, batch: "_Batch", signature: Signature, base: Signature) -> Tensor:
        start, state = self._deepest(batch.name, signature)
        self.work.done += batch.ids.numel() * (len(self.layers) - start)
        shared = next((i for i, (a, b) in enumerate(zip(signature, base, strict=True)) if a != b), len(signature))
        outputs: dict[int, Tensor] = {}

        def keep(layer: int) -> Any:
            def hook(_module: nn.Module, _args: Any, output: Any) -> None:
                outputs[layer + 1] = residual_of(output)
                self._extras = extras_of(output)

            return hook

        wanted = [k for k in range(start + 1, shared + 1) if k < len(self.layers)] if self.restart else []
        handles = [self.layers[k - 1].register_forward_hook(keep(k - 1)) for k in wanted]
        try:
            with skipping(self.layers[:start], state, self._extras):
                hidden = inner_decoder(self.model)(input_ids=batch.ids, use_cache=False).last_hidden_state
        finally:
            for handle in handles:
                handle.remove()
        self._keep(batch.name, signature, outputs)
        return hidden[torch.arange(len(hidden), device=hidden.device), batch.last].float().cpu()

    def _deepest(self, batch: str, signature: Signature) -> tuple[int, Tensor | None]:
        """The deepest kept output that this signature shares: (number of layers below it, output)."""
        if self.restart:
            for depth in range(len(self.layers) - 1, 0, -1):
                key = (batch, signature[:depth])
                if key in self._kept:
                    self._kept.move_to_end(key)
                    return depth, self._kept[key]
        return 0, None

    def _keep(self, batch: str, signature: Signature, outputs: dict[int, Tensor]) -> None:
        if outputs and not self._kept:
            # Depths of the clean model, evenly spread, that fill half of the memory; at least one.
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
    """Right-padded prompts; ``last`` is the index of each prompt's last token."""

    name: str
    ids: Tensor
    last: Tensor


@dataclass(frozen=True)
class _Part:
    """Batches of prompts of similar length, and the place of each prompt in them."""

    batches: list[_Batch]
    place: Tensor

    @classmethod
    def make(
        cls, prompts: Sequence[Sequence[int]], batch_size: int, pad_id: int, device: torch.device, prefix: str
    ) -> "_Part":
        order = sorted(range(len(prompts)), key=lambda i: (len(prompts[i]), i))
        batches = []
        for at in range(0, len(order), batch_size):
            ids, mask = (t.to(device) for t in pad_prompts([prompts[i] for i in order[at : at + batch_size]], pad_id))
            batches.append(_Batch(f"{prefix}/{at}", ids, mask.sum(dim=1) - 1))
        return cls(batches, torch.tensor(order).argsort())
