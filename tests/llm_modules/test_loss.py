"""The chunked loss is the model's own loss, for every architecture, with the same gradients."""

from functools import partial
from typing import Any

import pytest
import torch

from datamodules.batch import IGNORE_INDEX, SupervisedBatch
from llm_modules import loss as loss_module
from llm_modules.backbone.head import OutputHead
from llm_modules.loss import completion_loss, row_losses
from tests.architectures import ARCHITECTURES, VOCAB
from tests.families import tiny_model


def _batch(rows: int = 3, length: int = 9) -> SupervisedBatch:
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(3, VOCAB, (rows, length), generator=generator)
    labels = ids.clone()
    labels[:, :4] = IGNORE_INDEX
    mask = torch.ones_like(ids)
    ids[1, 6:], labels[1, 6:], mask[1, 6:] = 0, IGNORE_INDEX, 0
    return SupervisedBatch(ids, labels, mask)


@pytest.mark.parametrize("chunk_rows", [2, 1000], ids=["chunked", "whole"])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_equals_the_models_own_loss(name: str, chunk_rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loss_module, "LOGITS_BYTES", chunk_rows * 4 * VOCAB)
    batch = _batch()
    own, ours = ARCHITECTURES[name](), ARCHITECTURES[name]()
    expected = own(input_ids=batch.input_ids, attention_mask=batch.attention_mask, labels=batch.labels).loss
    expected.backward()
    head = OutputHead(ours)
    head.check()
    actual = completion_loss(ours.get_decoder(), head, batch)
    actual.backward()

    torch.testing.assert_close(actual, expected, atol=1e-5, rtol=1e-5)
    for (key, want), (_, got) in zip(own.named_parameters(), ours.named_parameters(), strict=True):
        if want.grad is None:
            assert got.grad is None or not got.grad.any(), key
        else:
            torch.testing.assert_close(got.grad, want.grad, atol=1e-5, rtol=1e-4, msg=partial("{}: {}".format, key))


@pytest.mark.parametrize("family", ["gemma2", "recurrent_gemma", "xlstm"])
def test_logits_that_a_cap_bends_are_the_models_own(family: str) -> None:
    model = tiny_model(family)
    with torch.no_grad():
        model.get_output_embeddings().weight.mul_(200)
        logits = model(input_ids=torch.arange(4)[None]).logits
    assert logits.abs().max() > 25, "next to the cap"
    OutputHead(model).check()


def test_no_more_logits_than_the_bound_exist_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    model, batch = ARCHITECTURES["llama"](), _batch()
    monkeypatch.setattr(loss_module, "LOGITS_BYTES", 4 * 4 * VOCAB)
    rows: list[int] = []
    model.get_output_embeddings().register_forward_hook(lambda _m, _i, out: rows.append(out.shape[0]))
    completion_loss(model.get_decoder(), OutputHead(model), batch).backward()
    labelled = int((batch.labels[:, 1:] != IGNORE_INDEX).sum())
    assert max(rows) == 4
    assert sum(rows) == labelled, "the head runs once over each labelled position and over nothing else"


def test_a_batch_without_labels_has_loss_zero() -> None:
    model, batch = ARCHITECTURES["llama"](), _batch()
    batch.labels[:] = IGNORE_INDEX
    loss = completion_loss(model.get_decoder(), OutputHead(model), batch)
    loss.backward()
    assert loss.item() == 0.0


def test_a_frozen_head_gets_no_gradient_and_passes_one_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loss_module, "LOGITS_BYTES", 2 * 4 * VOCAB)
    model = ARCHITECTURES["llama"]()
    model.get_output_embeddings().requires_grad_(False)
    completion_loss(model.get_decoder(), OutputHead(model), _batch()).backward()
    assert model.get_output_embeddings().weight.grad is None
    embeddings: Any = model.get_input_embeddings()
    assert embeddings.weight.grad.any()


@pytest.mark.parametrize("frozen_head", [False, True], ids=["trained_head", "frozen_head"])
@pytest.mark.parametrize("chunk_rows", [2, 1000], ids=["chunked", "whole"])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_ratio_of_rows_equals_that_of_separate_passes(
    name: str, chunk_rows: int, frozen_head: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Values and gradients of a function of the rows are those of the model's own loss, row by row."""
    monkeypatch.setattr(loss_module, "LOGITS_BYTES", chunk_rows * 4 * VOCAB)
    batch = _batch()
    assert batch.attention_mask is not None
    own, ours = ARCHITECTURES[name](), ARCHITECTURES[name]()
    for model in (own, ours):
        model.get_output_embeddings().requires_grad_(not frozen_head)
    expected = torch.stack(
        [
            own(input_ids=ids[None], attention_mask=mask[None], labels=labels[None]).loss
            for ids, mask, labels in zip(batch.input_ids, batch.attention_mask, batch.labels, strict=True)
        ]
    )
    (expected[0] / expected[1] + expected[2]).backward()
    actual = row_losses(ours.get_decoder(), OutputHead(ours), batch)
    (actual[0] / actual[1] + actual[2]).backward()

    torch.testing.assert_close(actual, expected, atol=1e-5, rtol=1e-5)
    for (key, want), (_, got) in zip(own.named_parameters(), ours.named_parameters(), strict=True):
        if want.grad is None:
            assert got.grad is None or not got.grad.any(), key
        else:
            torch.testing.assert_close(got.grad, want.grad, atol=1e-5, rtol=1e-4, msg=partial("{}: {}".format, key))


def test_rows_summed_and_rows_without_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    model, batch = ARCHITECTURES["llama"](), _batch()
    batch.labels[2] = IGNORE_INDEX
    head = OutputHead(model)
    with torch.no_grad():
        means = row_losses(model.get_decoder(), head, batch)
        sums = row_losses(model.get_decoder(), head, batch, "sum")
        whole = completion_loss(model.get_decoder(), head, batch)
        monkeypatch.setattr(loss_module, "LOGITS_BYTES", 2 * 4 * VOCAB)
        torch.testing.assert_close(row_losses(model.get_decoder(), head, batch, "sum"), sums)
    counts = (batch.labels[:, 1:] != IGNORE_INDEX).sum(dim=1)
    torch.testing.assert_close(sums, means * counts)
    torch.testing.assert_close(sums.sum() / counts.sum(), whole)
    assert means[2] == 0
    batch.labels[:] = IGNORE_INDEX
    empty = row_losses(model.get_decoder(), head, batch)
    empty.sum().backward()
    assert empty.tolist() == [0, 0, 0]


@pytest.mark.parametrize("frozen_head", [False, True], ids=["trained_head", "frozen_head"])
def test_no_more_logits_than_the_bound_exist_at_once_by_row(frozen_head: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    model, batch = ARCHITECTURES["llama"](), _batch()
    model.get_output_embeddings().requires_grad_(not frozen_head)
    monkeypatch.setattr(loss_module, "LOGITS_BYTES", 4 * 4 * VOCAB)
    rows: list[int] = []
    model.get_output_embeddings().register_forward_hook(lambda _m, _i, out: rows.append(out.shape[0]))
    row_losses(model.get_decoder(), OutputHead(model), batch).prod().backward()
    labelled = int((batch.labels[:, 1:] != IGNORE_INDEX).sum())
    assert max(rows) == 4
    assert sum(rows) == labelled * (1 if frozen_head else 2)
