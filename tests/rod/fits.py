"""A fit as a command, for tests of what happens around it."""

from pathlib import Path
from typing import Any

import yaml

from rod.__main__ import main
from tests.tiny import save_tiny


def fit_config(folder: Path, *callbacks: dict[str, Any], max_epochs: int = 2, **trainer: Any) -> Path:
    """A fit of an adapter: epochs of six batches, a validation of two batches after each, ``end.ckpt`` at the end."""
    base = folder / "base"
    settings = {
        "seed_everything": 0,
        "model": {
            "class_path": "CausalLM",
            "init_args": {
                "backbone": str(base if base.is_dir() else save_tiny(base, layers=2)),
                "peft": {
                    "class_path": "peft.LoraConfig",
                    "init_args": {"r": 2, "target_modules": "all-linear", "lora_dropout": 0.2},
                },
                "optimizer": {"class_path": "torch.optim.AdamW", "init_args": {"lr": 0.01}},
            },
        },
        "data": {"class_path": "tests.supervised.RandomExamples"},
        "trainer": {
            "default_root_dir": str(folder / "run"),
            "accelerator": "cpu",
            "max_epochs": max_epochs,
            "enable_progress_bar": False,
            "log_every_n_steps": 1,
            "callbacks": [
                *callbacks,
                {
                    "class_path": "lightning.pytorch.callbacks.ModelCheckpoint",
                    "init_args": {"filename": "end", "every_n_epochs": max_epochs},
                },
            ],
        }
        | trainer,
    }
    path = folder / "fit.yaml"
    path.write_text(yaml.safe_dump(settings))
    return path


def stop_at(folder: Path, count: int, place: str = "training batch", kind: str = "StopAt", **init: Any) -> dict:
    """The callback of `tests.rod.stopping` for a configuration."""
    stopped = str(folder / "stopped")
    return {
        "class_path": f"tests.rod.stopping.{kind}",
        "init_args": {"count": count, "stopped": stopped, "place": place, **init},
    }


def rod(*words: object) -> int:
    """Run the command in this process."""
    return main([str(word) for word in words])
