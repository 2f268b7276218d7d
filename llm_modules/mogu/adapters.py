"""Responders as ordinary PEFT LoRA folders: read for the mixtures, and written so that PEFT loads them."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from datamodules.errors import InputError
from llm_modules.backbone.checksums import check_folder
from llm_modules.mogu.target import Projection

WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
_KEY = re.compile(r"(?:base_model\.model\.)?(.+)\.lora_(A|B)\.weight")
_REFUSED = {
    "use_dora": "DoRA rescales the base weights",
    "modules_to_save": "it replaces whole modules",
    "lora_bias": "its B has a bias",
    "trainable_token_indices": "it replaces embeddings",
}


@dataclass(frozen=True)
class LoRAAdapter:
    """The LoRA weights of one responder.

    Attributes:
        base: Model that it was trained on; empty if its folder does not say.
        deltas: By path of the projection: A (r, in) and B (out, r), fp32.
        source: Folder, for errors.
    """

    config: LoraConfig
    base: str
    deltas: Mapping[str, tuple[Tensor, Tensor]] = field(repr=False)
    source: str = ""

    def scale(self, path: str) -> float:
        """``alpha / r`` of one projection, by the configuration's patterns."""
        rank = len(self.deltas[path][0])
        alpha = _by_pattern(self.config.alpha_pattern, path, self.config.lora_alpha)
        return float(alpha / rank**0.5 if self.config.use_rslora else alpha / rank)

    def check_places(self, projections: Sequence[Projection], key: str) -> None:
        """Raise InputError if the adapter changes other modules than the model's output projections.

        ``key`` is the option that named the adapter, here and below.
        """
        if others := sorted(self.deltas.keys() - {p.path for p in projections}):
            raise InputError(
                f"{key}: the adapter '{self.source}' also adapts {others[0]} (one of {len(others)}), which is no "
                "attention output projection of this model and cannot be weighed by token; train it on those alone"
            )

    def of(self, projection: Projection, key: str) -> tuple[Tensor, Tensor, float]:
        """A, B and scale for a projection; InputError if the adapter has none, or of other shapes."""
        if projection.path not in self.deltas:
            others = sorted({path.rpartition(".")[2] for path in self.deltas})
            raise InputError(
                f"{key}: the adapter '{self.source}' has nothing for {projection.path}; it adapts {', '.join(others)} "
                f"in {len(self.deltas)} places. Train it on the attention output projections, or choose others with "
                "model.router.target and model.router.layers"
            )
        down, up = self.deltas[projection.path]
        if (down.shape[1], up.shape[0]) != (projection.in_features, projection.out_features):
            raise InputError(
                f"{key}: the adapter '{self.source}' maps {down.shape[1]} to {up.shape[0]} features at "
                f"{projection.path}, the model {projection.in_features} to {projection.out_features}: it belongs to "
                "another base"
            )
        return down, up, self.scale(projection.path)


def read_adapter(folder: Path | str, key: str) -> LoRAAdapter:
    """Read a PEFT LoRA folder; InputError if it is missing, its weights are a pickle, or its kind cannot be mixed."""
    folder = Path(folder)
    if not (folder / CONFIG).is_file():
        raise InputError(f"{key}: '{folder}' is no PEFT folder (no {CONFIG}); make one with rod export --format peft")
    if not (folder / WEIGHTS).is_file():
        raise InputError(f"{key}: '{folder}' has no {WEIGHTS}; pickled weights are not read, save it as safetensors")
    check_folder(folder, key)
    try:
        settings = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{key}: '{folder / CONFIG}' is not JSON: {error}") from error
    if settings.get("peft_type") != "LORA":
        raise InputError(f"{key}: '{folder}' is a {settings.get('peft_type')} adapter; a responder must be a LoRA")
    for option, why in _REFUSED.items():
        if settings.get(option):
            raise InputError(f"{key}: '{folder}' sets {option}, and {why}: it cannot be weighed by token")
    if settings.get("bias", "none") != "none":
        raise InputError(
            f"{key}: '{folder}' trains biases (bias: {settings['bias']}), which cannot be weighed by token"
        )
    config = LoraConfig(**{name: value for name, value in settings.items() if name in LoraConfig.__dataclass_fields__})
    deltas = _pairs(_tensors(folder / WEIGHTS, key), folder / WEIGHTS, key)
    return LoRAAdapter(config, str(settings.get("base_model_name_or_path") or ""), deltas, str(folder))


def write_adapter(adapter: LoRAAdapter, deltas: Mapping[str, tuple[Tensor, Tensor]], folder: Path) -> None:
    """Write ``deltas`` (A and B by path) with the configuration of an adapter as a folder that PEFT loads."""
    folder.mkdir(parents=True, exist_ok=True)
    adapter.config.base_model_name_or_path = adapter.base or None
    adapter.config.inference_mode = True
    adapter.config.save_pretrained(str(folder))
    tensors = {}
    for path, pair in deltas.items():
        for letter, tensor in zip("AB", pair, strict=True):
            tensors[f"base_model.model.{path}.lora_{letter}.weight"] = tensor.detach().cpu().contiguous()
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})


def _tensors(path: Path, key: str) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise InputError(f"{key}: '{path}' cannot be read: {error}") from error


def _pairs(tensors: dict[str, Tensor], path: Path, key: str) -> dict[str, tuple[Tensor, Tensor]]:
    sides: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        match = _KEY.fullmatch(name)
        if match is None:
            raise InputError(f"{key}: '{path}' holds '{name}', which is no A or B of a LoRA adapter")
        sides.setdefault(match[1], {})[match[2]] = tensor.float()
    for place, pair in sides.items():
        if pair.keys() != {"A", "B"} or len(pair["A"]) != pair["B"].shape[1]:
            shapes = {letter: tuple(t.shape) for letter, t in pair.items()}
            raise InputError(f"{key}: '{path}' has no matching A and B for {place}: {shapes}")
    return {place: (pair["A"], pair["B"]) for place, pair in sides.items()}


def _by_pattern(patterns: Mapping[str, Any] | None, path: str, default: float) -> float:
    for pattern, value in (patterns or {}).items():
        if re.fullmatch(rf"(.*\.)?({pattern})", path):
            return float(value)
    return float(default)


def random_adapter(projections: Sequence[Projection], r: int, alpha: float, seed: int) -> LoRAAdapter:
    """An adapter with random A and B on some projections, for tests, examples and measurements of speed."""
    generator = torch.Generator().manual_seed(seed)
    deltas = {
        p.path: (
            torch.randn(r, p.in_features, generator=generator) / p.in_features**0.5,
            torch.randn(p.out_features, r, generator=generator) / r**0.5,
        )
        for p in projections
    }
    config = LoraConfig(r=r, lora_alpha=int(alpha), target_modules=[p.path for p in projections], task_type="CAUSAL_LM")
    return LoRAAdapter(config, "", deltas, "random")
