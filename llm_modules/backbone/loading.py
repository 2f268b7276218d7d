"""Load models and tokenizers: hub id, local folder, GGUF file, or the embedded ``miniature``."""

import copy
import os
import struct
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, get_args

import torch
import transformers
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import CONFIG_NAME, GENERATION_CONFIG_NAME, cached_file

from datamodules.errors import InputError, first_line
from llm_modules.backbone.checksums import WEIGHTS_SUFFIXES, check_folder, sample
from llm_modules.backbone.hub import options_of, without_hub
from llm_modules.backbone.model_files import check_settings, check_weights
from llm_modules.backbone.quantization import Quantization, quantization_config

MINIATURE = Path(__file__).parents[1] / "miniature"
"""The embedded model; every method can be trained and measured with it on a laptop."""

_UNREADABLE = (OSError, ValueError, KeyError, IndexError, ImportError, SafetensorError, struct.error)
"""What transformers raises for checkpoints that are absent, broken, or need another library."""

BACKBONE = "model.backbone"
"""The option that names a model, unless a caller says otherwise."""
DType = Literal["auto", "float32", "bfloat16", "float16"]


def resolve(name: str) -> str:
    """The folder of ``miniature``; any other name unchanged, but for the ``~`` of a home folder."""
    return str(MINIATURE) if name == "miniature" else os.path.expanduser(name)


def model_id(name: str) -> str:
    """Name of a model in records and files: hub id, ``miniature``, or the absolute path of a folder or file."""
    path = Path(os.path.expanduser(name))
    return str(path.resolve()) if path.exists() else name


def source(name: str) -> tuple[str, dict[str, Any]]:
    """First argument and further ones of ``from_pretrained``: a GGUF file is a file of a folder or a hub repository."""
    path = resolve(name)
    if not path.endswith(".gguf"):
        return path, {}
    folder, _, file = path.rpartition("/")
    return folder or ".", {"gguf_file": file}


def load_tokenizer(
    name: str, revision: str | None = None, trust_remote_code: bool = False, *, key: str = BACKBONE
) -> PreTrainedTokenizerBase:
    """The tokenizer of a hub id or folder; InputError, with the option ``key``, if it is missing or unreadable."""
    require_model(name, "tokenizer_config.json", "tokenizer.json", "tokenizer.model", key=key)
    path, more = source(name)
    check_folder(path, key, without=WEIGHTS_SUFFIXES)
    more |= options_of(path)
    try:
        return AutoTokenizer.from_pretrained(path, revision=revision, trust_remote_code=trust_remote_code, **more)
    except _UNREADABLE as error:
        raise InputError(_unreadable(name, path, error, key, "no tokenizer can be loaded from")) from error


def read_config(
    name: str, revision: str | None = None, trust_remote_code: bool = False, *, key: str = BACKBONE
) -> PreTrainedConfig:
    """The configuration of a model; InputError, with the option ``key``, if it is missing or unreadable."""
    require_model(name, key=key)
    path, file = source(name)
    stored, local = Path(path, *file.values()), options_of(path)
    try:
        if file and stored.is_file():
            return copy.deepcopy(_gguf_config(path, stored.name, stored.stat().st_mtime_ns))
        return AutoConfig.from_pretrained(path, revision=revision, trust_remote_code=trust_remote_code, **file, **local)
    except _UNREADABLE as error:
        raise InputError(_unreadable(name, path, error, key)) from error


@lru_cache(maxsize=4)
def _gguf_config(folder: str, file: str, changed: int) -> PreTrainedConfig:
    """Of a file as it was at a time: a large vocabulary, which stands before the settings, takes long to read."""
    return AutoConfig.from_pretrained(folder, gguf_file=file)


def max_positions(name: str, revision: str | None = None, trust_remote_code: bool = False) -> int | None:
    """Longest input in tokens by the model's configuration; None if it has no limit there.

    InputError if the checkpoint is absent or unreadable.
    """
    config = read_config(name, revision, trust_remote_code)
    return getattr(config.get_text_config(), "max_position_embeddings", None)


def same_checkpoint(one: str, other: str) -> bool:
    """Whether two names mean the same model, without loading it.

    For two folders, samples of all weight files are compared; otherwise the last parts of the names, because a folder
    may have moved and a hub id may have been downloaded.
    """
    paths = [Path(resolve(name)).resolve() for name in (one, other)]
    if one == other or paths[0] == paths[1]:
        return True
    if not all(path.is_dir() for path in paths):
        return paths[0].name == paths[1].name
    files = [{file.name: file for file in path.glob("*.safetensors")} for path in paths]
    return (
        bool(files[0])
        and files[0].keys() == files[1].keys()
        and all(sample(file) == sample(files[1][name]) for name, file in files[0].items())
    )


def check_dtype(dtype: object) -> None:
    """Raise InputError if a type of weights is neither one of `DType` nor torch's own."""
    if dtype not in get_args(DType) and not isinstance(dtype, torch.dtype):
        raise InputError(f"model.dtype: '{dtype}' is none of {', '.join(get_args(DType))}")


def load_model(
    name: str,
    *,
    revision: str | None = None,
    dtype: DType | torch.dtype = "float32",
    attn_implementation: str | None = None,
    trust_remote_code: bool = False,
    random_weights: bool = False,
    quantization: Quantization | None = None,
    key: str = BACKBONE,
    **options: Any,
) -> PreTrainedModel:
    """A causal language model in training mode, on the CPU unless an option says otherwise; frozen if quantised.

    Args:
        name: Hub id, folder, GGUF file (dequantised) or ``miniature``.
        revision: Branch, tag or commit of a hub id.
        dtype: Type of the weights; ``auto`` is the checkpoint's. To train in bf16, load float32 and set the trainer's
            precision.
        attn_implementation: ``sdpa``, ``eager``, ``flash_attention_2``; transformers chooses if it is None.
        trust_remote_code: Run code that comes with the checkpoint.
        random_weights: Build the model from its configuration, with weights from torch's generator.
        quantization: ``4bit``, ``8bit``, or a quantisation configuration of transformers.
        key: The option that names the model, for errors.
        options: Further options of ``from_pretrained`` (``device_map``, ...).

    Raises:
        InputError: The checkpoint is absent or unreadable, or cannot be quantised; or there is no such type.
    """
    check_dtype(dtype)
    require_model(name, key=key)
    path, file = source(name)
    if not file:
        check_folder(path, key)
        check_settings(Path(path), key)
    local = options_of(path)
    if quantization is not None:
        if random_weights:
            raise InputError("model.quantization: random weights are not quantised; leave one out")
        options["quantization_config"] = quantization_config(quantization)
    elif file and not random_weights and hasattr(transformers, "GgufConfig"):  # versions that keep blocks packed
        options["quantization_config"] = transformers.GgufConfig(dequantize=True)
    found: dict[str, Any] = {}
    wanted = getattr(torch, dtype) if isinstance(dtype, str) and dtype != "auto" else dtype
    try:
        if random_weights:
            config = AutoConfig.from_pretrained(
                path, revision=revision, trust_remote_code=trust_remote_code, **file, **local
            )
            model = AutoModelForCausalLM.from_config(
                config,
                dtype=torch.float32 if dtype == "auto" else wanted,
                attn_implementation=attn_implementation,
                trust_remote_code=trust_remote_code,
                **options,
            )
        else:
            known = {"config": read_config(name, revision, key=key)} if file else {}
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                path,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # reported below, with all else that does not fit
                revision=revision,
                dtype=wanted,
                attn_implementation=attn_implementation,
                trust_remote_code=trust_remote_code,
                **file,
                **known,
                **local,
                **options,
            )
            model, found = loaded
    except ImportError as error:
        extra = "quantization" if quantization is not None else "gguf"
        remedy = f"pip install 'lightning-rod[{extra}]'" if quantization is not None or file else "install it"
        raise InputError(f"{key}: '{name}' needs a library: {first_line(error)}; {remedy}") from error
    except _UNREADABLE as error:
        raise InputError(_unreadable(name, path, error, key)) from error
    if found:
        check_weights(found, name, key)
    if getattr(model, "is_quantized", False):
        model.requires_grad_(False)
    # from_pretrained returns evaluation mode and Lightning keeps modes: dropout would stay off while training.
    return model.train()


def without_weights(
    name: str, revision: str | None = None, trust_remote_code: bool = False, dtype: torch.dtype | None = None
) -> PreTrainedModel:
    """A model's modules on torch's meta device, with its generation settings; nothing but settings is read.

    ``dtype`` is that of the configuration unless given. InputError if settings are missing or unreadable.
    """
    config = read_config(name, revision, trust_remote_code)
    config.dtype = dtype or config.dtype
    path, file = source(name)
    local = options_of(path)
    with torch.device("meta"):
        model: PreTrainedModel = AutoModelForCausalLM.from_config(config, trust_remote_code=trust_remote_code)
    if not file and cached_file(path, GENERATION_CONFIG_NAME, revision=revision, **_IF_THERE, **local) is not None:
        model.generation_config = GenerationConfig.from_pretrained(path, revision=revision or "main", **local)
    return model


_IF_THERE: dict[str, Any] = {
    "_raise_exceptions_for_missing_entries": False,
    "_raise_exceptions_for_connection_errors": False,
}


def _unreadable(name: str, path: str, error: Exception, key: str, what: str = "") -> str:
    """What is said of a model that transformers could not load."""
    reason = without_hub(path)
    if reason and isinstance(error, OSError):
        return f"{key}: there is no folder '{name}', and no such model in the hub's cache; {reason}"
    told = f"{what} '{name}'" if what else f"'{name}' cannot be loaded"
    return f"{key}: {told}: {first_line(error)}"


_OTHER_FOLDERS = {
    "adapter_config.json": "it is an adapter: give its base model, and the adapter as model.adapter",
    "config.yaml": "it is a run: give the folder that rod export makes of its checkpoint",
}
"""File that tells a folder of ours -> what to give in its place."""


def require_model(
    name: str,
    *files: str,
    key: str = BACKBONE,
    remedy: str = "give a hub id, an existing folder or 'miniature'",
) -> None:
    """Raise if a folder has none of the files (``config.json``), or if the name is a path that does not exist.

    InputError, with the option ``key`` that named it, and what to do if there is no such folder.
    """
    folder, files = Path(resolve(name)), files or (CONFIG_NAME,)
    if folder.suffix == ".gguf":
        if not folder.is_file() and (folder.is_absolute() or name.count("/") != 2):
            raise InputError(f"{key}: there is no file '{folder}'; from a hub, give OWNER/NAME/FILE.gguf")
    elif folder.is_dir():
        if (folder / "mogu.json").is_file():
            raise InputError(f"{key}: the folder '{folder}' is a MoGU; give its base model, and it as model.folder")
        if not any((folder / file).is_file() for file in files):
            known = (words for file, words in _OTHER_FOLDERS.items() if (folder / file).is_file())
            what = next(known, "give a Hugging Face checkpoint")
            raise InputError(f"{key}: the folder '{folder}' has no {files[0]}; {what}")
    elif folder.is_absolute() or name.startswith(".") or name.count("/") > 1:
        raise InputError(f"{key}: there is no folder '{folder}'; {remedy}")
