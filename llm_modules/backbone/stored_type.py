"""Weights that are loaded in the type of their files and made wider once they are sharded.

Weights in the type of their files are pages of these, which all processes of a machine share; in a wider type each
process would hold all of them for a moment. Widening is exact, so the model is the same.
"""

import json
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor
from transformers import PreTrainedModel
from transformers.utils import CONFIG_NAME, SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME, cached_file

from llm_modules.backbone.hub import options_of
from llm_modules.backbone.loading import DType, source, without_weights

_NARROW: dict[str, DType] = {"BF16": "bfloat16", "F16": "float16"}
"""Type in a safetensors header -> its name here."""


def type_to_load(name: str, wanted: DType, revision: str | None = None, trust_remote_code: bool = False) -> DType:
    """The narrower type that all weights of a model are stored in, if they can be widened to float32; else ``wanted``.

    They cannot if the model has buffers of that type: some families (Gemma) compute them in it, rounded. Files of a hub
    that are not in the cache yet are not asked, and what cannot be read is left to the loading, which says what is
    wrong.
    """
    path, gguf_file = source(name)
    if wanted != "float32" or gguf_file:
        return wanted
    try:
        stored = _stored_type(path, revision)
    except (OSError, ValueError, KeyError, SafetensorError):
        return wanted
    if stored is None:
        return wanted
    model = without_weights(name, revision, trust_remote_code, getattr(torch, stored))
    rounded = any(buffer.is_floating_point() and buffer.dtype != torch.float32 for buffer in model.buffers())
    return wanted if rounded else stored


def widen(model: PreTrainedModel, dtype: torch.dtype) -> None:
    """Give the floating-point parameters of a Hugging Face model another type, in place; they may be sharded."""

    def to(tensor: Tensor) -> Tensor:
        return tensor.to(dtype) if tensor.is_floating_point() else tensor

    model._apply(to)
    model.config.dtype = dtype


def _stored_type(path: str, revision: str | None) -> DType | None:
    """The narrow type of all floating-point tensors that transformers would read from safetensors files; else None."""
    config = cached_file(path, CONFIG_NAME, revision=revision, **options_of(path))  # of a folder or the hub's cache
    folder = Path(str(config)).parent
    files = [folder / SAFE_WEIGHTS_NAME]
    if not files[0].is_file():
        index = json.loads((folder / SAFE_WEIGHTS_INDEX_NAME).read_bytes())
        files = [folder / file for file in sorted(set(index["weight_map"].values()))]
    floats = {kind for file in files for kind in _types(file) if "F" in kind}
    return _NARROW.get(floats.pop()) if len(floats) == 1 else None


def _types(file: Path) -> set[str]:
    """The types of a file's tensors, by their names in its header; no tensor is read."""
    with safe_open(file, framework="pt") as tensors:
        names = tensors.keys()
        return {tensors.get_slice(name).get_dtype() for name in names}
