"""Two processes on the CPU: data parallel and fully sharded fits of the same run end in the same weights."""

from functools import partial
from pathlib import Path

import pytest
import torch
import yaml

from rod.__main__ import main
from tests.processes import Processes
from tests.tiny import save_tiny

ROOT = Path(__file__).resolve().parents[2]
STRATEGIES = {
    "ddp": "ddp",
    "fsdp": yaml.safe_load((ROOT / "configs/trainer/fsdp.yaml").read_text())["trainer"]["strategy"],
}


def settings(folder: Path, base: Path, strategy: object) -> dict:
    return {
        "seed_everything": 0,
        "model": {
            "class_path": "S3CoT",
            "init_args": {
                "backbone": str(base),
                "peft": {"class_path": "peft.LoraConfig", "init_args": {"r": 2, "target_modules": "all-linear"}},
                # Not Adam, which makes steps of one size of gradients that are nothing but rounding.
                "optimizer": {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.3, "momentum": 0.9}},
            },
        },
        "data": {"class_path": "tests.supervised.RandomExamples", "init_args": {"n": 16, "batch_size": 2}},
        "trainer": {
            "default_root_dir": str(folder),
            "accelerator": "cpu",
            "devices": 2,
            "strategy": strategy,
            "max_epochs": 2,
            "gradient_clip_val": 1.0,
            "log_every_n_steps": 1,
            "enable_progress_bar": False,
            "callbacks": [
                {
                    "class_path": "lightning.pytorch.callbacks.ModelCheckpoint",
                    "init_args": {"filename": "{epoch}", "save_top_k": -1},
                }
            ],
        },
    }


def rod(folder: Path, *words: object) -> None:
    """Run the command on both processes."""
    Processes(main, [str(word) for word in words], ranks=2, log=folder / "log.txt").succeed()


def state(checkpoint: Path) -> dict[str, torch.Tensor]:
    return torch.load(checkpoint, weights_only=True)["state_dict"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fit of two epochs under each strategy, and one that is resumed after the first epoch."""
    folder = tmp_path_factory.mktemp("distributed")
    base = save_tiny(folder / "base", layers=2)
    for name, strategy in STRATEGIES.items():
        config = folder / f"{name}.yaml"
        config.write_text(yaml.safe_dump(settings(folder / name, base, strategy)))
        rod(folder, "fit", "--config", config)
    first = folder / "fsdp/checkpoints/epoch=0.ckpt"
    elsewhere = ["--trainer.default_root_dir", folder / "resumed", "--ckpt_path", first]
    rod(folder, "fit", "--config", folder / "fsdp.yaml", *elsewhere)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", STRATEGIES)
def test_the_checkpoint_holds_whole_trained_parameters_only(runs: Path, name: str) -> None:
    found = state(runs / name / "checkpoints/epoch=1.ckpt")
    assert found
    assert all("lora_" in key for key in found)
    assert all(type(value) is torch.Tensor for value in found.values())
    assert any(value.any() for key, value in found.items() if "lora_B" in key), "nothing was trained"


@pytest.mark.slow
def test_sharded_training_equals_data_parallel_training(runs: Path) -> None:
    sharded, replicated = (state(runs / name / "checkpoints/epoch=1.ckpt") for name in ("fsdp", "ddp"))
    assert sharded.keys() == replicated.keys()
    for key, value in replicated.items():
        torch.testing.assert_close(sharded[key], value, atol=1e-5, rtol=1e-4, msg=partial("{}: {}".format, key))


@pytest.mark.slow
def test_a_sharded_run_resumes_to_the_same_weights(runs: Path) -> None:
    whole, resumed = (state(runs / name / "checkpoints/epoch=1.ckpt") for name in ("fsdp", "resumed"))
    for key, value in whole.items():
        torch.testing.assert_close(resumed[key], value, atol=0, rtol=0, msg=partial("{}: {}".format, key))
