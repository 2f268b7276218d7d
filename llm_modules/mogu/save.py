"""A MoGU as one folder: two ordinary PEFT adapters, the routers, and what they belong to. No pickle in it.

``glad/`` and ``unwilling/`` are PEFT folders; ``routers.safetensors`` has ``layers.<n>.<responder>.weight`` of folded
routers, or ``....{u,v,w}.weight`` of factored ones; ``base.safetensors`` a sample of the base's weights, to know it by;
``mogu.json`` the settings and checksums.
A backbone that was trained with the routers has its adapter in ``backbone/``. ``config.json`` lets transformers load
the folder where `llm_modules.mogu.serving` is imported.
"""

import hashlib
import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, cast

import torch
from peft import PeftModel
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from datamodules.errors import InputError
from llm_modules.backbone import loading as backbone
from llm_modules.backbone.architecture import decoder_layers
from llm_modules.mogu.adapters import CONFIG, WEIGHTS, read_responder, write_responder
from llm_modules.mogu.config import Mode, RouterConfig, check_mode
from llm_modules.mogu.model import MoGUModel
from llm_modules.mogu.router import LogisticUnit

SETTINGS, ROUTERS, BASE = "mogu.json", "routers.safetensors", "base.safetensors"
FORMAT = 2
MODEL_TYPE = "mogu"
BACKBONE = "backbone"
SAMPLE = 64
"""Numbers of each weight by which a base is known."""
ALIKE = 0.75
"""Share of them that has to be the same: float16 rounds one in sixteen otherwise, and a change of half a percent moves
most."""
_RESPONDERS = ("glad", "unwilling")


@dataclass(frozen=True)
class SavedMoGU:
    """What ``mogu.json`` says.

    Attributes:
        base: Hub id, folder or ``miniature`` of the base model.
        revision: Of a hub id.
        router: Shape of the routers; ``d_router`` 0 where they are folded.
        mode: How the mixture takes part in generation.
        m: Tokens from the mixture.
        training: What the routers were trained with (lambda, penalty, mask), for the record.
        checksums: SHA-256 by file.
        format: Of this folder.
    """

    base: str
    revision: str | None
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
) -> Path:
    """Write the folder.

    Args:
        mogu: With its mixtures in place; its ``mode`` and ``m`` are kept too, and an adapter of its backbone (MoGUv2)
            as a third PEFT folder.
        folder: Made if need be; files of these names are replaced.
        base: Name of the base model.
        revision: Of a hub id.
        training: For the record.
        folded: Write each router as one logistic unit (the default, a thousandth of the size), or as it was trained.
    """
    for index, name in enumerate(_RESPONDERS):
        deltas = {p.path: mogu.mixtures[p.layer].responder(index)[:2] for p in mogu.projections}
        write_responder(getattr(mogu, name), deltas, folder / name)
    if mogu.adapted is not None:
        mogu.adapted.save_pretrained(str(folder / BACKBONE))
    tensors: dict[str, Tensor] = {}
    for layer, mixture in mogu.mixtures.items():
        routers = mixture.routers.folded() if folded else mixture.routers
        tensors |= {f"layers.{layer}.{k}": t.detach().cpu().contiguous() for k, t in routers.state_dict().items()}
    save_file(tensors, folder / ROUTERS, metadata={"format": "pt"})
    save_file(base_sample(mogu), folder / BASE, metadata={"format": "pt"})
    is_folded = all(isinstance(mixture.routers.glad, LogisticUnit) for mixture in mogu.mixtures.values()) or folded
    saved = SavedMoGU(
        base=base,
        revision=revision,
        router=RouterConfig(
            mogu.layers, mogu.config.target, 0 if is_folded else mogu.config.d_router, mogu.config.bias
        ),
        mode=mogu.mode,
        m=mogu.m,
        training=training or {},
        checksums={name: _sha256(folder / name) for name in _files(mogu.adapted is not None)},
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
        if values.get("format") != FORMAT:
            raise InputError(f"{path}: is of format {values.get('format')}; this version reads format {FORMAT}")
        if unknown := set(values) ^ {field.name for field in fields(SavedMoGU)}:
            raise ValueError(f"missing or unknown: {', '.join(sorted(unknown))}")
        router = values["router"] | {"layers": tuple(values["router"]["layers"])}
        saved = SavedMoGU(**values | {"router": RouterConfig(**router)})
    except (ValueError, TypeError, KeyError) as error:
        raise InputError(f"{path}: cannot be read: {error}") from error
    check_mode(saved.mode, saved.m, f"{path}: ")
    for name in _files(f"{BACKBONE}/{WEIGHTS}" in saved.checksums):
        if not (folder / name).is_file():
            raise InputError(f"mogu: '{folder}' has no {name}; the folder is not whole")
        if _sha256(folder / name) != saved.checksums.get(name):
            raise InputError(
                f"{folder / name}: is not the file that was saved (its checksum differs); to use other responders, "
                "train routers for them"
            )
    return saved


def load_mogu(
    folder: Path | str, model: PreTrainedModel | None = None, *, base: str | None = None, **options: Any
) -> tuple[MoGUModel, SavedMoGU]:
    """A MoGU from its folder, folded if it was saved so, in evaluation mode.

    Args:
        folder: As `save_mogu` wrote it.
        model: The base model; loaded by its name by default. It may be quantised or of another type.
        base: Where the base model is now, if not where it was.
        options: Of `llm_modules.backbone.loading.load_model`: ``dtype``, ``attn_implementation``, ...

    Raises:
        InputError: The folder is broken, or the model is not the base that it belongs to.
    """
    folder = Path(folder)
    saved = read_settings(folder)
    responders = [read_responder(folder / name, f"mogu.{name}") for name in _RESPONDERS]
    if model is None:
        options = {"dtype": "auto", "revision": saved.revision} | options
        try:
            model = backbone.load_model(base or saved.base, **options)
        except InputError as error:
            raise InputError(
                f"mogu: the base model of '{folder}' cannot be loaded; if it has moved, say base='...' or give the "
                f"model itself: MoGUModel.from_pretrained(folder, model): {error}"
            ) from error
    adapted = None
    if f"{BACKBONE}/{WEIGHTS}" in saved.checksums:
        adapted = PeftModel.from_pretrained(model, folder / BACKBONE)
    mogu = MoGUModel(model, responders[0], responders[1], saved.router, adapted)
    try:
        check_base(mogu, folder, saved.base)
        load_routers(mogu, folder / ROUTERS)
    except InputError:
        mogu.unload()
        raise
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
        if not tensors[key].isfinite().all():
            raise InputError(f"{path}: '{key}' holds numbers that are not finite; train the routers again")
        with torch.no_grad():
            target.copy_(tensors[key])


def base_sample(mogu: MoGUModel) -> dict[str, Tensor]:
    """Some numbers of every weight of the base, rounded as bfloat16 rounds: of its embeddings and its decoder layers.

    Checkpoints of one model in two float types have the same. What is quantised is left out.
    """
    # The first rows alone: some change the size of the vocabulary.
    weights = {"embeddings": cast(nn.Embedding, mogu.model.get_input_embeddings()).weight[:1000]}
    ours = {id(p) for mixture in mogu.mixtures.values() for p in (mixture.down, mixture.up)}
    ours |= {id(p) for p in mogu.router_parameters()}
    for layer, module in enumerate(decoder_layers(mogu.model)):
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


def check_base(mogu: MoGUModel, folder: Path, base: str) -> None:
    """Check that a model is the base that a folder belongs to, as far as its weights are not quantised.

    Raises:
        InputError: Its weights are others.
    """
    saved, found = load_file(folder / BASE), base_sample(mogu)
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


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
