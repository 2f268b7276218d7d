"""Import and export steering vectors (GGUF, lm-evaluation-harness, safetensors).

All of these formats add a vector to the *output* of a decoder layer counted from 0, as this project does:
lm-evaluation-harness hooks the module ``layers.N``, repeng wraps layer N and adds to its output, and llama.cpp adds
``direction.N`` after the last residual sum of its block N. (llama.cpp's own generator stores the state after block N as
``direction.N+1``, so its vectors act one layer late wherever they are used, here too.)
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import save as to_safetensors
from torch import Tensor

from datamodules.errors import InputError
from datamodules.writing import replacing
from llm_modules.backbone.tensor_files import read_header, read_tensors
from llm_modules.s3cot.direction import HEADER, Direction, describe

Format = Literal["lm-eval", "gguf", "layers"]

_ARCHITECTURE = "controlvector"
_NAME = re.compile(r"direction\.(\d+)")


def export_vectors(direction: Direction, layers: Sequence[int], alpha: float, format: Format, path: Path) -> None:
    """Write ``alpha`` times the vectors of some layers, for use at all positions with a strength of 1.

    The product is computed in float32; the libraries themselves would multiply in the model's dtype. ``lm-eval``: a
    dictionary for the ``steered`` models of lm-evaluation-harness (.pt); ``gguf``: a control vector for llama.cpp and
    repeng; ``layers``: safetensors with a tensor ``direction.N`` per layer. InputError if the format is GGUF, and layer
    0 is among the layers or the ``gguf`` package is missing.
    """
    vectors = {layer: (alpha * direction.vectors[layer].float()).contiguous() for layer in layers}
    write = {"lm-eval": _write_lm_eval, "gguf": _write_gguf, "layers": _write_layers}[format]
    with replacing(path) as file:
        write(direction, vectors, file)


def read_direction(path: Path, layers: int | None = None) -> Direction:
    """Read a direction of this project, or vectors of another tool as `import_vectors` does."""
    return Direction.load(path) if _has_header(path) else import_vectors(path, layers)


def import_vectors(path: Path, layers: int | None = None) -> Direction:
    """Read vectors named ``direction.N`` from a GGUF control vector or a safetensors file.

    Model, anchor and statistics stay unknown. Layers without a vector get zeros; ``layers`` is the model's number of
    layers (default: up to the last vector in the file). InputError if the file holds anything else, or a vector for a
    layer that the model does not have.
    """
    tensors, hint = _read_gguf(path) if path.suffix == ".gguf" else (_read_safetensors(path), "")
    named = {int(match[1]): tensor for name, tensor in tensors.items() if (match := _NAME.fullmatch(name))}
    shapes = {tuple(tensor.shape) for tensor in named.values()}
    if not named or len(named) < len(tensors) or len(shapes) > 1 or len(next(iter(shapes))) != 1:
        raise InputError(
            f"{path}: expected a vector for each layer N, named 'direction.N'; found {describe(tensors)}. "
            "Save each vector under the name of its layer"
        )
    if layers is not None and max(named) >= layers:
        raise InputError(
            f"{path}: has a vector for layer {max(named)}; the model has layers 0-{layers - 1}. Use vectors "
            "of this model"
        )
    vectors = torch.zeros(layers or max(named) + 1, *shapes.pop())
    for layer, tensor in named.items():
        vectors[layer] = tensor.float()
    return Direction(vectors=vectors, model_type=hint, notes=f"imported from {path.name}", source=str(path))


def _write_lm_eval(direction: Direction, vectors: dict[int, Tensor], file: BinaryIO) -> None:
    steer = {
        f"{direction.layer_path}.{layer}": {
            "action": "add",
            "steering_vector": vector,
            "steering_coefficient": 1.0,
            "bias": None,
            "head_index": None,
        }
        for layer, vector in vectors.items()
    }
    torch.save(steer, file)


def _write_layers(_direction: Direction, vectors: dict[int, Tensor], file: BinaryIO) -> None:
    tensors = {f"direction.{layer}": vector for layer, vector in vectors.items()}
    file.write(to_safetensors(tensors, metadata={"format": "pt"}))


def _write_gguf(direction: Direction, vectors: dict[int, Tensor], file: BinaryIO) -> None:
    if 0 in vectors:
        raise InputError("layers: llama.cpp has no control vector for layer 0; export layers from 1 on to GGUF")
    writer = _gguf().GGUFWriter(file.name, _ARCHITECTURE)
    writer.add_string(f"{_ARCHITECTURE}.model_hint", direction.model_type or "unknown")
    writer.add_uint32(f"{_ARCHITECTURE}.layer_count", len(vectors))
    for layer, vector in vectors.items():
        writer.add_tensor(f"direction.{layer}", vector.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _read_gguf(path: Path) -> tuple[dict[str, Tensor], str]:
    gguf = _gguf()
    try:
        reader = gguf.GGUFReader(path)
    except (OSError, ValueError, IndexError) as error:
        raise InputError(f"{path}: no GGUF file can be read: {error}") from error
    architecture = _text(reader, "general.architecture")
    if architecture != _ARCHITECTURE:
        raise InputError(f"{path}: a GGUF file of architecture '{architecture}', expected a '{_ARCHITECTURE}'")
    tensors = {tensor.name: torch.from_numpy(np.array(tensor.data)) for tensor in reader.tensors}
    return tensors, _text(reader, f"{_ARCHITECTURE}.model_hint")


def _text(reader: Any, key: str) -> str:
    field = reader.get_field(key)
    return str(bytes(field.parts[field.data[0]]), "utf-8", "replace") if field is not None and field.data else ""


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return read_tensors(path)[0]
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path}: no direction can be read: {error}") from error


def _has_header(path: Path) -> bool:
    try:
        return HEADER in read_header(path)
    except (OSError, SafetensorError):
        return False


def _gguf() -> Any:
    try:
        import gguf
    except ImportError as error:
        raise InputError("format: GGUF needs the 'gguf' package; pip install 'lightning-rod[gguf]'") from error
    return gguf
