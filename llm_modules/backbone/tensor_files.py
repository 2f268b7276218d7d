"""Files of tensors (safetensors): what is in them, and a checksum for their header."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

CHECKSUM = "sha256"
"""Key of the checksum in a header."""


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors of a file and the texts of its header; ``OSError`` or ``SafetensorError`` if it cannot be read."""
    return load_file(path), read_header(path)


def read_header(path: Path) -> dict[str, str]:
    """The texts of a file's header; errors as of `read_tensors`."""
    with safe_open(path, framework="pt") as file:
        return file.metadata() or {}


def tensors_checksum(tensors: Mapping[str, Tensor], text: str = "") -> str:
    """The SHA-256 of tensors with their names, types and shapes, and of a text that belongs to them."""
    digest = hashlib.sha256(text.encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"\0{name} {tensor.dtype} {tuple(tensor.shape)}\0".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
