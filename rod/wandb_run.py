"""How a run is named in Weights & Biases: its group is its pipeline, and a run that goes on is the same run there."""

import os
import re
import secrets
from pathlib import Path

from lightning.fabric.utilities.rank_zero import rank_zero_only

ID = "wandb_id"
"""File in a run folder with the id of its run."""
_STAGE = re.compile(r"\d+_")
_ours: set[str] = set()
"""Variables that an earlier run of this process has set."""


def describe(folder: Path, verb: str, anew: bool) -> None:
    """Set the environment that wandb takes name, group, type and id of the coming run from, where it is not set.

    Args:
        folder: The run folder.
        verb: Verb of the command, the run's type.
        anew: The run replaces the one that the folder holds, so it gets an id of its own.
    """
    group, name = group_and_name(folder)
    found = {"WANDB_NAME": name, "WANDB_RUN_GROUP": group, "WANDB_JOB_TYPE": verb, "WANDB_RUN_ID": _id(folder, anew)}
    for key, value in found.items():
        if key not in os.environ or key in _ours:
            os.environ[key] = value
            _ours.add(key)


def group_and_name(folder: Path) -> tuple[str, str]:
    """The pipeline, and the stage with what follows it.

    >>> group_and_name(Path("runs/s3cot/6_test/tuned")), group_and_name(Path("runs/demo/seed0/runs/mllr/2_tune"))
    (('s3cot', '6_test/tuned'), ('demo/seed0/mllr', '2_tune'))
    >>> group_and_name(Path("runs/chats")), group_and_name(Path("/data/models/chats/lora"))
    (('chats', 'chats'), ('chats', 'lora'))
    """
    parts = [part for part in folder.parts if part not in {folder.anchor, "runs", ".", ".."}]
    stage = next((place for place, part in enumerate(parts) if _STAGE.match(part)), len(parts) - 1)
    parts, stage = (parts[stage - 1 :], 1) if folder.is_absolute() and stage > 1 else (parts, stage)
    return "/".join(parts[:stage]) or parts[0], "/".join(parts[stage:])


def _id(folder: Path, anew: bool) -> str:
    path = folder / ID
    if path.is_file() and not anew:
        return path.read_text(encoding="utf-8").strip()
    found = secrets.token_hex(4)
    _write(path, found)
    return found


@rank_zero_only
def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
