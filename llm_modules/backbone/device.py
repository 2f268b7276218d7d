"""Which device a verb without a trainer computes on."""

import torch

from datamodules.errors import InputError, first_line


def choose_device(name: str) -> torch.device:
    """The device of that name, for ``auto`` a GPU if there is one; InputError if there is no such device."""
    found = name if name != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
    try:
        return torch.empty(0, device=found).device
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"device: '{name}' cannot be used: {first_line(error)}") from error
