"""An engine in a process of its own, which does works that come through a pipe, and what it takes."""

import importlib
import os
import time
from collections.abc import Callable
from contextlib import nullcontext
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy
import torch

from benchmarks.engine_works import Work
from benchmarks.generation import Job, Texts, continuous, static
from llm_modules.backbone.architecture import hidden_size, num_layers
from llm_modules.backbone.loading import load_model, resolve
from llm_modules.generation import Completion, GenerationListener, GenerationSettings, Generator, TransformersGenerator
from llm_modules.generation.interface import VllmSettings
from llm_modules.generation.remote_model import RemoteModel
from llm_modules.generation.remote_steering import RemoteSteering
from llm_modules.generation.vllm_engine import VllmGenerator
from llm_modules.s3cot import Steering

PEERS = ("repeng", "steering_vectors")
"""Other packages that steer; they are not among our requirements."""


def serve(kind: str, name: str, dtype: Any, slots: int, pipe: Connection) -> None:
    """Do works that come through a pipe; answer with seconds, CPU seconds, those to the first row, texts, memory."""
    torch.set_num_threads(1)
    model: Any = load_model(name, dtype=dtype).eval()
    model.generation_config.eos_token_id = None
    if kind == "continuous":
        do = continuous_way(model)
    elif kind in PEERS:
        do = peer_way(kind, model)
    else:
        do = engine_way(kind, name, dtype, model, slots)
    while (work := pipe.recv()) is not None:
        began, cpu = time.perf_counter(), cpu_seconds()
        texts, first = do(work)
        ended = time.perf_counter()
        pipe.send((ended - began, cpu_seconds() - cpu, (first or ended) - began, texts, peak_memory()))


class FirstRow(GenerationListener):
    """Notes when the first row is complete."""

    def __init__(self) -> None:
        self.at: float | None = None

    def row_finished(self, row: int, completion: Completion) -> None:
        """Note the time."""
        self.at = self.at or time.perf_counter()


def continuous_way(model: Any) -> Callable[[Work], tuple[Texts, float | None]]:
    return lambda work: (continuous(model, work.job), None)


def peer_way(kind: str, model: Any) -> Callable[[Work], tuple[Texts, float | None]]:
    vars(numpy)["float_"] = numpy.float64  # repeng 0.4 names it in an annotation
    package, vectors = importlib.import_module(kind), steering_vectors(model)
    layers = steered_layers(model)
    if kind == "repeng":
        wrapped = package.ControlModel(model, list(layers))
        control = package.ControlVector(model.config.model_type, {layer: vectors[layer].numpy() for layer in layers})

        def generate(job: Job, strength: float) -> Texts:
            wrapped.set_control(control, strength) if strength else wrapped.reset()
            return static(wrapped, job, by_prompt_length=False)
    else:
        vector = package.SteeringVector({layer: vectors[layer] for layer in layers})

        def generate(job: Job, strength: float) -> Texts:
            with vector.apply(model, multiplier=strength) if strength else nullcontext():
                return static(model, job, by_prompt_length=False)

    def do(work: Work) -> tuple[Texts, float | None]:
        strengths = work.strengths or [0.0] * len(work.job.prompts)
        texts: Texts = [[] for _ in strengths]
        for strength in dict.fromkeys(strengths):
            rows = [row for row, own in enumerate(strengths) if own == strength]
            prompts, lengths = [work.job.prompts[row] for row in rows], [work.job.lengths[row] for row in rows]
            for row, text in zip(rows, generate(Job(prompts, lengths, work.job.slots), strength), strict=True):
                texts[row] = text
        return texts, None

    return do


def steering_vectors(model: Any) -> torch.Tensor:
    return torch.randn(num_layers(model), hidden_size(model), generator=torch.Generator().manual_seed(0))


def steered_layers(model: Any) -> range:
    middle = num_layers(model) // 2
    return range(middle - 2, middle + 2)


def engine_way(
    kind: str, name: str, dtype: Any, model: Any, slots: int
) -> Callable[[Work], tuple[Texts, float | None]]:
    settings = GenerationSettings(slots=slots)
    engine: Any
    if kind == "vllm":
        settings.vllm = VllmSettings(options={"enforce_eager": True})
        engine = VllmGenerator(RemoteModel(resolve(name), dtype=dtype), model, settings, pad_id=0, eos_ids=())
    else:
        engine = (Generator if kind == "slots" else TransformersGenerator)(model, settings, pad_id=0, eos_ids=())
    vectors = steering_vectors(model)

    def do(work: Work) -> tuple[Texts, float | None]:
        first = FirstRow()
        steering: Any = RemoteSteering if kind == "vllm" else Steering
        with steering(model, vectors, work.positions) as added:
            engine.listeners = [first]
            if work.strengths is not None:
                strengths = torch.zeros(len(work.strengths), num_layers(model))
                strengths[:, steered_layers(model)] = torch.tensor(work.strengths)[:, None]
                added.set_strengths(strengths)
                engine.listeners.append(added)
            done = engine.generate(work.job.prompts, max_new_tokens=work.job.lengths)
        return [list(completion.token_ids) for completion in done], first.at

    return do


def peak_memory() -> float:
    """Most GiB that this process, or a process of vLLM under it, has held."""

    def most(status: Path) -> int:
        lines = status.read_text().splitlines()
        return next((int(line.split()[1]) for line in lines if line.startswith("VmHWM")), 0)

    return max(most(process / "status") for process in processes()) / 2**20


def cpu_seconds() -> float:
    """CPU time of this process and of a process of vLLM under it."""
    ticks = sum(int(tick) for process in processes() for tick in (process / "stat").read_text().split()[13:15])
    return ticks / os.sysconf("SC_CLK_TCK")


def processes() -> list[Path]:
    own = Path("/proc/self")
    children = [pid for file in own.glob("task/*/children") for pid in file.read_text().split()]
    return [own, *(Path("/proc") / pid for pid in children)]
