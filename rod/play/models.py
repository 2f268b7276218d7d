"""Load whatever can be asked: a model, an adapter, a checkpoint, a run or a MoGU folder."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from datamodules.errors import InputError
from datamodules.world.chat import all_requests
from datamodules.world.files import questions
from llm_modules.causal_lm import CausalLM
from llm_modules.mogu.folder import SETTINGS, read_settings
from llm_modules.mogu.module import MoGU
from rod.load import config_of, load_module
from rod.run_record import CONFIG

CHECKPOINTS = ("checkpoints/best.ckpt", "checkpoints/last.ckpt")


def load(name: str, dtype: Any = "auto") -> CausalLM:
    """Load what a word of the command names, ready to generate.

    A checkpoint (``.ckpt``) or a run folder with one, a MoGU folder, a PEFT folder, or a model: ``miniature``, a
    folder, a GGUF file, a hub id. InputError if there is no such thing, or a part of it is missing; or for a type of
    the weights of a run, whose own configuration says it.
    """
    folder = Path(name).expanduser()
    if folder.suffix == ".ckpt":
        return _of_a_run(config_of(folder), folder, dtype)
    if (folder / SETTINGS).is_file():
        module: CausalLM = MoGU(folder=str(folder), backbone=read_settings(folder).base, dtype=dtype)
    elif (folder / "adapter_config.json").is_file():
        base = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8")).get("base_model_name_or_path")
        if not base:
            raise InputError(f"'{name}': its adapter_config.json does not name a base model (base_model_name_or_path)")
        module = CausalLM(backbone=base, adapter=str(folder), dtype=dtype)
    elif (folder / CONFIG).is_file() and not (folder / "config.json").is_file():
        found = [folder / place for place in CHECKPOINTS if (folder / place).exists()]
        if not found:
            raise InputError(
                f"'{name}': this run folder has none of {', '.join(CHECKPOINTS)}; name a checkpoint or a model"
            )
        return _of_a_run(folder / CONFIG, found[0], dtype)
    else:
        module = CausalLM(backbone=str(folder) if folder.exists() else name, dtype=dtype)
    module.configure_model()
    return module.eval()


def _of_a_run(config: Path, checkpoint: Path, dtype: Any) -> CausalLM:
    if dtype != "auto":
        raise InputError(f"--dtype: the type of the weights of '{checkpoint}' is that of its run, in '{config}'")
    return load_module(config, checkpoint)


def examples(modules: Sequence[CausalLM]) -> list[str]:
    """Questions that the miniature knows, if it is there; users know best what to ask another model."""
    if all(module.model_id != "miniature" for module in modules):
        return []
    maths = [one.question for one in questions("test", 1)]
    talk = [all_requests("test", forbidden=forbidden)[0].prompt for forbidden in (False, True)]
    return talk[::-1] + maths if isinstance(modules[0], MoGU) else maths + talk
