"""Loading of pretrained models and tokenizers: hub id, local folder, or the embedded ``miniature``."""

from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from datamodules.errors import InputError

MINIATURE = Path(__file__).parents[1] / "miniature"
"""The embedded model: small enough to train and measure every method on a laptop."""

DType = Literal["auto", "float32", "bfloat16", "float16"]


def resolve(name: str) -> str:
    """``miniature`` to its folder; any other hub id or folder as it is."""
    return str(MINIATURE) if name == "miniature" else name


def model_id(name: str) -> str:
    """What records and files call a model: the hub id, ``miniature``, or the absolute path of a folder."""
    return str(Path(name).resolve()) if Path(name).is_dir() else name


def load_tokenizer(name: str, revision: str | None = None, trust_remote_code: bool = False) -> PreTrainedTokenizerBase:
    """The tokenizer of a hub id or folder.

    Raises:
        InputError: There is none, or it cannot be read.
    """
    _require(name, "tokenizer_config.json")
    try:
        return AutoTokenizer.from_pretrained(resolve(name), revision=revision, trust_remote_code=trust_remote_code)
    except (OSError, ValueError) as error:
        raise InputError(f"model.backbone: no tokenizer can be loaded from '{name}': {_first_line(error)}") from error


def read_config(name: str, revision: str | None = None, trust_remote_code: bool = False) -> PreTrainedConfig:
    """The configuration of a model, without its weights.

    Raises:
        InputError: The checkpoint is absent or unreadable.
    """
    _require(name, "config.json")
    try:
        return AutoConfig.from_pretrained(resolve(name), revision=revision, trust_remote_code=trust_remote_code)
    except (OSError, ValueError) as error:
        raise InputError(f"model.backbone: '{name}' cannot be loaded: {_first_line(error)}") from error


def max_positions(name: str, revision: str | None = None, trust_remote_code: bool = False) -> int | None:
    """How many tokens a model can take, by its configuration alone; None if that does not say.

    Raises:
        InputError: The checkpoint is absent or unreadable.
    """
    config = read_config(name, revision, trust_remote_code)
    return getattr(config.get_text_config(), "max_position_embeddings", None)


def same_checkpoint(one: str, other: str) -> bool:
    """Whether two names mean the same model, as far as can be told without loading it.

    Of two folders the weights are compared, file by file at some places; of anything else, which may have moved or come
    from a hub, the last part of the name.
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
        and all(_same_bytes(file, files[1][name]) for name, file in files[0].items())
    )


def _same_bytes(one: Path, other: Path, places: int = 64, size: int = 2**14) -> bool:
    total = one.stat().st_size
    if total != other.stat().st_size:
        return False
    with one.open("rb") as first, other.open("rb") as second:
        for place in range(places):
            for file in (first, second):
                file.seek(max(0, (total - size) * place // (places - 1)))
            if first.read(size) != second.read(size):
                return False
    return True


def load_model(
    name: str,
    *,
    revision: str | None = None,
    dtype: DType = "float32",
    attn_implementation: str | None = None,
    trust_remote_code: bool = False,
    random_weights: bool = False,
    **options: Any,
) -> PreTrainedModel:
    """A causal language model of a hub id or folder, on the CPU if no option says otherwise, in training mode.

    Args:
        name: Hub id, folder or ``miniature``.
        revision: Branch, tag or commit of a hub id.
        dtype: Of the weights; ``auto`` keeps the checkpoint's. Train in float32; the trainer's precision can lower it.
        attn_implementation: As in transformers (``sdpa``, ``eager``, ``flash_attention_2``); None lets it choose.
        trust_remote_code: Run code that comes with the checkpoint.
        random_weights: Build from the configuration alone, with weights drawn from torch's generator.
        options: Further ones of transformers (``quantization_config``, ``device_map``, ...).

    Raises:
        InputError: The checkpoint is absent or unreadable.
    """
    _require(name, "config.json")
    source = resolve(name)
    wanted: torch.dtype | str = dtype if dtype == "auto" else getattr(torch, dtype)
    try:
        if random_weights:
            config = AutoConfig.from_pretrained(source, revision=revision, trust_remote_code=trust_remote_code)
            model = AutoModelForCausalLM.from_config(
                config,
                dtype=torch.float32 if dtype == "auto" else wanted,
                attn_implementation=attn_implementation,
                trust_remote_code=trust_remote_code,
                **options,
            )
        else:
            model = AutoModelForCausalLM.from_pretrained(
                source,
                revision=revision,
                dtype=wanted,
                attn_implementation=attn_implementation,
                trust_remote_code=trust_remote_code,
                **options,
            )
    except (OSError, ValueError, SafetensorError) as error:
        raise InputError(f"model.backbone: '{name}' cannot be loaded: {_first_line(error)}") from error
    # from_pretrained gives evaluation mode and Lightning leaves modes alone: dropout would stay off for a whole run.
    return model.train()


def _require(name: str, file: str) -> None:
    """A local folder must hold the file; what is no folder and no hub id is a mistyped path."""
    folder = Path(resolve(name))
    if folder.is_dir():
        if not (folder / file).is_file():
            raise InputError(f"model.backbone: the folder '{folder}' has no {file}; give a Hugging Face checkpoint")
    elif folder.is_absolute() or name.startswith(".") or name.count("/") > 1:
        raise InputError(
            f"model.backbone: there is no folder '{folder}'; give a hub id, an existing folder or 'miniature'"
        )


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
