import json
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from datamodules.errors import InputError
from datamodules.prompts.chat_template import SYSTEM1_SUFFIX, SYSTEM2_SUFFIX
from datamodules.prompts.contrast_data import ContrastBatches, ContrastData
from tests.tiny import tiny_tokenizer

TOKENIZER = tiny_tokenizer()


def make_data(folder: Path, n: int = 10, **settings: Any) -> ContrastData:
    path = folder / "q.jsonl"
    path.write_text("\n".join(json.dumps({"id": f"q{i}", "question": f"{'9' * i}+1?"}) for i in range(n)))
    data = ContrastData(questions=path, **settings)
    data.tokenizer = TOKENIZER
    data.setup("predict")
    return data


def text(ids: torch.Tensor, mask: torch.Tensor) -> str:
    assert mask.tolist() == sorted(mask.tolist())  # padding on the left only
    return str(TOKENIZER.decode(ids[mask.bool()]))


def test_pairs_by_hand(tmp_path: Path) -> None:
    data = make_data(tmp_path, limit=3, batch_size=2)
    first, second = data.predict_dataloader()
    assert first.ids + second.ids == ("q0", "q1", "q2")
    long = text(second.positive_ids[-1], second.positive_mask[-1])
    short = text(second.negative_ids[-1], second.negative_mask[-1])
    assert long == f"<|im_start|>user\n99+1?{SYSTEM2_SUFFIX}<|im_end|>\n<|im_start|>assistant\n"
    assert short == long.replace(SYSTEM2_SUFFIX, SYSTEM1_SUFFIX)


def test_all_rows_end_with_their_prompts_last_token(tmp_path: Path) -> None:
    batch = next(iter(make_data(tmp_path).predict_dataloader()))
    assert batch.positive_mask[:, -1].all()
    assert (batch.positive_ids[:, -1] == batch.positive_ids[0, -1]).all()
    assert batch.positive_ids.shape == batch.positive_mask.shape == (10, batch.positive_mask.sum(1).max())


def test_a_contrast_file(tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_text(json.dumps({"positive": "Bad?", "negative": "Good?", "system_positive": "No."}))
    data = ContrastData(contrast_file=path)
    data.tokenizer = TOKENIZER
    data.setup("predict")
    (batch,) = data.predict_dataloader()
    assert text(batch.positive_ids[0], batch.positive_mask[0]).startswith("<|im_start|>system\nNo.<|im_end|>\n")
    assert text(batch.negative_ids[0], batch.negative_mask[0]).startswith("<|im_start|>user\nGood?")


@pytest.mark.parametrize("world_size", [1, 2, 3, 4])
@pytest.mark.parametrize("batch_size", [1, 2, 3, 16])
@pytest.mark.parametrize("n", [4, 7, 10])
def test_each_pair_once_and_no_rank_with_fewer_batches(
    tmp_path: Path, n: int, batch_size: int, world_size: int
) -> None:
    data = make_data(tmp_path, n, batch_size=batch_size)
    shares = [ContrastBatches(data, rank, world_size) for rank in range(world_size)]
    assert len({len(share) for share in shares}) == 1
    batches = [batch for share in shares for batch in share.batches]
    assert all(0 < len(batch) <= batch_size + 1 for batch in batches)
    assert Counter(pair.id for batch in batches for pair in batch) == Counter(pair.id for pair in data.pairs)


def test_data_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"either data\.questions or data\.contrast_file"):
        ContrastData().setup("predict")
    with pytest.raises(InputError, match="the same; their direction would be zero"):
        make_data(tmp_path, positive="", negative="")
    with pytest.raises(InputError, match="batch_size"):
        make_data(tmp_path, batch_size=0)
    path = tmp_path / "pairs.jsonl"
    path.write_text(json.dumps({"positive": "Bad?"}))
    data = ContrastData(contrast_file=path)
    data.tokenizer = TOKENIZER
    with pytest.raises(InputError, match="negative"):
        data.setup("predict")


def test_prompts_longer_than_the_positions_of_the_model_are_refused(tmp_path: Path) -> None:
    data = make_data(tmp_path)
    data.pairs, module = [], SimpleNamespace(max_positions=110)
    trainer: Any = SimpleNamespace(lightning_module=module, default_root_dir=str(tmp_path), strategy=SimpleNamespace())
    data.trainer = trainer
    with pytest.raises(InputError, match=r"q\.jsonl: 'q\d' has \d+ tokens as a prompt.*, the model 110 positions"):
        data.setup("predict")
    module.max_positions = 500
    data.setup("predict")
