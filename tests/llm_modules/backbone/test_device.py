import pytest
import torch

from datamodules.errors import InputError
from llm_modules.backbone.device import choose_device


def test_a_device_that_is_not_there() -> None:
    assert choose_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    for name in ("cuda:99", "cpuu"):
        with pytest.raises(InputError, match=f"device: '{name}' cannot be used"):
            choose_device(name)
