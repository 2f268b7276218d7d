"""Weights that are loaded in the type of their files and made wider once they are sharded.

Weights in the type of their files are pages of these, which all processes of a machine share; in a wider type each
process would hold all of them for a moment. Widening is exact, so the model is the same.
"""

from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel
from transformers.utils import CONFIG_NAME, cached_file

from llm_modules.backbone.loading import DType, read_config, source

_NARROW: dict[str, DType] = {"BF16": "bfloat16", "F16": "float16"}
"""Type in a safetensors header -> its name here."""


def type_to_load(name: str, wanted: DType, revision: str | None = None, trust_remote_code: bool = False) -> DType:
    """The narrower type that all weights of a model are stored in, if they can be widened to float32; else ``wanted``.

    They cannot if the model has buffers of that type: some families (Gemma) compute them in it, rounded. Files of a hub
    that are not in the cache yet are not asked.
    """
    path, gguf_file = source(name)
    if wanted != "float32" or gguf_file:
        return wanted
    stored = _stored_type(path, revision)
    if stored is None:
        return wanted
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(
            read_config(name, revision, trust_remote_code),
            dtype=getattr(torch, stored),
            trust_remote_code=trust_remote_code,
        )
    rounded = any(buffer.is_floating_point() and buffer.dtype != torch.float32 for buffer in model.buffers())
    return wanted if rounded else stored


def widen(model: PreTrainedModel, dtype: torch.dtype) -> None:
    """Give the floating-point parameters of a Hugging Face model another type, in place; they may be sharded."""

    def to(tensor: Tensor) -> Tensor:
        return tensor.to(dtype) if tensor.is_floating_point() else tensor

    model._apply(to)
    model.config.dtype = dtype


def _stored_type(path: str, revision: str | None) -> DType | None:
    """The narrow type of all floating-point tensors in a model's safetensors files; None if there is none."""
    config = Path(path, CONFIG_NAME) if Path(path).is_dir() else cached_file(path, CONFIG_NAME, revision=revision)
    files = sorted(Path(str(config)).parent.glob("*.safetensors"))
    types = set()
    for file in files:
        with safe_open(file, framework="pt") as tensors:
            types |= {tensors.get_slice(key).get_dtype() for key in tensors.keys()}  # noqa: SIM118
    floats = {kind for kind in types if "F" in kind}
    return _NARROW.get(floats.pop()) if len(floats) == 1 else None
