"""Routers that are fitted layer by layer: on the states that they meet, and that alone."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from datamodules.batch import IGNORE_INDEX, SupervisedBatch
from datamodules.errors import InputError
from datamodules.mogu.batch import RouterBatch
from llm_modules.backbone.architecture import decoder_layers, inner_decoder
from llm_modules.mogu import layerwise
from llm_modules.mogu.adapters import random_adapter
from llm_modules.mogu.config import RouterConfig
from llm_modules.mogu.layerwise import fit_by_layers
from llm_modules.mogu.losses import PenaltyMask
from llm_modules.mogu.mixed_model import MixedModel
from llm_modules.mogu.model import MoGUModel
from llm_modules.mogu.target import output_projections
from tests.architectures import ARCHITECTURES

START, END, FIRST = 2, 5, 6
"""First token of the instruction, first one after it, and first one of the response."""


def mogu_of(name: str, router: RouterConfig) -> MixedModel:
    model = ARCHITECTURES[name]()
    glad, unwilling = (random_adapter(output_projections(model), 2, 4, seed) for seed in (0, 1))
    return MoGUModel(model, glad, unwilling, router)


def batch(n: int, seed: int) -> RouterBatch:
    """Rows of 8 to 11 tokens; malicious requests hold a word that benign ones do not."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(8, 60, (n, 11), generator=generator)
    malicious = torch.arange(n) % 2 == 1
    ids[malicious, START + 1] = 7
    labels, mask = ids.clone(), torch.ones_like(ids)
    labels[:, :FIRST] = IGNORE_INDEX
    for row, length in enumerate(torch.randint(8, 12, (n,), generator=generator).tolist()):
        ids[row, length:], labels[row, length:], mask[row, length:] = 0, IGNORE_INDEX, 0
    return RouterBatch(SupervisedBatch(ids, labels, mask), malicious, torch.full((n,), START), torch.full((n,), END))


FOLDED = RouterConfig(d_router=0, bias=True)
SOME = RouterConfig(layers=(0, 2), d_router=0, bias=True)


@pytest.mark.parametrize(("name", "router"), [*((name, FOLDED) for name in ARCHITECTURES), ("llama", SOME)])
def test_every_layer_is_fitted_on_the_states_that_it_meets(
    name: str, router: RouterConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    mogu, batches = mogu_of(name, router), [batch(6, 0), batch(4, 1)]
    seen: list[Tensor] = []

    def fit(inputs: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
        seen.append(inputs)
        return layerwise_fit(inputs, *rest)

    layerwise_fit = layerwise.fit_probe
    monkeypatch.setattr(layerwise, "fit_probe", fit)
    fit_by_layers(mogu, batches, "all", m=2)
    met: dict[int, list[Tensor]] = {layer: [] for layer in mogu.mixtures}
    for layer, mixture in mogu.mixtures.items():
        mixture.register_forward_pre_hook(lambda _m, args, layer=layer: met[layer].append(args[0]))
    mogu.model.eval()
    for one in batches:
        mask = one.rows.attention_mask
        assert mask is not None
        counted = mask[:, : FIRST + 2].bool()
        with torch.no_grad():
            inner_decoder(mogu.model)(input_ids=one.rows.input_ids, attention_mask=mask, use_cache=False)
        for states in met.values():
            states[-1] = states[-1][:, : FIRST + 2][counted]
    for inputs, states in zip(seen, met.values(), strict=True):
        torch.testing.assert_close(inputs, torch.cat(states), atol=1e-5, rtol=1e-4)


def test_fitted_routers_tell_the_classes_apart() -> None:
    mogu, one = mogu_of("llama", FOLDED), batch(16, 0)
    fit_by_layers(mogu, [one], "after_instruction", m=2)
    glad, unwilling = mogu.gates(one.rows.input_ids, one.rows.attention_mask)[:, :, END : FIRST + 1].mean((0, 2)).T
    assert unwilling[one.malicious].min() > 0.8 > 0.2 > unwilling[~one.malicious].max()
    torch.testing.assert_close(glad, 1 - unwilling)
    again = mogu_of("llama", FOLDED)
    fit_by_layers(again, [one], "after_instruction", m=2)
    for layer, mixture in mogu.mixtures.items():
        assert torch.equal(mixture.routers.matrix()[0], again.mixtures[layer].routers.matrix()[0])


@pytest.mark.parametrize(
    ("mask", "first", "benign_before"),
    [("all", 0, False), ("all_by_place", 0, True), ("post_instruction", START, False), ("response", FIRST, False)],
)
def test_tokens_that_count_are_those_of_the_mask(
    mask: PenaltyMask, first: int, benign_before: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[tuple[Tensor, Tensor]] = []

    def fit(inputs: Tensor, malicious: Tensor, _l2: float, counts: Tensor) -> tuple[Tensor, Tensor]:
        found.append((malicious, counts))
        return inputs.new_zeros(inputs.shape[1]), inputs.new_zeros(1)

    monkeypatch.setattr(layerwise, "fit_probe", fit)
    fit_by_layers(mogu_of("llama", FOLDED), [batch(4, 0)], mask, m=1)
    length = FIRST + 1 - first
    for malicious, counts in found:
        assert len(counts) == 4 * length
        torch.testing.assert_close(counts, torch.full_like(counts, 1 / length))
        rows = malicious.view(4, length)
        assert not rows[0].any()
        assert rows[1].tolist() == [not (benign_before and column < START) for column in range(first, FIRST + 1)]


def test_joined_mixtures_and_the_forwards_of_others_take_part(monkeypatch: pytest.MonkeyPatch) -> None:
    """As hooks of accelerate, which move the inputs of a layer to its device."""
    mogu, one = mogu_of("llama", FOLDED), batch(16, 0)
    mogu.fold()
    called: list[nn.Module] = []

    def hooked(layer: nn.Module) -> Callable[..., Any]:
        own = layer.forward

        def forward(*args: Any, **options: Any) -> Any:
            called.append(layer)
            return own(*args, **options)

        return forward

    layers = decoder_layers(mogu.model)
    for layer in layers:
        monkeypatch.setattr(layer, "forward", hooked(layer))
    fit_by_layers(mogu, [one], "after_instruction", m=2)
    called.clear()
    unwilling = mogu.gates(one.rows.input_ids, one.rows.attention_mask)[:, :, END, 1].mean(0)
    assert unwilling[one.malicious].min() > 0.8 > 0.2 > unwilling[~one.malicious].max()
    assert called == list(layers)


def test_factored_routers_are_refused() -> None:
    for router in (RouterConfig(d_router=4, bias=True), RouterConfig(d_router=0)):
        with pytest.raises(InputError, match="only folded routers with a bias"):
            fit_by_layers(mogu_of("llama", router), [batch(4, 0)], "all", m=2)
