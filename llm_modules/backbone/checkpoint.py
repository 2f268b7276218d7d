"""Checkpoints that hold the trained parameters only."""

from typing import Any

from lightning.pytorch import LightningModule

from datamodules.errors import InputError


class TrainableCheckpoint(LightningModule):
    """Saves the trainable parameters only (a few MB for an adapter) and checks them when it loads.

    Lightning's strict loading would also require the frozen parameters. It is off; missing and unknown keys are still
    errors.
    """

    def __init__(self) -> None:
        super().__init__()
        self.strict_loading = False

    def trainable_names(self) -> set[str]:
        """State-dict keys of the parameters that receive gradients."""
        return {name for name, parameter in self.named_parameters() if parameter.requires_grad}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Drop frozen parameters and list the trained ones; ranks other than 0 have an empty dict if sharded."""
        trainable = self.trainable_names()
        # Sharded strategies load the state themselves and hand on the other keys: the names must be among them.
        checkpoint["trained_parameters"] = sorted(trainable)
        checkpoint["state_dict"] = {k: v for k, v in checkpoint["state_dict"].items() if k in trainable}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Compare the checkpoint's parameters with those that this module trains.

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
