"""The files of a MoGU folder: two ordinary PEFT adapters, the routers, and the settings. None of them is a pickle.

=========================== ===================================================================================
``glad/``, ``unwilling/``   PEFT folders
``routers.safetensors``     ``layers.<n>.<responder>.weight`` of folded routers, ``....{u,v,w}.weight`` of factored
``base.safetensors``        a sample of the base model's weights, to recognise it
``mogu.json``               settings and checksums
``backbone/``               adapter of a backbone that was trained with the routers (MoGUv2)
``config.json``             lets transformers load the folder after ``import llm_modules.mogu.serving``
=========================== ===================================================================================
"""

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from datamodules.errors import InputError
from llm_modules.backbone.architecture import decoder_layers
from llm_modules.backbone.checksums import WEIGHTS_SUFFIXES, check_files, check_folder, file_checksums
from llm_modules.mogu.adapters import CONFIG, WEIGHTS, write_adapter
from llm_modules.mogu.config import Mode, RouterConfig, check_mode
from llm_modules.mogu.mixed_model import MixedModel
from llm_modules.mogu.router import LogisticUnit

SETTINGS, ROUTERS, BASE = "mogu.json", "routers.safetensors", "base.safetensors"
FORMAT = 2
MODEL_TYPE = "mogu"
BACKBONE = "backbone"
SAMPLE = 64
"""Numbers of each weight in the sample of the base."""
ALIKE = 0.75
"""Share of the sample that must be the same: float16 rounds one number in sixteen differently, and a change of the
weights by half a percent moves most of them."""
_RESPONDERS = ("glad", "unwilling")


@dataclass(frozen=True)
class SavedMoGU:
    """The content of ``mogu.json``; ``checksums`` are SHA-256 by file, ``training`` is for the record."""

    base: str
    revision: str | None
    router: RouterConfig
    mode: Mode
    m: int
    training: dict[str, Any]
    checksums: dict[str, str]
    format: int = FORMAT


def write_folder(
    mixed: MixedModel,
    folder: Path,
    base: str,
    revision: str | None,
    *,
    mode: Mode,
    m: int,
    training: dict[str, Any],
    folded: bool,
) -> Path:
    """Write all files; arguments as in `llm_modules.mogu.model.MoGUModel.save_pretrained` and `SavedMoGU`."""
    for index, name in enumerate(_RESPONDERS):
        deltas = {p.path: mixed.mixtures[p.layer].responder(index)[:2] for p in mixed.projections}
        write_adapter(getattr(mixed, name), deltas, folder / name)
    if mixed.adapted is not None:
        mixed.adapted.save_pretrained(str(folder / BACKBONE))
    tensors: dict[str, Tensor] = {}
    is_shifted = any(mixture.routers.shift for mixture in mixed.mixtures.values())
    if is_shifted and not folded:
        raise InputError("mogu: shifted gates can be saved with folded routers only: the shift becomes their bias")
    for layer, mixture in mixed.mixtures.items():
        routers = mixture.routers.folded() if folded else mixture.routers
        tensors |= {f"layers.{layer}.{k}": t.detach().cpu().contiguous() for k, t in routers.state_dict().items()}
    save_file(tensors, folder / ROUTERS, metadata={"format": "pt"})
    save_file(base_sample(mixed), folder / BASE, metadata={"format": "pt"})
    is_folded = folded or all(isinstance(mixture.routers.glad, LogisticUnit) for mixture in mixed.mixtures.values())
    d_router = 0 if is_folded else mixed.config.d_router
    saved = SavedMoGU(
        base=base,
        revision=revision,
        router=RouterConfig(mixed.layers, mixed.config.target, d_router, mixed.config.bias or is_shifted),
        mode=mode,
        m=m,
        training=training,
        checksums=file_checksums(folder, _files(mixed.adapted is not None)),
    )
    (folder / SETTINGS).write_text(json.dumps(asdict(saved), indent=2) + "\n", encoding="utf-8")
    served = {"model_type": MODEL_TYPE, "architectures": ["MoGUForCausalLM"]}
    (folder / "config.json").write_text(json.dumps(served, indent=2) + "\n", encoding="utf-8")
    return folder


def read_settings(folder: Path) -> SavedMoGU:
    """Read ``mogu.json``; InputError if it is missing or of another format, or if a file is missing or was changed."""
    path = folder / SETTINGS
    if not path.is_file():
        raise InputError(f"mogu: '{folder}' has no {SETTINGS}; make one with rod export --format mogu")
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        if values.get("format") != FORMAT:
            raise InputError(f"{path}: has format {values.get('format')}; this version reads format {FORMAT}")
        if unknown := set(values) ^ {field.name for field in fields(SavedMoGU)}:
            raise ValueError(f"missing or unknown: {', '.join(sorted(unknown))}")
        router = values["router"] | {"layers": tuple(values["router"]["layers"])}
        saved = SavedMoGU(**values | {"router": RouterConfig(**router)})
    except InputError:
        raise
    except (ValueError, TypeError, KeyError) as error:
        raise InputError(f"{path}: cannot be read: {error}") from error
    check_folder(folder, "mogu", without=WEIGHTS_SUFFIXES)
    check_mode(saved.mode, saved.m, f"{path}: ")
    sums = {name: saved.checksums.get(name, "") for name in _files(has_backbone(saved))}
    check_files(folder, sums, "mogu", "copy the folder again; other responders need routers of their own")
    return saved


def has_backbone(saved: SavedMoGU) -> bool:
    """Whether the folder holds an adapter of the backbone (MoGUv2)."""
    return f"{BACKBONE}/{WEIGHTS}" in saved.checksums


def load_routers(mixed: MixedModel, path: Path) -> None:
    """Copy saved routers into the mixtures; InputError if keys or shapes differ, or numbers are not finite."""
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path}: cannot be read: {error}") from error
    wanted = {f"layers.{n}.{k}": t for n, mix in mixed.mixtures.items() for k, t in mix.routers.state_dict().items()}
    missing, unknown = sorted(wanted.keys() - tensors.keys()), sorted(tensors.keys() - wanted.keys())
    if missing or unknown:
        parts = [
            f"{word}: {', '.join(keys[:3])}" for word, keys in (("missing", missing), ("unknown", unknown)) if keys
        ]
        raise InputError(
            f"{path}: its keys are not those of the routers of layers {list(mixed.layers)}; {'; '.join(parts)}"
        )
    for key, target in wanted.items():
        if tensors[key].shape != target.shape:
            shapes = f"{tuple(tensors[key].shape)}, and the model needs {tuple(target.shape)}"
            raise InputError(f"{path}: '{key}' has shape {shapes}: the routers belong to another base")
        if not tensors[key].isfinite().all():
            raise InputError(f"{path}: '{key}' holds numbers that are not finite; train the routers again")
        with torch.no_grad():
            target.copy_(tensors[key])


def base_sample(mixed: MixedModel) -> dict[str, Tensor]:
    """Some numbers of every weight of the base (embeddings and decoder layers), rounded to bfloat16.

    Checkpoints of one model in two float types have the same sample. Quantised weights are left out.
    """
    # Only the first rows: some programs change the size of the vocabulary.
    weights = {"embeddings": cast(nn.Embedding, mixed.model.get_input_embeddings()).weight[:1000]}
    ours = {id(p) for mixture in mixed.mixtures.values() for p in (mixture.down, mixture.up)}
    ours |= {id(p) for p in mixed.router_parameters()}
    for layer, module in enumerate(decoder_layers(mixed.model)):
        for name, parameter in module.named_parameters():
            if id(parameter) not in ours and "lora_" not in name:
                plain = name.replace(".base.", ".").replace(".base_layer.", ".")
                weights[f"layers.{layer}.{plain}"] = parameter
    sample = {}
    for name, weight in weights.items():
        if weight.is_floating_point():
            flat = weight.detach().flatten()
            step = max(1, len(flat) // SAMPLE)
            sample[name] = flat[::step][:SAMPLE].cpu().to(torch.bfloat16).contiguous()
    return sample


def check_base(mixed: MixedModel, folder: Path, base: str) -> None:
    """Raise InputError if a model's weights are not those of the folder's base; quantised ones are not compared."""
    saved, found = load_file(folder / BASE), base_sample(mixed)
    for name in saved.keys() & found.keys():
        same = len(saved[name]) == len(found[name]) and (saved[name] == found[name]).float().mean() >= ALIKE
        if not same:
            raise InputError(
                f"mogu: '{folder}' belongs to the base '{base}', and the weights of this model are others ({name}); "
                "load the same revision of it"
            )


def _files(with_backbone: bool) -> list[str]:
    adapters = (*_RESPONDERS, BACKBONE) if with_backbone else _RESPONDERS
    return [ROUTERS, BASE, *(f"{name}/{file}" for name in adapters for file in (WEIGHTS, CONFIG))]
