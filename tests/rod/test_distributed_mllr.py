"""ML-LR's groups in two processes: data parallel and fully sharded runs agree, freeze, and resume."""

from functools import partial
from pathlib import Path

import pytest
import torch
import yaml

from tests.rod.test_distributed import STRATEGIES, rod, settings, state
from tests.tiny import save_tiny

RATES = {"modules": ["layers.1.*"], "policy": "modular", "ratio": 0.01}


def config(folder: Path, base: Path, strategy: object, rates: dict) -> Path:
    content = settings(folder, base, strategy)
    model = content["model"]["init_args"]
    del model["peft"]
    model["learning_rates"] = rates
    content["trainer"]["callbacks"].append({"class_path": "GroupGradientNorms"})
    path = folder.with_suffix(".yaml")
    path.write_text(yaml.safe_dump(content))
    return path


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("distributed_mllr")
    base = save_tiny(folder / "base", layers=2)
    for name, strategy in STRATEGIES.items():
        rod(folder, "fit", "--config", config(folder / name, base, strategy, RATES))
    first = folder / "fsdp/checkpoints/epoch=0.ckpt"
    elsewhere = ["--trainer.default_root_dir", folder / "resumed", "--ckpt_path", first]
    rod(folder, "fit", "--config", folder / "fsdp.yaml", *elsewhere)
    rod(folder, "fit", "--config", config(folder / "frozen", base, STRATEGIES["fsdp"], RATES | {"policy": "freeze"}))
    return folder


@pytest.mark.slow
def test_sharded_and_replicated_groups_train_alike_at_their_own_rates(runs: Path) -> None:
    sharded, replicated = (state(runs / name / "checkpoints/epoch=1.ckpt") for name in ("fsdp", "ddp"))
    assert sharded.keys() == replicated.keys()
    for key, value in replicated.items():
        torch.testing.assert_close(sharded[key], value, atol=1e-4, rtol=1e-3, msg=partial("{}: {}".format, key))
    stored = [
        torch.load(runs / name / "checkpoints/epoch=1.ckpt", weights_only=True)["parameter_groups"]
        for name in ("fsdp", "ddp")
    ]
    assert [row["name"] for row in stored[0]] == [row["name"] for row in stored[1]]
    rates = {row["name"]: row["lr"] for row in stored[0]}
    assert len(rates) == 4


@pytest.mark.slow
def test_a_sharded_run_with_groups_resumes_to_the_same_weights(runs: Path) -> None:
    whole, resumed = (state(runs / name / "checkpoints/epoch=1.ckpt") for name in ("fsdp", "resumed"))
    for key, value in whole.items():
        torch.testing.assert_close(resumed[key], value, atol=0, rtol=0, msg=partial("{}: {}".format, key))


@pytest.mark.slow
def test_frozen_modules_are_not_in_a_sharded_checkpoint(runs: Path) -> None:
    found = state(runs / "frozen/checkpoints/epoch=1.ckpt")
    assert found
    assert all(".layers.1." in key and "norm" not in key for key in found)
