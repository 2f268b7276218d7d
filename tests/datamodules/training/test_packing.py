import itertools
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from datamodules.batch import IGNORE_INDEX
from datamodules.mogu.branching import branch
from datamodules.training.packing import Example, pack, pad
from tests.datamodules.training.test_supervised import VOCABULARY, Data, make_examples


@pytest.fixture(scope="module", params=["sdpa", "eager"])
def llama(request) -> LlamaForCausalLM:
    torch.manual_seed(0)
    options: dict[str, Any] = {"attn_implementation": request.param}
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        initializer_range=0.3,
        **options,
    )
    return LlamaForCausalLM(config).eval()


def test_packed_documents_do_not_see_each_other(llama):
    examples = [*make_examples(4), Example((7,), (7,)), *make_examples(2, seed=1)]
    alone = torch.cat([llama(torch.tensor([e.input_ids])).logits[0] for e in examples])
    batch = pack(examples)
    packed = llama(batch.input_ids, position_ids=batch.position_ids, use_cache=False).logits[0]
    torch.testing.assert_close(packed, alone, atol=1e-4, rtol=0)
    # What the docstring warns of is real: these two leak.
    leaky = llama(batch.input_ids, position_ids=batch.position_ids).logits[0]
    assert (leaky - alone).abs().max() > 0.1
    ones = torch.ones_like(batch.input_ids)
    leaky = llama(batch.input_ids, attention_mask=ones, position_ids=batch.position_ids, use_cache=False).logits[0]
    assert (leaky - alone).abs().max() > 0.1


def test_packed_loss_is_the_padded_loss(llama):
    """Also where a document's first label is a target: nothing may predict it from the document before."""
    examples = [Example(e.input_ids, e.input_ids) for e in make_examples(5)]
    losses = []
    for batch in (pack(examples), pad(examples)):
        logits = llama(
            batch.input_ids, attention_mask=batch.attention_mask, position_ids=batch.position_ids, use_cache=False
        ).logits
        losses.append(
            torch.nn.functional.cross_entropy(
                logits[:, :-1].flatten(0, 1), batch.labels[:, 1:].flatten(), ignore_index=IGNORE_INDEX
            )
        )
    torch.testing.assert_close(losses[0], losses[1])


def test_rows_are_filled_and_hold_every_document_whole():
    data = Data(n=200, max_tokens=64, packing=True)
    batches = list(data.train_dataloader())
    assert {b.input_ids.shape[0] for b in batches} == {1}
    assert max(b.input_ids.shape[1] for b in batches) <= 64
    assert sum(b.input_ids.shape[1] for b in batches) > 0.95 * 64 * len(batches)
    documents = []
    for batch in batches:
        assert batch.attention_mask is None
        starts = [*(batch.position_ids[0] == 0).nonzero().flatten().tolist(), batch.input_ids.shape[1]]
        documents += [tuple(batch.input_ids[0, a:b].tolist()) for a, b in itertools.pairwise(starts)]
        assert (batch.labels[0, starts[:-1]] == IGNORE_INDEX).all()
    assert sorted(documents) == sorted(e.input_ids for e in make_examples(200))


def test_what_a_pair_has_in_common_is_there_once():
    ignored = IGNORE_INDEX
    one, other = Example((5, 6, 7, 8), (ignored, ignored, 7, 8)), Example((5, 6, 9), (ignored, ignored, 9))
    short = Example((5, 6), (ignored, 6))
    batch = branch([(one, other), (short, Example((5, 6, 4), (ignored, 6, 4)))], pad_id=1)
    assert batch.input_ids.tolist() == [[5, 6, 7, 8, 9], [5, 6, 4, 1, 1]]
    assert batch.position_ids.tolist() == [[0, 1, 2, 3, 2], [0, 1, 2, 0, 0]]
    assert batch.branch.tolist() == [[0, 0, 1, 1, 2], [0, 0, 2, -1, -1]]
    # Rows: first of the first pair, first of the second, then the others.
    assert batch.targets.tolist() == [[7, 8], [6, ignored], [9, ignored], [6, 4]]
    assert batch.predictors.tolist() == [[1, 2], [0, 0], [1, 0], [0, 1]]
