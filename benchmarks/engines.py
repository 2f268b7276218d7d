"""The engines of `model.generation.engine` and other ways to generate and to steer, on five works: one table.

    python benchmarks/engines.py
    pip install --no-deps repeng steering-vectors gguf scikit-learn scipy joblib cloudpickle narwhals threadpoolctl
    python benchmarks/engines.py --engines slots transformers repeng steering_vectors
    python benchmarks/engines.py --model models/smollm2-135m --rows 12 --tokens 24 --slots 12 --repeats 2

Works: (a) rows of equal lengths, (b) lengths that vary tenfold, with the same mean, (c) questions with six strengths
each, steered in four layers at all positions, rows of one question beside each other, (d) the same at the prompt's last
token alone, (e) the same unsteered, to say what steering costs. Decoding is greedy and how many tokens a row has is set
beforehand, the same for every engine.

Each engine has a process of its own, which waits while the others run. They run in turn, forwards and backwards, after
a work that is not timed; a ratio is the median over the repeats of two runs next to each other: tokens/s wander on a
shared machine, their ratios far less, and ratios of CPU time least on a busy one. "first row" is the time until a row
is complete. "memory" is the most that the engine's processes held while they lived, vLLM's with 1 GiB set aside for
keys and values. "same rows" counts rows whose tokens are those of slots. vLLM runs eagerly in all works, as steering
needs it; in runs without steering it compiles code of its own unless it is told not to.

repeng and steering-vectors add one vector to a whole batch of transformers' ``generate``, so they take a strength at a
time; they do the works (c) and (e). They ask for NumPy 1 and transformers 4, but run with ours, as is needed for a
comparison.
"""

import argparse
import multiprocessing
import os
import statistics
import sys
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.engine_processes import PEERS, serve
from benchmarks.engine_works import ALPHAS, AT_END, STEERED, UNSTEERED, Work, works
from benchmarks.generation import Texts
from llm_modules.backbone.loading import load_model

ENGINES = ("slots", "transformers", "continuous", "vllm")
NAMES = {"transformers": "transformers, static batches", "continuous": "transformers, continuous batching"}


@dataclass
class Run:
    """What an engine took for a work, each time, and what it wrote."""

    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    first: list[float] = field(default_factory=list)
    texts: Texts = field(default_factory=list)


def table(found: dict[tuple[str, str], Run], all_works: list[Work], memory: dict[str, float]) -> None:
    print("\n| work | engine | tokens/s | slots is | by CPU time | first row, s | memory, GiB | same rows |")
    print("|---|---|--:|--:|--:|--:|--:|--:|")
    for work in all_works:
        ours = found["slots", work.name]
        for kind in (*ENGINES, *PEERS):
            run = found.get((kind, work.name))
            if run is None:
                continue
            ratio, by_cpu = (
                statistics.median(theirs / own for theirs, own in zip(one, other, strict=True))
                for one, other in ((run.wall, ours.wall), (run.cpu, ours.cpu))
            )
            same = sum(one == other for one, other in zip(run.texts, ours.texts, strict=True))
            first = "-" if kind in ("continuous", *PEERS) else f"{statistics.median(run.first):.1f}"
            print(
                f"| {work.name} | {NAMES.get(kind, kind)} | {work.job.tokens / statistics.median(run.wall):.0f} | "
                f"{ratio:.2f}x | {by_cpu:.2f}x | {first} | {memory[kind]:.2f} | {same}/{len(run.texts)} |"
            )


def cost_of_steering(found: dict[tuple[str, str], Run]) -> None:
    """Print the time of the steered work over that of the same one unsteered, by engine."""
    for kind in (*ENGINES, *PEERS):
        steered, unsteered = found.get((kind, STEERED)), found.get((kind, UNSTEERED))
        if steered is None or unsteered is None:
            continue
        wall, cpu = (
            statistics.median(with_it / without for with_it, without in zip(one, other, strict=True))
            for one, other in ((steered.wall, unsteered.wall), (steered.cpu, unsteered.cpu))
        )
        print(f"steered / unsteered, {NAMES.get(kind, kind)}: {wall:.3f}, by CPU time {cpu:.3f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="miniature", help="folder of a checkpoint, or miniature")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--rows", type=int, default=48)
    parser.add_argument("--tokens", type=int, default=32, help="mean tokens of a row")
    parser.add_argument("--slots", type=int, default=24)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--engines", nargs="+", default=list(ENGINES), choices=[*ENGINES, *PEERS])
    args = parser.parse_args()

    os.environ |= {"OMP_NUM_THREADS": "1", "VLLM_CPU_KVCACHE_SPACE": "1"}
    config: Any = load_model(args.model).config
    all_works = works(config.vocab_size, args.rows, args.tokens, args.slots)
    warm_up = works(config.vocab_size, 2 * len(ALPHAS), 4, args.slots)
    context = multiprocessing.get_context("spawn")
    pipes: dict[str, Connection] = {}
    for kind in args.engines:
        pipes[kind], theirs = context.Pipe()
        context.Process(target=serve, args=(kind, args.model, args.dtype, args.slots, theirs), daemon=True).start()
        theirs.close()  # a process that dies is then told by its pipe

    def run(kind: str, work: Work) -> tuple[float, float, float, Texts, float]:
        pipes[kind].send(work)
        answer: tuple[float, float, float, Texts, float] = pipes[kind].recv()
        return answer

    found: dict[tuple[str, str], Run] = {}
    memory: dict[str, float] = {}
    # Continuous batching has no rows to steer: it packs them, and says not where.
    left_out: dict[str, list[str]] = {"continuous": [STEERED, AT_END]}
    left_out |= {kind: [work.name for work in all_works if work.name not in (STEERED, UNSTEERED)] for kind in PEERS}
    jobs = [(kind, i) for i, work in enumerate(all_works) for kind in args.engines]
    jobs = [(kind, i) for kind, i in jobs if all_works[i].name not in left_out.get(kind, ())]
    for kind, i in sorted(jobs, key=lambda job: all_works[job[1]].strengths is None):  # steered first: vLLM starts once
        run(kind, warm_up[i])
    for repeat in range(args.repeats):
        for kind, i in jobs if repeat % 2 == 0 else reversed(jobs):
            work = all_works[i]
            wall, cpu, first, texts, memory[kind] = run(kind, work)
            if [len(text) for text in texts] != work.job.lengths:
                raise RuntimeError(f"{kind} did not generate what was asked for")
            entry = found.setdefault((kind, work.name), Run())
            entry.wall.append(wall)
            entry.cpu.append(cpu)
            entry.first.append(first)
            entry.texts = texts
            print(f"repeat {repeat + 1}: {work.name}: {kind}: {wall:.1f} s", flush=True)
    for pipe in pipes.values():
        pipe.send(None)
    print(
        f"\n{args.model}, {args.dtype}, {args.rows} rows of {args.tokens} tokens on average, {args.slots} slots, one "
        f"thread, median of {args.repeats}"
    )
    table(found, all_works, memory)
    print()
    cost_of_steering(found)


if __name__ == "__main__":
    main()
