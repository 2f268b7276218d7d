"""A model whose weights another process holds, vLLM's or a server's, and what such a process cannot load."""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from transformers import PreTrainedConfig

from datamodules.errors import InputError
from llm_modules.backbone.checksums import check_folder
from llm_modules.backbone.loading import source

_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""Ranks of an adapter for which vLLM has room."""
_CHANGE_THE_BASE = ("pissa", "olora", "corda", "loftq")


@dataclass(frozen=True)
class RemoteModel:
    """A checkpoint as another process loads it.

    Attributes:
        path: Folder or hub id.
        revision: Branch, tag or commit of a hub id.
        dtype: Type of the weights.
        trust_remote_code: Run code that comes with the checkpoint.
        adapter: Folder of a LoRA adapter.
        rank: Rank that vLLM must have room for; 0 without adapter.
    """

    path: str
    revision: str | None = None
    dtype: str = "float32"
    trust_remote_code: bool = False
    adapter: str | None = None
    rank: int = 0


def remote_model(
    backbone: str,
    config: PreTrainedConfig,
    *,
    revision: str | None,
    dtype: str,
    trust_remote_code: bool,
    adapter: str | None,
    refused: Sequence[str] = (),
) -> RemoteModel:
    """A module's model for another process.

    Args:
        backbone: Hub id, folder or ``miniature``.
        config: The backbone's configuration.
        revision: As in `CausalLM`.
        dtype: As in `CausalLM`; ``auto`` is what the configuration says.
        trust_remote_code: As in `CausalLM`.
        adapter: Folder of a PEFT adapter.
        refused: Other settings of the run with which no other process can load it, with the remedy.

    Raises:
        InputError: Another process cannot load it so.
    """
    instead = "use model.generation.engine: slots"
    if refused:
        raise InputError(f"{refused[0]}, or {instead}")
    path, file = source(backbone)
    if file:
        raise InputError(f"model.backbone: '{backbone}' is a GGUF file, which vLLM does not load here; {instead}")
    check_folder(path, "model.backbone")
    if dtype == "auto":
        own = getattr(config, "dtype", None)
        if own is None:
            raise InputError(
                f"model.dtype: the configuration of '{backbone}' names no type for 'auto'; give float32, bfloat16 or "
                "float16"
            )
        dtype = str(own).removeprefix("torch.")
    rank = _rank_of(adapter) if adapter else 0
    return RemoteModel(path, revision, dtype, trust_remote_code, adapter and os.path.abspath(adapter), rank)


def _rank_of(adapter: str) -> int:
    """The room that an adapter needs; InputError if vLLM would not compute what the adapter does."""
    check_folder(adapter, "model.adapter")
    file = Path(adapter) / "adapter_config.json"
    try:
        config = json.loads(file.read_bytes())
        kind = config["peft_type"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"model.adapter: '{adapter}' has no readable adapter_config.json") from error
    start = config.get("init_lora_weights")
    cannot = {
        f"the type {kind}": kind != "LORA",
        "DoRA": config.get("use_dora"),
        "trained biases": config.get("bias", "none") != "none" or config.get("lora_bias"),
        "whole modules (modules_to_save)": config.get("modules_to_save"),
        "trained tokens": config.get("trainable_token_indices"),
        "targets that are parameters": config.get("target_parameters"),
        "replicated layers": config.get("layer_replication"),
        f"init_lora_weights: {start}, which changes the base": str(start).lower().startswith(_CHANGE_THE_BASE),
        **{name: config.get(name) for name in ("alora_invocation_tokens", "use_bdlora", "use_qalora")},
    }
    found = [name for name, has in cannot.items() if has]
    most = max(config.get("r", 0), *(config.get("rank_pattern") or {}).values(), 0)
    room = next((room for room in _RANKS if most <= room), None)
    if room is None:
        found.append(f"rank {most}")
    if found:
        raise InputError(
            f"model.adapter: '{adapter}' has {found[0]}, which vLLM does not serve; merge it with 'rod export', or use "
            "model.generation.engine: slots"
        )
    assert room is not None
    return room
