"""Checkpoints that hold the trained parameters only, and their files."""

import zipfile
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.fabric.utilities.cloud_io import get_filesystem
from lightning.fabric.utilities.load import _METADATA_FILENAME
from lightning.pytorch import LightningModule
from lightning.pytorch.strategies import ModelParallelStrategy
from torch import Tensor
from torch.distributed.checkpoint import FileSystemReader
from torch.distributed.checkpoint.default_planner import _EmptyStateDictLoadPlanner
from torch.distributed.checkpoint.state_dict_loader import _load_state_dict

from datamodules.errors import InputError
from datamodules.writing import replacing

_WEIGHTS = "state_dict"
"""Key of the weights in a checkpoint."""


class CheckpointFiles(TorchCheckpointIO):
    """Writes each checkpoint beside its place, flushes it to the disk and renames it; reads tensors and plain values.

    Lightning's own way copies the bytes from the system's folder for temporary files, if that is on another disk.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Write a checkpoint as a whole or not at all; addresses such as ``s3://`` are left to Lightning."""
        if "://" in str(path):
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        with replacing(Path(path)) as file:
            torch.save(checkpoint, file)

    def load_checkpoint(
        self, path: str | Path, map_location: Any = "cpu", weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Read a checkpoint; objects of other types than tensors and plain values only if ``weights_only`` is False."""
        content: dict[str, Any] = super().load_checkpoint(path, map_location, weights_only is not False)
        return content


def is_distributed(path: Path) -> bool:
    """Whether a path is a folder of a distributed checkpoint, which a sharded strategy has written."""
    return (path / _METADATA_FILENAME).is_file()


def keys_file(path: Path) -> Path:
    """The file of a checkpoint that holds everything but the weights of a distributed one."""
    return path / _METADATA_FILENAME if is_distributed(path) else path


def read_checkpoint(path: Path) -> dict[str, Any]:
    """A checkpoint on the CPU, as pages of its file, which take no memory that is needed.

    Of a distributed one, without the states of optimisers; torch reads its index with pickle.
    """
    content: dict[str, Any] = torch.load(keys_file(path), weights_only=True, map_location="cpu", mmap=True)
    if is_distributed(path):
        weights: dict[str, Any] = {}
        planner = _EmptyStateDictLoadPlanner(keys={_WEIGHTS})
        _load_state_dict(weights, storage_reader=FileSystemReader(path), planner=planner, no_dist=True)
        content |= weights
    return content


def check_checkpoint(path: Path | str, key: str = "ckpt_path") -> set[str]:
    """The keys of a checkpoint, once it is known to be whole: every part of its archive has a checksum.

    Of a distributed checkpoint the file of its keys is checked, and not its weights. A checkpoint at an address such as
    ``s3://`` has to be there; its keys are not read. InputError, with the option ``key`` that named it, if it is
    missing, empty, cut or damaged, holds objects that could run code, or is something else.
    """
    if "://" in str(path):
        _find(str(path), key)
        return set()
    path = keys_file(Path(path))
    if path.is_dir():
        hints = {"adapter_config.json": "model.adapter", "config.json": "model.backbone"}
        other = next((option for name, option in hints.items() if (path / name).is_file()), None)
        remedy = f"give it as {other}" if other else "give the .ckpt file in it"
        raise InputError(f"{key}: '{path}' is a folder and no checkpoint; {remedy}")
    if not path.is_file():
        raise InputError(f"{key}: there is no file '{path}'")
    if path.stat().st_size == 0:
        raise InputError(f"{key}: '{path}' is empty; {_ANOTHER}")
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
        keys = set() if damaged else set(torch.load(path, map_location="cpu", mmap=True, weights_only=True))
    except UnpicklingError as error:
        raise InputError(
            f"{key}: '{path}' holds more than tensors and plain values, and could run code; {_ANOTHER}"
        ) from error
    except _UNREADABLE as error:
        raise InputError(f"{key}: '{path}' is cut, damaged or no checkpoint ({error}); {_ANOTHER}") from error
    if damaged:
        raise InputError(f"{key}: '{path}' is damaged (the checksum of {damaged} differs); {_ANOTHER}")
    if TRAINED not in keys:
        raise InputError(f"{key}: '{path}' {_FOREIGN}; {_ANOTHER}")
    return keys


def _find(address: str, key: str) -> None:
    try:
        found = get_filesystem(address).exists(address)
    except Exception as error:  # of the storage's own library, which may be missing
        raise InputError(f"{key}: '{address}' cannot be reached ({error})") from error
    if not found:
        raise InputError(f"{key}: there is no file '{address}'")


_UNREADABLE = (zipfile.BadZipFile, OSError, EOFError, RuntimeError, TypeError, ValueError)
"""What ``zipfile`` and ``torch.load`` raise of damaged bytes: a flipped bit may ask for a compression that ``zipfile``
does not know or for a password (both RuntimeError), or for an object that is no mapping (TypeError)."""
_ANOTHER = "give another checkpoint of the run, or delete this one"
_SAME = (
    "use the configuration it was trained with (model.backbone, model.peft, model.learning_rates), or write it as a "
    "model with rod export and give that folder as model.backbone, without a checkpoint"
)
TRAINED = "trained_parameters"
"""Key of a checkpoint: the names of the parameters that were trained."""
_FOREIGN = f"is a checkpoint of another project, or none of a run (it has no {TRAINED})"


class TrainableCheckpoint(LightningModule):
    """Saves the trainable parameters only (a few MB for an adapter) and checks them when it loads.

    Lightning's strict loading, which would require the frozen ones too, is off.
    """

    def __init__(self) -> None:
        super().__init__()
        self.strict_loading = False

    def trainable_names(self) -> set[str]:
        """State-dict keys of the parameters that receive gradients."""
        return {name for name, parameter in self.named_parameters() if parameter.requires_grad}

    def on_fit_start(self) -> None:
        """Refuse distributed checkpoints of a part of the model.

        InputError if the strategy would write them, and torch could not read them back.
        """
        strategy = self.trainer.strategy
        distributed = isinstance(strategy, ModelParallelStrategy) and strategy._save_distributed_checkpoint
        if distributed and any(not parameter.requires_grad for parameter in self.parameters()):
            raise InputError(
                "trainer.strategy.save_distributed_checkpoint: checkpoints hold what is trained, and a distributed one "
                "of a part of the model cannot be read back; set it to false"
            )

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Drop frozen parameters and list the trained ones; ranks other than 0 have an empty dict if sharded."""
        trainable = self.trainable_names()
        # Sharded strategies load the state themselves and hand on the other keys: the names must be among them.
        checkpoint[TRAINED] = sorted(trainable)
        checkpoint["state_dict"] = {k: v for k, v in checkpoint["state_dict"].items() if k in trainable}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Compare the checkpoint's parameters with those that this module trains.

        InputError if a key is missing or unexpected, or a weight has another size or is not finite.
        """
        if TRAINED not in checkpoint:
            raise InputError(f"ckpt_path: it {_FOREIGN}; {_ANOTHER}")
        found, expected = set(checkpoint[TRAINED]), self.trainable_names()
        if found == expected:
            self._check_values(checkpoint.get("state_dict", {}))
            return
        missing, unexpected = sorted(expected - found), sorted(found - expected)
        parts = [
            f"{len(keys)} {word} (such as {keys[0]})"
            for word, keys in (("missing", missing), ("unexpected", unexpected))
            if keys
        ]
        raise InputError(
            f"ckpt_path: the checkpoint does not belong to this model: {' and '.join(parts)} of {len(expected)} "
            f"trained parameters; {_SAME}"
        )

    def _check_values(self, weights: dict[str, Tensor]) -> None:
        """Compare the sizes; sharded strategies, which load the weights themselves, hand on none."""
        own = dict(self.named_parameters())
        for name in sorted(weights.keys() & own.keys()):
            if weights[name].shape != own[name].shape:
                raise InputError(
                    f"ckpt_path: {name} has the size {tuple(weights[name].shape)} in the checkpoint and "
                    f"{tuple(own[name].shape)} in the model; {_SAME}"
                )
            if not weights[name].isfinite().all():
                raise InputError(f"ckpt_path: {name} holds numbers that are not finite; {_ANOTHER}")
