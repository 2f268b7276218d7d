import random
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Callback, LightningModule, Trainer
from lightning.fabric.utilities.apply_func import move_data_to_device
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.plugins.precision import HalfPrecision

from datamodules.batch import IGNORE_INDEX, SupervisedBatch
from datamodules.errors import InputError
from datamodules.training.packing import Example, pad
from datamodules.training.supervised import SupervisedData

VOCABULARY = 50


def make_examples(n: int, seed: int = 0) -> list[Example]:
    rng = random.Random(seed)
    examples = []
    for _ in range(n):
        ids = tuple(rng.randrange(VOCABULARY) for _ in range(rng.randint(4, 30)))
        examples.append(Example(ids, (IGNORE_INDEX, IGNORE_INDEX, *ids[2:])))
    return examples


class Data(SupervisedData):
    def __init__(self, n: int = 44, n_val: int = 0, same_stages: bool = False, **kwargs) -> None:
        super().__init__(**kwargs)
        self.n, self.n_val, self.same_stages = n, n_val, same_stages

    def train_examples(self, stage: int) -> list[Example]:
        return make_examples(self.n, seed=0 if self.same_stages else stage)

    def val_examples(self) -> list[Example]:
        return make_examples(self.n_val, seed=99)


class TinyModel(LightningModule):
    """An embedding and a linear layer; ``asks_steps`` as schedulers with a warm-up do."""

    def __init__(self, asks_steps: bool = False, vocabulary: int = VOCABULARY) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed = torch.nn.Embedding(vocabulary, 8)
        self.head = torch.nn.Linear(8, vocabulary)
        self.asks_steps = asks_steps
        self.seen: list[tuple[int, int, tuple[int, ...]]] = []

    def loss(self, batch: SupervisedBatch) -> torch.Tensor:
        logits = self.head(self.embed(batch.input_ids))[:, :-1]
        return torch.nn.functional.cross_entropy(
            logits.flatten(0, 1), batch.labels[:, 1:].flatten(), ignore_index=IGNORE_INDEX
        )

    def training_step(self, batch: SupervisedBatch, batch_idx: int) -> torch.Tensor:
        self.seen.append((self.trainer.current_epoch, batch_idx, tuple(batch.input_ids.flatten().tolist())))
        return self.loss(batch)

    def validation_step(self, batch: SupervisedBatch, batch_idx: int) -> None:
        self.log("val/loss", self.loss(batch), batch_size=len(batch.input_ids))

    def configure_optimizers(self):
        optimizer = torch.optim.AdamW(self.parameters(), lr=1e-2)
        steps = self.trainer.estimated_stepping_batches if self.asks_steps else 40
        scheduler = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.1, total_iters=steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


class Killed(Exception):
    pass


class KillAfter(Callback):
    def __init__(self, batches: int) -> None:
        self.batches = batches

    def on_train_batch_start(self, trainer, module, batch, batch_idx) -> None:
        if trainer.fit_loop.total_batch_idx == self.batches:
            raise Killed


def make_trainer(folder: Path, *callbacks: Callback, **kwargs) -> Trainer:
    settings: dict[str, Any] = {
        "max_epochs": 3,
        "reload_dataloaders_every_n_epochs": 1,
        "accelerator": "cpu",
        "devices": 1,
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
        "default_root_dir": folder,
    }
    checkpoint = ModelCheckpoint(folder, filename="{step}", every_n_train_steps=1, save_top_k=-1)
    return Trainer(callbacks=[checkpoint, *callbacks], **(settings | kwargs))


def weights(model: torch.nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


@pytest.fixture(scope="module", params=[(1, False), (2, False), (1, True), (2, True)], ids=str)
def whole(request, tmp_path_factory) -> tuple[TinyModel, int, bool]:
    """An uninterrupted run; its accumulation of gradients; whether its optimiser asked for the number of steps."""
    accumulate, asks_steps = request.param
    model = TinyModel(asks_steps)
    trainer = make_trainer(tmp_path_factory.mktemp("whole"), accumulate_grad_batches=accumulate)
    trainer.fit(model, datamodule=Data(batch_size=4))
    return model, accumulate, asks_steps


@pytest.mark.parametrize("kill", [1, 4, 10, 11, 17, 22, 29, 32])
def test_killed_and_resumed_run_equals_an_uninterrupted_one(tmp_path, whole, kill):
    """44 examples in batches of 4: 11 batches an epoch, the last of which closes an accumulation early."""
    uninterrupted, accumulate, asks_steps = whole
    settings = {"accumulate_grad_batches": accumulate}
    assert len(uninterrupted.seen) == 33

    first = TinyModel(asks_steps)
    with pytest.raises(Killed):
        make_trainer(tmp_path, KillAfter(kill), **settings).fit(first, datamodule=Data(batch_size=4))
    checkpoints = sorted(tmp_path.glob("*.ckpt"), key=lambda path: int(path.stem.removeprefix("step=")))
    second = TinyModel(asks_steps)
    make_trainer(tmp_path / "next", **settings).fit(
        second, datamodule=Data(batch_size=4), ckpt_path=checkpoints[-1] if checkpoints else None
    )

    done = len(uninterrupted.seen) - len(second.seen)
    assert kill - accumulate < done <= kill, "what was trained on since the last checkpoint, and no more, comes again"
    assert first.seen[:done] + second.seen == uninterrupted.seen
    assert torch.equal(weights(second), weights(uninterrupted))


@pytest.mark.parametrize("kill", [5, 11, 16])
def test_resume_with_validation_and_a_limit_of_steps(tmp_path, kill):
    settings = {"max_steps": 28, "max_epochs": 3, "val_check_interval": 4}
    whole = TinyModel()
    make_trainer(tmp_path / "whole", **settings).fit(whole, datamodule=Data(batch_size=4, n_val=9))
    with pytest.raises(Killed):
        make_trainer(tmp_path / "part", KillAfter(kill), **settings).fit(
            first := TinyModel(), datamodule=Data(batch_size=4, n_val=9)
        )
    second = TinyModel()
    make_trainer(tmp_path / "part", **settings).fit(
        second, datamodule=Data(batch_size=4, n_val=9), ckpt_path=tmp_path / "part" / f"step={kill}.ckpt"
    )
    assert first.seen + second.seen == whole.seen
    assert torch.equal(weights(second), weights(whole))


def test_resume_from_the_end_of_an_epoch_begins_the_next(tmp_path):
    at_end = ModelCheckpoint(tmp_path / "ends", filename="{epoch}", save_top_k=-1, every_n_epochs=1)
    whole = TinyModel()
    make_trainer(tmp_path / "whole", at_end).fit(whole, datamodule=Data(batch_size=4))
    second = TinyModel()
    make_trainer(tmp_path / "part").fit(
        second, datamodule=Data(batch_size=4), ckpt_path=tmp_path / "ends" / "epoch=0.ckpt"
    )
    assert second.seen == whole.seen[11:]
    assert torch.equal(weights(second), weights(whole))


@pytest.mark.parametrize("changed", [{"seed": 1}, {"batch_size": 5}, {"n": 43}], ids=str)
def test_resume_in_an_epoch_that_has_changed_is_refused(tmp_path, changed):
    with pytest.raises(Killed):
        make_trainer(tmp_path, KillAfter(5)).fit(TinyModel(), datamodule=Data(batch_size=4))
    other = Data(**({"batch_size": 4} | changed))
    with pytest.raises(InputError, match=r"after 5 batches of epoch 0.*end of an epoch"):
        make_trainer(tmp_path).fit(TinyModel(), datamodule=other, ckpt_path=tmp_path / "step=5.ckpt")


def test_worker_processes_make_the_same_batches(tmp_path):
    seen = []
    for num_workers in (0, 2):
        model = TinyModel()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            make_trainer(tmp_path, max_epochs=1).fit(model, datamodule=Data(batch_size=4, num_workers=num_workers))
        seen.append(model.seen)
    assert seen[0] == seen[1]


def test_making_batches_leaves_global_randomness_alone():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    list(Data(batch_size=4).train_dataloader())
    assert torch.equal(torch.rand(3), expected)


def test_stages_have_their_own_examples_and_equal_stages_their_own_order(tmp_path):
    model = TinyModel()
    make_trainer(tmp_path, max_epochs=2).fit(model, datamodule=Data(batch_size=1, same_stages=True))
    one, two = ([ids for epoch, _, ids in model.seen if epoch == e] for e in (0, 1))
    assert one != two
    assert sorted(one) == sorted(two)
    model = TinyModel()
    make_trainer(tmp_path, max_epochs=2).fit(model, datamodule=Data(batch_size=1))
    assert sorted(ids for e, _, ids in model.seen if e == 1) == sorted(e.input_ids for e in make_examples(44, 1))


def test_epochs_need_their_own_loaders(tmp_path):
    with pytest.raises(InputError, match="reload_dataloaders_every_n_epochs: 1"):
        make_trainer(tmp_path, reload_dataloaders_every_n_epochs=0).fit(TinyModel(), datamodule=Data())


def test_validation_loss_is_that_of_all_examples(tmp_path):
    model, data = TinyModel(), Data(batch_size=4, n_val=9)
    logged = make_trainer(tmp_path).validate(model, datamodule=data, verbose=False)[0]["val/loss"]
    batches = list(data.val_dataloader())
    assert sum(len(b.input_ids) for b in batches) == 9
    expected = sum(model.loss(b).item() * len(b.input_ids) for b in batches) / 9
    assert logged == pytest.approx(expected)
    assert Data().val_dataloader() == []


def test_padding_is_right_and_ignored():
    batch = pad([Example((1, 2, 3), (IGNORE_INDEX, 2, 3)), Example((4,), (4,))], pad_id=9)
    assert batch.input_ids.tolist() == [[1, 2, 3], [4, 9, 9]]
    assert batch.labels.tolist() == [[IGNORE_INDEX, 2, 3], [4, IGNORE_INDEX, IGNORE_INDEX]]
    assert batch.attention_mask.tolist() == [[1, 1, 1], [1, 0, 0]]


def test_pad_token_of_the_tokenizer_is_used():
    class Tokenizer:
        pad_token_id = 7

    data = Data(batch_size=4)
    data.tokenizer = Tokenizer()
    batch = next(b for b in data.train_dataloader() if not b.attention_mask.all())
    assert set(batch.input_ids[batch.attention_mask == 0].tolist()) == {7}


def test_lightning_moves_and_converts_the_batch():
    batch = pad(make_examples(2))
    moved = move_data_to_device(batch, torch.device("meta"))
    assert isinstance(moved, SupervisedBatch)
    assert {t.device.type for t in (moved.input_ids, moved.labels, moved.attention_mask)} == {"meta"}
    assert moved.position_ids is None
    converted = HalfPrecision("bf16-true").convert_input(batch)
    assert torch.equal(converted.input_ids, batch.input_ids)


def test_long_and_empty_examples_are_left_out_loudly():
    class Mixed(Data):
        def train_examples(self, stage: int) -> list[Example]:
            no_target = Example((1, 2, 3), (1, IGNORE_INDEX, IGNORE_INDEX))
            return [Example((1,) * n, (1,) * n) for n in (2, 3, 9)] + [no_target]

    data = Mixed(batch_size=1, max_length=8)
    with pytest.warns(UserWarning, match=r"epoch 0: left out 2 of 4 examples \(1 longer than 8 tokens, 1 without"):
        assert len(data.train_dataloader()) == 2
    assert data.n_dropped == {"epoch 0": 2}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(data.train_dataloader()) == 2, "the same number in another epoch is not told again"
    with pytest.warns(UserWarning, match="1 longer than 5 tokens"):
        assert len(list(Mixed(max_tokens=5).train_dataloader())) == 2
    with pytest.raises(InputError, match=r"epoch 0: none of 4 examples.*data\.max_length"):
        Mixed(max_length=1).train_dataloader()


def test_batch_size_defaults_to_eight_and_excludes_a_budget():
    assert Data().batch_size == 8
    assert Data(max_tokens=100).batch_size is None
    with pytest.raises(InputError, match="exactly one"):
        Data(batch_size=8, max_tokens=100)
