"""Two responses to a prompt that is read once: losses and gradients of every family are those of rows of their own."""

import pytest
import torch
from transformers import PreTrainedModel

from datamodules.batch import IGNORE_INDEX
from datamodules.mogu.branching import branch
from datamodules.training.packing import Example, pad
from llm_modules.backbone.head import OutputHead
from llm_modules.loss import row_losses
from llm_modules.mogu.branches import branch_losses, fits_window, takes_branches
from tests.architectures import ARCHITECTURES, SLIDING_WINDOW

APART = {"falcon_alibi"}
"""Families that count columns, not positions."""
EAGER = {"gemma2"}
"""Families that transformers runs with eager attention only."""


def pairs(seed: int = 0) -> list[tuple[Example, Example]]:
    """Three prompts of different lengths with two responses each; those of the last one begin alike."""
    generator = torch.Generator().manual_seed(seed)

    def tokens(n: int) -> list[int]:
        return torch.randint(3, 120, (n,), generator=generator).tolist()

    found = []
    for prompt, one, other in ((3, 2, 3), (4, 3, 1), (2, 3, 3)):
        start = tokens(prompt)
        first, second = tokens(one), tokens(other)
        if prompt == 2:
            second[0] = first[0]
        examples = [Example((*start, *r), (*[IGNORE_INDEX] * prompt, *r)) for r in (first, second)]
        found.append((examples[0], examples[1]))
    return found


def both_ways(model: PreTrainedModel, wanted: list[tuple[Example, Example]]) -> list[list[torch.Tensor]]:
    """Losses, and gradients of a ratio of them, row by row and in branches."""
    head, decoder = OutputHead(model), model.get_decoder()
    rows = pad([*(one for one, _ in wanted), *(other for _, other in wanted)])
    found = []
    for compute in (
        lambda: row_losses(decoder, head, rows),
        lambda: branch_losses(decoder, head, branch(wanted)),
    ):
        model.zero_grad()
        losses = compute()
        (losses[: len(wanted)] / losses[len(wanted) :]).sum().backward()
        found.append([losses, *(p.grad.clone() for p in model.parameters() if p.grad is not None)])
    return found


@pytest.mark.parametrize(
    ("family", "attention"),
    [(f, a) for f in sorted(set(ARCHITECTURES) - APART) for a in ("sdpa", "eager") if f not in EAGER or a == "eager"],
)
def test_branches_are_the_same_as_rows(family: str, attention: str) -> None:
    model = ARCHITECTURES[family]()
    model.set_attn_implementation(attention)
    assert takes_branches(model.get_decoder(), OutputHead(model))
    apart, together = both_ways(model, pairs())
    for one, other in zip(apart, together, strict=True):
        torch.testing.assert_close(one, other, rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize("family", sorted(APART))
def test_a_family_that_would_mix_branches_up_is_found_out(family: str) -> None:
    model = ARCHITECTURES[family]().train()
    assert not takes_branches(model.get_decoder(), OutputHead(model))
    assert model.training


def test_an_attention_that_takes_no_mask_is_not_tried() -> None:
    model = ARCHITECTURES["llama"]()
    model.config._attn_implementation_internal = "flash_attention_2"
    assert not takes_branches(model.get_decoder(), OutputHead(model))


def test_rows_that_leave_a_window_do_not_fit() -> None:
    windowed, free = (OutputHead(ARCHITECTURES[family]()) for family in ("mistral", "llama"))
    short = branch(pairs())
    assert short.input_ids.shape[1] <= SLIDING_WINDOW
    assert fits_window(windowed, short)
    tokens = tuple(range(1, SLIDING_WINDOW + 2))
    long = branch([(Example(tokens, tokens), Example(tokens[:3], tokens[:3]))])
    assert fits_window(free, long)
    assert not fits_window(windowed, long)
