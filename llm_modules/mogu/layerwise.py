"""Routers fitted layer by layer, each by logistic regression on the states that the mixtures below leave (ours)."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from datamodules.batch import IGNORE_INDEX
from datamodules.errors import InputError
from datamodules.mogu.batch import RouterBatch
from llm_modules.backbone.architecture import decoder_layers, inner_decoder, residual_of, uncompiled, unwrap
from llm_modules.backbone.modes import evaluation_mode
from llm_modules.backbone.skipping import extras_of, skipping
from llm_modules.mogu.losses import PenaltyMask, penalised
from llm_modules.mogu.mixed_model import MixedModel
from llm_modules.mogu.probes import fit_probe, start_from

Track = Callable[[Sequence[int]], Iterable[int]]
"""Passes layers on, and shows how far they are."""


class _ReachedError(Exception):
    """The pass has reached the mixture whose input it was for."""


@torch.no_grad()
def fit_by_layers(
    mogu: MixedModel,
    batches: Sequence[RouterBatch],
    mask: PenaltyMask,
    m: int | None,
    l2: float = 1e-3,
    track: Track = lambda layers: layers,
) -> None:
    """Fit the routers of one layer after the other, in the states that they will meet (ours).

    A logistic regression tells the tokens of malicious requests from those of benign ones by the input of the layer's
    mixture; its probability opens unwilling, the rest glad. The mixtures below are fitted already and take part. All
    layers together cost about two forward passes over the batches, and nothing is drawn. A token
    that counts takes 20 bytes for each feature of a layer's input.

    Args:
        mogu: With folded routers that have a bias.
        batches: Requests with the right responses.
        mask: Tokens that count, and their classes; those of a request count as much together as those of another.
        m: Tokens of a response that count, such as those that the mixture will write; all with None.
        l2: Penalty on the weights of standardised inputs.
        track: Passes the layers on, for a progress bar.

    Raises:
        InputError: The routers are factored or have no bias, or a class of requests is missing.
    """
    if mogu.config.d_router != 0 or not mogu.config.bias:
        raise InputError(
            "fit_by_layers: only folded routers with a bias can be fitted, as RouterConfig(d_router=0, bias=True)"
        )
    passes = [_Pass(mogu, batch, mask, m) for batch in batches]
    with uncompiled(), evaluation_mode(mogu.model):
        for layer in track(sorted(mogu.mixtures)):
            parts = zip(*(one.inputs(layer) for one in passes), strict=True)
            inputs, malicious, counts = (torch.cat(part) for part in parts)
            start_from(mogu.mixtures[layer], *fit_probe(inputs, malicious, l2, counts))


class _Pass:
    """A batch on its way through the layers."""

    def __init__(self, mogu: MixedModel, batch: RouterBatch, mask: PenaltyMask, m: int | None) -> None:
        rows = batch.rows
        assert rows.attention_mask is not None
        tokens, malicious = penalised(mask, batch)
        if m is not None:
            tokens = tokens & ((rows.labels != IGNORE_INDEX).cumsum(dim=1) <= m)
        length = int(tokens.any(dim=0).nonzero().max()) + 1
        self.tokens, self.malicious = tokens[:, :length], malicious[:, :length]
        self.ids, self.mask = rows.input_ids[:, :length], rows.attention_mask[:, :length]
        self.mogu, self.layers = mogu, [unwrap(layer) for layer in decoder_layers(mogu.model)]
        self.done = 0
        self.state: Tensor | None = None
        self.extras: int | None = None

    def inputs(self, layer: int) -> tuple[Tensor, Tensor, Tensor]:
        """The inputs (n, in) float32 of a mixture at the tokens that count, their classes, and how much they count."""
        found: list[Tensor] = []

        def reach(_module: Any, args: tuple[Tensor, ...]) -> None:
            found.append(args[0])
            raise _ReachedError

        def keep(_module: Any, _args: Any, output: Any) -> None:
            self.state, self.extras = residual_of(output), extras_of(output)

        hooks = [self.mogu.mixtures[layer].register_forward_pre_hook(reach)]
        if layer > self.done:
            hooks.append(self.layers[layer - 1].register_forward_hook(keep))
        try:
            with skipping(self.layers[: self.done], self.state, self.extras):
                inner_decoder(self.mogu.model)(input_ids=self.ids, attention_mask=self.mask, use_cache=False)
        except _ReachedError:
            self.done = layer
        finally:
            for hook in hooks:
                hook.remove()
        share = self.tokens.float() / self.tokens.sum(dim=1, keepdim=True).clamp(min=1)
        return found[0][self.tokens].float(), self.malicious[self.tokens], share[self.tokens]
