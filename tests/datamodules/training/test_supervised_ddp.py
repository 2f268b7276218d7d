"""Two processes share the batches of an epoch, also after one of them was interrupted."""

import json
from pathlib import Path

import pytest
import torch

from tests.datamodules.training.test_supervised import (
    Data,
    KillAfter,
    Killed,
    TinyModel,
    make_examples,
    make_trainer,
    weights,
)
from tests.processes import Processes


def main(folder: Path, kill: int, ckpt_path: Path | None) -> None:
    """Train on two processes and write down what each of them saw."""
    model = TinyModel(asks_steps=True)
    trainer = make_trainer(
        folder, KillAfter(kill), strategy="ddp", devices=2, max_epochs=2, use_distributed_sampler=False
    )
    try:
        trainer.fit(model, datamodule=Data(n=43, batch_size=4), ckpt_path=ckpt_path)
    except Killed:
        pass
    else:
        torch.save(weights(model), folder / f"weights{trainer.global_rank}.pt")
    (folder / f"seen{trainer.global_rank}.json").write_text(json.dumps(model.seen))


def run(folder: Path, kill: int = -1, ckpt_path: Path | None = None) -> list[list]:
    folder.mkdir(exist_ok=True)
    Processes(main, folder, kill, ckpt_path, ranks=2, log=folder / "log.txt").succeed()
    return [json.loads((folder / f"seen{rank}.json").read_text()) for rank in (0, 1)]


@pytest.mark.slow
def test_two_processes_share_an_epoch_and_resume_inside_it(tmp_path):
    whole = run(tmp_path / "whole")
    assert [len(seen) for seen in whole] == [12, 12]
    for epoch in (0, 1):
        tokens = [t for seen in whole for e, _, ids in seen if e == epoch for t in ids if t]
        assert sorted(tokens) == sorted(t for e in make_examples(43, seed=epoch) for t in e.input_ids if t)

    part = run(tmp_path / "part", kill=8)
    rest = run(tmp_path / "part", ckpt_path=tmp_path / "part" / "step=8.ckpt")
    assert [a + b for a, b in zip(part, rest, strict=True)] == whole
    for rank in (0, 1):
        resumed, uninterrupted = (torch.load(tmp_path / f / f"weights{rank}.pt") for f in ("part", "whole"))
        assert torch.equal(resumed, uninterrupted)
