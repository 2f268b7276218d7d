"""A `VllmGenerator` for tests, with a process that stands for vLLM."""

import sys
from pathlib import Path
from typing import Any

from llm_modules.backbone.loading import MINIATURE, without_weights
from llm_modules.generation.interface import GenerationSettings, VllmSettings
from llm_modules.generation.remote_model import RemoteModel
from llm_modules.generation.vllm_engine import VllmGenerator


def fake_python(folder: Path) -> Path:
    """An executable that stands for the interpreter of an environment with vLLM."""
    path = folder / "python"
    path.write_text(f'#!/bin/sh\nexec {sys.executable} {Path(__file__).parent / "fake_vllm.py"} "$@"\n')
    path.chmod(0o755)
    return path


def engine(python: Path, options: dict[str, Any] | None = None, **settings: Any) -> VllmGenerator:
    """The engine on the miniature."""
    made = GenerationSettings(engine="vllm", vllm=VllmSettings(python, options or {}), **settings)
    outline = without_weights("miniature")
    return VllmGenerator(RemoteModel(str(MINIATURE)), outline, made, pad_id=0, eos_ids=(2,))
