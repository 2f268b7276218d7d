"""Checkpoints that hold what was trained and nothing else."""

from typing import Any

from lightning.pytorch import LightningModule

from datamodules.errors import InputError


class TrainableCheckpoint(LightningModule):
    """Saves only trainable parameters (an adapter is a few MB beside its base) and checks what it loads.

    Lightning's strict loading would ask for the frozen ones as well; it is switched off and replaced by our own check,
    so that a key that is missing or unknown is still an error.
    """

    def __init__(self) -> None:
        super().__init__()
        self.strict_loading = False

    def trainable_names(self) -> set[str]:
        """State-dict keys of the parameters that receive gradients."""
        return {name for name, parameter in self.named_parameters() if parameter.requires_grad}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Drop everything that is not trained, and list what is. Ranks other than 0 hold an empty dict when sharded."""
        trainable = self.trainable_names()
        # Sharded strategies load the state by themselves and hand on the rest: the names must be there too.
        checkpoint["trained_parameters"] = sorted(trainable)
        checkpoint["state_dict"] = {k: v for k, v in checkpoint["state_dict"].items() if k in trainable}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Compare the checkpoint's keys with the parameters that this module trains.

        Raises:
            InputError: A key is missing or unexpected.
        """
        found, expected = set(checkpoint["trained_parameters"]), self.trainable_names()
        if found == expected:
            return
        missing, unexpected = sorted(expected - found), sorted(found - expected)
        parts = [
            f"{len(keys)} {word} (such as {keys[0]})"
            for word, keys in (("missing", missing), ("unexpected", unexpected))
            if keys
        ]
        raise InputError(
            f"ckpt_path: the checkpoint does not belong to this model: {' and '.join(parts)} of {len(expected)} "
            "trained parameters; use the configuration it was trained with (model.backbone, model.peft)"
        )
