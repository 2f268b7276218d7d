"""How a run is named in Weights & Biases: its group is its pipeline, and a run that goes on is the same run there."""

import os
import re
import secrets
from pathlib import Path

from lightning.fabric.utilities.rank_zero import rank_zero_only

from datamodules.writing import replacing

ID = "wandb_id"
"""File in a run folder with the id of its run."""
_STAGE = re.compile(r"\d+_")
_ours: set[str] = set()
"""Variables that an earlier run of this process has set."""


def describe(folder: Path, verb: str, anew: bool) -> None:
    """Set the environment that wandb takes name, group, type and id of the coming run from, where it is not set.

    Nothing is written before `keep`: another run may be at work in the folder.

    Args:
        folder: The run folder.
        verb: Verb of the command, the run's type.
        anew: The run replaces the one that the folder holds, so it gets an id of its own.
    """
    group, name = group_and_name(folder)
    path = folder / ID
    known = path.is_file() and not anew
    own = path.read_text(encoding="utf-8").strip() if known else secrets.token_hex(4)
    found = {"WANDB_NAME": name, "WANDB_RUN_GROUP": group, "WANDB_JOB_TYPE": verb, "WANDB_RUN_ID": own}
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
    >>> group_and_name(Path("/data/2026_11/s3cot/1_direction")), group_and_name(Path("/runs")) == (("runs",) * 2)
    (('s3cot', '1_direction'), True)
    """
    parts = [part for part in folder.parts if part not in {folder.anchor, "runs", ".", ".."}]
    if not parts:
        return (folder.resolve().name,) * 2
    last = len(parts) - 1
    # Folders above a pipeline may begin with a number, too: a stage has the last one.
    stage = next((place for place in range(last, -1, -1) if _STAGE.match(parts[place])), last)
    parts, stage = (parts[stage - 1 :], 1) if folder.is_absolute() and stage > 1 else (parts, stage)
    return "/".join(parts[:stage]) or parts[0], "/".join(parts[stage:])


@rank_zero_only
def keep(folder: Path) -> None:
    """Write the id of the run that `describe` has described into its folder, from which a run that goes on has it."""
    if "WANDB_RUN_ID" in _ours:
        with replacing(folder / ID) as file:
            file.write(os.environ["WANDB_RUN_ID"].encode())
