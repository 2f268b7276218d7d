"""Tokens per second when completions vary tenfold in length: slots that are refilled against static batches.

    python benchmarks/generation.py
    python benchmarks/generation.py --model FOLDER  # of any model, such as stories260K
    python benchmarks/generation.py --rows 64 --slots 16 --repeats 1

How many tokens each completion has is set beforehand (as if an end-of-sequence token came there), evenly spaced from
``--shortest`` to ``--longest`` in random order, the same for every engine. Everyone decodes greedily, equally many
rows at once, so that the completions can be compared too. The default model is a random Llama of the miniature's size.

Engines run in turn, forwards and backwards, and a ratio is the median over the repeats of two runs next to each other:
tokens/s wander on a shared machine, their ratios far less. CPU time is printed beside wall time for busy machines.
"ideal" is arithmetic: slot-steps that static batches spend for each token that is wanted.
"""

import argparse
import copy
import random
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoModelForCausalLM,
    ContinuousBatchingConfig,
    GenerationConfig,
    LlamaConfig,
    LlamaForCausalLM,
    StoppingCriteria,
    StoppingCriteriaList,
)

from llm_modules.generation import GenerationSettings, Generator

Texts = list[list[int]]


@dataclass(frozen=True)
class Job:
    """Prompts, how many tokens to generate for each, and how many rows an engine may decode at once."""

    prompts: Texts
    lengths: list[int]
    slots: int

    @property
    def tokens(self) -> int:
        """Tokens to generate."""
        return sum(self.lengths)

    def ideal(self) -> float:
        """Slot-steps of static batches, each as long as its longest row, for a token that is wanted."""
        steps = sum(
            max(batch) * len(batch)
            for batch in (self.lengths[i : i + self.slots] for i in range(0, len(self.lengths), self.slots))
        )
        return steps / self.tokens


@dataclass
class Engine:
    """A way to do a job, and what it took each time."""

    name: str
    generate: Callable[[Job], Texts]
    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    texts: Texts = field(default_factory=list)

    def run(self, job: Job) -> None:
        """Do the job once more."""
        wall, cpu = time.perf_counter(), time.process_time()
        self.texts = self.generate(job)
        self.wall.append(time.perf_counter() - wall)
        self.cpu.append(time.process_time() - cpu)
        if [len(text) for text in self.texts] != job.lengths:
            raise RuntimeError(f"{self.name} did not generate what was asked for")


def load(folder: Path | None) -> Any:
    model: Any
    if folder is not None:
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    else:
        torch.manual_seed(0)
        config = LlamaConfig(
            vocab_size=1200,
            hidden_size=128,
            intermediate_size=384,
            num_hidden_layers=6,
            num_attention_heads=4,
            initializer_range=0.1,
            tie_word_embeddings=True,
        )
        model = LlamaForCausalLM(config)
    model.generation_config.eos_token_id = None
    return model.eval()


def draw_job(vocab: int, rows: int, slots: int, shortest: int, longest: int) -> Job:
    draw = random.Random(0)
    prompts = [[draw.randrange(3, vocab) for _ in range(draw.randint(25, 50))] for _ in range(rows)]
    lengths = [shortest + round(row * (longest - shortest) / (rows - 1)) for row in range(rows)]
    draw.shuffle(lengths)
    return Job(prompts, lengths, slots)


def refilled(model: Any, job: Job) -> Texts:
    generator = Generator(model, GenerationSettings(slots=job.slots), pad_id=0, eos_ids=())
    completions = generator.generate(job.prompts, max_new_tokens=job.lengths)
    return [list(completion.token_ids) for completion in completions]


class Lengths(StoppingCriteria):
    """Ends each row where an end-of-sequence token would."""

    def __init__(self, ends: torch.Tensor) -> None:
        self.ends = ends

    def __call__(self, input_ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
        """Which rows have ended."""
        return self.ends <= input_ids.shape[1]


def static(model: Any, job: Job, by_prompt_length: bool) -> Texts:
    order = list(range(len(job.prompts)))
    if by_prompt_length:
        order.sort(key=lambda row: len(job.prompts[row]))
    texts: Texts = [[] for _ in order]
    for start in range(0, len(order), job.slots):
        rows = order[start : start + job.slots]
        prompts, lengths = [job.prompts[row] for row in rows], [job.lengths[row] for row in rows]
        width = max(map(len, prompts))
        out = model.generate(
            torch.tensor([[0] * (width - len(prompt)) + prompt for prompt in prompts]),
            attention_mask=torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts]),
            do_sample=False,
            pad_token_id=0,
            max_new_tokens=max(lengths),
            stopping_criteria=StoppingCriteriaList([Lengths(width + torch.tensor(lengths))]),
        )
        for row, ids, length in zip(rows, out, lengths, strict=True):
            texts[row] = ids[width : width + length].tolist()
    return texts


def continuous(model: Any, job: Job) -> Texts:
    """The library's continuous batching (paged attention), sized for the job."""
    longest = max(map(len, job.prompts)) + max(job.lengths)
    config = ContinuousBatchingConfig(
        page_size=32,
        num_blocks=job.slots * (longest // 32 + 2),
        max_batch_tokens=4096,
        max_requests_per_batch=job.slots,
        allow_block_sharing=False,
    )
    settings = GenerationConfig(do_sample=False, eos_token_id=-1, pad_token_id=0, max_new_tokens=max(job.lengths))
    with model.continuous_batching_context_manager(
        generation_config=settings, continuous_batching_config=config, warmup=False
    ) as manager:
        ids = [
            manager.add_request(prompt, max_new_tokens=length)
            for prompt, length in zip(job.prompts, job.lengths, strict=True)
        ]
        texts: dict[str, list[int]] = {}
        while len(texts) < len(ids):
            result = manager.get_result(timeout=1)
            if result is not None and result.is_finished():
                texts[result.request_id] = list(result.generated_tokens)
            elif result is None and not manager.is_running():
                raise RuntimeError("continuous batching stopped early")
    return [texts[i] for i in ids]


def median_ratio(seconds: list[float], ours: list[float]) -> float:
    return statistics.median(theirs / own for theirs, own in zip(seconds, ours, strict=True))


def report(job: Job, engines: list[Engine]) -> None:
    ours = engines[0]
    print(
        f"\n{len(job.prompts)} rows of {min(job.lengths)}-{max(job.lengths)} tokens ({job.tokens} in all), "
        f"{job.slots} slots, {torch.get_num_threads()} thread(s), median of {len(ours.wall)}\n"
        f"ideal against static batches: {job.ideal():.2f}x\n\n"
        f"{'engine':<38}{'tokens/s':>9}{'ours is':>9}{'by CPU time':>13}{'same text':>11}"
    )
    for engine in engines:
        same = sum(a == b for a, b in zip(engine.texts, ours.texts, strict=True))
        print(
            f"{engine.name:<38}{job.tokens / statistics.median(engine.wall):>9.0f}"
            f"{median_ratio(engine.wall, ours.wall):>8.2f}x{median_ratio(engine.cpu, ours.cpu):>12.2f}x"
            f"{same:>6}/{len(job.prompts)}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--model", type=Path, help="folder of a checkpoint; a random Llama of 1.4M parameters if absent"
    )
    parser.add_argument("--rows", type=int, default=192)
    parser.add_argument("--slots", type=int, default=64)
    parser.add_argument("--shortest", type=int, default=30)
    parser.add_argument("--longest", type=int, default=300)
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()

    model = load(args.model)
    paged = copy.deepcopy(model)  # continuous batching changes the attention of its model
    job = draw_job(model.config.vocab_size, args.rows, args.slots, args.shortest, args.longest)
    engines = [
        Engine("ours: slots that are refilled", lambda job: refilled(model, job)),
        Engine("generate, static batches", lambda job: static(model, job, by_prompt_length=False)),
        Engine("generate, sorted by prompt length", lambda job: static(model, job, by_prompt_length=True)),
        Engine("transformers' continuous batching", lambda job: continuous(paged, job)),
    ]
    warm_up = draw_job(model.config.vocab_size, 8, 4, 2, 4)
    for engine in engines:
        engine.generate(warm_up)
    for repeat in range(args.repeats):
        for engine in engines if repeat % 2 == 0 else reversed(engines):
            engine.run(job)
            print(
                f"repeat {repeat + 1}: {engine.name}: {engine.wall[-1]:.1f} s, CPU {engine.cpu[-1]:.1f} s", flush=True
            )
    report(job, engines)


if __name__ == "__main__":
    main()
