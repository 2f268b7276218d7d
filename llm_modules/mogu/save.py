"""A MoGU as one folder: two ordinary PEFT adapters, the routers, and what they belong to. No pickle in it.

``glad/`` and ``unwilling/`` are PEFT folders; ``routers.safetensors`` has ``layers.<n>.<responder>.weight`` of folded
routers, or ``....{u,v,w}.weight`` of factored ones; ``mogu.json`` the settings, the identity of the base and checksums.
A backbone that was trained with the routers has its adapter in ``backbone/``. ``config.json`` lets transformers load
the folder where `llm_modules.mogu.serving` is imported.
"""

import hashlib
import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import PreTrainedModel

from datamodules.errors import InputError
from llm_modules import backbone
from llm_modules.mogu.adapters import WEIGHTS, read_responder, write_responder
from llm_modules.mogu.config import Mode, RouterConfig
from llm_modules.mogu.model import MoGUModel

SETTINGS, ROUTERS = "mogu.json", "routers.safetensors"
FORMAT = 1
MODEL_TYPE = "mogu"
BACKBONE = "backbone"
_RESPONDERS = ("glad", "unwilling")


@dataclass(frozen=True)
class SavedMoGU:
    """What ``mogu.json`` says.

    Attributes:
        base: Hub id, folder or ``miniature`` of the base model.
        revision: Of a hub id.
        base_fingerprint: Of the wrapped projections' weights; see `fingerprint`. Empty where they are quantised.
        router: Shape of the routers; ``d_router`` 0 where they are folded.
        mode: How the mixture takes part in generation.
        m: Tokens from the mixture.
        training: What the routers were trained with (lambda, penalty, mask), for the record.
        checksums: SHA-256 by file.
        format: Of this folder.
    """

    base: str
    revision: str | None
    base_fingerprint: str
    router: RouterConfig
    mode: Mode
    m: int
    training: dict[str, Any]
    checksums: dict[str, str]
    format: int = FORMAT


def save_mogu(
    mogu: MoGUModel,
    folder: Path,
    *,
    base: str,
    revision: str | None = None,
    training: dict[str, Any] | None = None,
    folded: bool = True,
    adapted: PeftModel | None = None,
) -> Path:
    """Write the folder.

    Args:
        mogu: With its mixtures in place; its ``mode`` and ``m`` are kept too.
        folder: Made if need be; files of these names are replaced.
        base: Name of the base model.
        revision: Of a hub id.
        training: For the record.
        adapted: The model inside of the backbone's own adapter (MoGUv2), which is written as a third PEFT folder.
        folded: Write each router as one logistic unit (the default, a thousandth of the size), or as it was trained.
    """
    for index, name in enumerate(_RESPONDERS):
        deltas = {p.path: mogu.mixtures[p.layer].responder(index)[:2] for p in mogu.projections}
        write_responder(getattr(mogu, name), deltas, folder / name)
    if adapted is not None:
        adapted.save_pretrained(str(folder / BACKBONE))
    tensors: dict[str, Tensor] = {}
    for layer, mixture in mogu.mixtures.items():
        routers = mixture.routers.folded() if folded else mixture.routers
        tensors |= {f"layers.{layer}.{k}": t.detach().cpu().contiguous() for k, t in routers.state_dict().items()}
    save_file(tensors, folder / ROUTERS, metadata={"format": "pt"})
    is_folded = folded or mogu.config.d_router == 0
    saved = SavedMoGU(
        base=base,
        revision=revision,
        base_fingerprint=fingerprint(mogu),
        router=RouterConfig(
            mogu.layers, mogu.config.target, 0 if is_folded else mogu.config.d_router, mogu.config.bias
        ),
        mode=mogu.mode,
        m=mogu.m,
        training=training or {},
        checksums={name: _sha256(folder / name) for name in _files(adapted is not None)},
    )
    (folder / SETTINGS).write_text(json.dumps(asdict(saved), indent=2) + "\n", encoding="utf-8")
    served = {"model_type": MODEL_TYPE, "architectures": ["MoGUForCausalLM"]}
    (folder / "config.json").write_text(json.dumps(served, indent=2) + "\n", encoding="utf-8")
    return folder


def read_settings(folder: Path) -> SavedMoGU:
    """What a folder says of itself.

    Raises:
        InputError: It is no MoGU, one of another format, or a file of it is missing or was changed.
    """
    path = folder / SETTINGS
    if not path.is_file():
        raise InputError(f"mogu: '{folder}' has no {SETTINGS}; make one with rod export --format mogu")
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        if unknown := set(values) ^ {field.name for field in fields(SavedMoGU)}:
            raise ValueError(f"missing or unknown: {', '.join(sorted(unknown))}")
        router = values["router"] | {"layers": tuple(values["router"]["layers"])}
        saved = SavedMoGU(**values | {"router": RouterConfig(**router)})
    except (ValueError, TypeError, KeyError) as error:
        raise InputError(f"{path}: cannot be read: {error}") from error
    if saved.format != FORMAT:
        raise InputError(f"{path}: is of format {saved.format}; this version reads format {FORMAT}")
    for name in _files(f"{BACKBONE}/{WEIGHTS}" in saved.checksums):
        if not (folder / name).is_file():
            raise InputError(f"mogu: '{folder}' has no {name}; the folder is not whole")
        if _sha256(folder / name) != saved.checksums.get(name):
            raise InputError(
                f"{folder / name}: is not the file that was saved (its checksum differs); to use other responders, "
                "train routers for them"
            )
    return saved


def load_mogu(folder: Path | str, model: PreTrainedModel | None = None, **options: Any) -> tuple[MoGUModel, SavedMoGU]:
    """A MoGU from its folder, folded if it was saved so, in evaluation mode.

    Args:
        folder: As `save_mogu` wrote it.
        model: The base model; loaded by its name by default. It may be quantised or of another type.
        options: Of `llm_modules.backbone.load_model`: ``dtype``, ``attn_implementation``, ...

    Raises:
        InputError: The folder is broken, or the model is not the base that it belongs to.
    """
    folder = Path(folder)
    saved = read_settings(folder)
    if model is None:
        model = backbone.load_model(saved.base, revision=saved.revision, **{"dtype": "auto"} | options)
    if f"{BACKBONE}/{WEIGHTS}" in saved.checksums:
        PeftModel.from_pretrained(model, folder / BACKBONE)
    responders = [read_responder(folder / name, f"mogu.{name}") for name in _RESPONDERS]
    mogu = MoGUModel(model, responders[0], responders[1], saved.router)
    found = fingerprint(mogu)
    if found and saved.base_fingerprint and found != saved.base_fingerprint:
        mogu.unload()
        raise InputError(
            f"mogu: '{folder}' belongs to the base '{saved.base}', and the weights of this model are others; load the "
            "same revision of it"
        )
    load_routers(mogu, folder / ROUTERS)
    mogu.mode, mogu.m = saved.mode, saved.m
    model.eval()
    if saved.router.d_router == 0:
        mogu.fold()
    return mogu, saved


def load_routers(mogu: MoGUModel, path: Path) -> None:
    """Put saved routers into the mixtures; every key has to be there, of the right shape, and no other.

    Raises:
        InputError: A key is missing, unknown, or of another shape.
    """
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path}: cannot be read: {error}") from error
    wanted = {f"layers.{n}.{k}": t for n, mix in mogu.mixtures.items() for k, t in mix.routers.state_dict().items()}
    missing, unknown = sorted(wanted.keys() - tensors.keys()), sorted(tensors.keys() - wanted.keys())
    if missing or unknown:
        parts = [
            f"{word}: {', '.join(keys[:3])}" for word, keys in (("missing", missing), ("unknown", unknown)) if keys
        ]
        raise InputError(
            f"{path}: its keys are not those of the routers of layers {list(mogu.layers)}; {'; '.join(parts)}"
        )
    for key, target in wanted.items():
        if tensors[key].shape != target.shape:
            shapes = f"{tuple(tensors[key].shape)}, and the model needs {tuple(target.shape)}"
            raise InputError(f"{path}: '{key}' has shape {shapes}: the routers belong to another base")
        with torch.no_grad():
            target.copy_(tensors[key])


def fingerprint(mogu: MoGUModel) -> str:
    """Of the base weights that the mixtures wrap, whatever float type they are loaded in; empty where quantised.

    A sample of each, rounded as bfloat16 rounds: checkpoints of one model in two types have one fingerprint, and a
    fine-tuned base has another.
    """
    digest = hashlib.sha256()
    for mixture in mogu.mixtures.values():
        weight = getattr(mixture.base, "weight", None)
        if not isinstance(weight, Tensor) or not weight.is_floating_point():
            return ""
        flat = weight.detach().flatten()
        sample = flat[:: max(1, len(flat) // 4096)].cpu().to(torch.bfloat16)
        digest.update(repr(tuple(weight.shape)).encode())
        digest.update(sample.view(torch.int16).numpy().tobytes())
    return digest.hexdigest()


def _files(with_backbone: bool) -> list[str]:
    adapters = (*_RESPONDERS, BACKBONE) if with_backbone else _RESPONDERS
    return [ROUTERS, *(f"{name}/{WEIGHTS}" for name in adapters)]


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
