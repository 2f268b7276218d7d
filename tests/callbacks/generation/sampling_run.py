"""A sampling run on a tiny model, in this process or, so that it can be killed, in others."""

import json
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.strategies import ModelParallelStrategy, Strategy

from callbacks.generation.traces import TraceWriter
from callbacks.s3cot.steer import Steer
from datamodules.prompts.prompt_data import PromptData
from llm_modules.generation import GenerationSettings
from llm_modules.s3cot import Direction
from llm_modules.s3cot.module import S3CoT
from tests.tiny import save_tiny


def prepare(folder: Path, questions: int = 4) -> Path:
    """A checkpoint, a direction for it and questions in ``folder``."""
    model = save_tiny(folder / "model")
    vectors = torch.randn(4, 32, generator=torch.Generator().manual_seed(0))
    Direction(vectors, model=str(model.resolve()), anchor=1).save(folder / "direction.safetensors")
    lines = [json.dumps({"id": f"q{i}", "question": f"{i} + 1?", "gold": str(i + 1)}) for i in range(questions)]
    (folder / "questions.jsonl").write_text("\n".join(lines))
    return folder


def module(folder: Path, **generation: Any) -> S3CoT:
    settings = {"max_new_tokens": 12, "slots": 8, "temperature": 1.0} | generation
    return S3CoT(str(folder / "model"), generation=GenerationSettings(**settings))


def data(folder: Path, **settings: Any) -> PromptData:
    defaults: dict[str, Any] = {
        "alphas": [0.0, -0.5],
        "layer_sets": ["anchor:2"],
        "rows_per_batch": 6,
        "require_gold": True,
    }
    return PromptData(folder / "questions.jsonl", **(defaults | settings))


def trainer(root: Path, *callbacks: Callback, **settings: Any) -> Trainer:
    defaults: dict[str, Any] = {
        "accelerator": "cpu",
        "devices": 1,
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "use_distributed_sampler": False,
    }
    return Trainer(default_root_dir=root, callbacks=list(callbacks), **(defaults | settings))


def steer(folder: Path) -> Steer:
    return Steer(folder / "direction.safetensors")


def strategy(name: str) -> Strategy | str:
    return ModelParallelStrategy(data_parallel_size=2, tensor_parallel_size=1) if name == "fsdp" else name


def predict(source: Path, root: Path, devices: int, temperature: float, kind: str) -> None:
    """Sample three strengths."""
    run = trainer(root, steer(source), TraceWriter(), devices=devices, strategy=strategy(kind))
    questions = data(source, alphas=[0.0, -0.1, -0.2])
    run.predict(module(source, temperature=temperature), questions, return_predictions=False)
