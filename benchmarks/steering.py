"""Speed of steering: against the same generation without it, and against repeng and steering-vectors.

    python benchmarks/steering.py
    python benchmarks/steering.py --peer-python peers/bin/python
    python benchmarks/steering.py --peer-python peers/bin/python --model miniature --direction direction.safetensors \
        --layers anchor:4 --prompts questions.jsonl

The peers pin versions that this project cannot use, so they run in an environment of their own:

    python -m venv peers
    peers/bin/pip install torch==2.13.0 repeng steering-vectors

By default the model is a random Llama of the miniature's size, and how many tokens each completion has is drawn
beforehand (as if an end-of-sequence token came): ``--shortest`` to ``--longest`` tokens at alpha 0, and the shares in
``LENGTH_RATIOS`` of them at the other strengths. With ``--model`` the completions end by themselves. Everybody gets the
same model, prompts and limits and decodes greedily, so that the completions can be compared too. Runs alternate; wall
time is what counts, CPU time stands beside it for busy machines.
"""

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, __version__

from llm_modules.generation import GenerationSettings, Generator
from llm_modules.s3cot import Steering

ALPHAS = (0.0, -0.1, -0.2, -0.3, -0.4, -0.5)
LENGTH_RATIOS = (1.0, 0.87, 0.73, 0.62, 0.51, 0.46)
"""Lengths at these strengths, measured once on a miniature."""
PEERS = ("repeng", "steering-vectors")


@dataclass
class Timing:
    """Seconds of one run and what it generated, question by question, strength by strength."""

    wall: float
    cpu: float
    completions: list[list[int]]


def timed(work: Callable[[], list[list[int]]]) -> Timing:
    wall, cpu = time.perf_counter(), time.process_time()
    completions = work()
    return Timing(time.perf_counter() - wall, time.process_time() - cpu, completions)


def random_job(folder: Path, questions: int, shortest: int, longest: int) -> None:
    """A random model, prompts, limits and vectors, as files that every environment reads."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=1200,
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=6,
        num_attention_heads=4,
        initializer_range=0.1,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=0,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    prompts = [torch.randint(1, 1200, (length,)).tolist() for length in torch.randint(24, 50, (questions,)).tolist()]
    spread = [math.exp(x * math.log(longest / shortest)) for x in torch.rand(questions).tolist()]
    limits = [[max(1, round(shortest * s * ratio)) for ratio in LENGTH_RATIOS] for s in spread]
    write_job(folder, prompts, limits, 0.5 * torch.randn(6, 128), layers=(1, 2, 3, 4), eos=None)


def real_job(folder: Path, options: argparse.Namespace) -> None:
    """A model with questions and a direction of its own; completions end by themselves."""
    from datamodules.prompts.rows import build_rows
    from datamodules.records.questions import read_questions
    from llm_modules.backbone.loading import load_model, load_tokenizer
    from llm_modules.s3cot import read_direction, select_layers

    tokenizer, model = load_tokenizer(options.model), load_model(options.model)
    model.save_pretrained(folder)
    direction = read_direction(options.direction)
    rows = build_rows(read_questions(options.prompts, limit=options.questions), tokenizer)
    limits = [[options.longest] * len(ALPHAS)] * len(rows)
    prompts = [list(row.token_ids) for row in rows]
    layers = select_layers(options.layers, direction)
    write_job(folder, prompts, limits, direction.vectors, layers, eos=[tokenizer.eos_token_id])


def write_job(
    folder: Path, prompts: Any, limits: Any, vectors: Tensor, layers: Sequence[int], eos: list[int] | None
) -> None:
    job = {"prompts": prompts, "limits": limits, "layers": list(layers), "alphas": ALPHAS, "eos": eos}
    (folder / "job.json").write_text(json.dumps(job))
    save_file({"vectors": vectors}, folder / "vectors.safetensors")


class Ours:
    """All strengths of all questions as rows of one call, decoded in slots that are refilled."""

    def __init__(self, folder: Path) -> None:
        self.job = json.loads((folder / "job.json").read_text())
        self.model = AutoModelForCausalLM.from_pretrained(folder).eval()
        self.vectors = load_file(folder / "vectors.safetensors")["vectors"]
        self.indicator = torch.zeros(len(self.vectors))
        self.indicator[self.job["layers"]] = 1

    def sample(self, slots: int) -> list[list[int]]:
        """The whole job."""
        rows = [(q, a) for q in range(len(self.job["prompts"])) for a in range(len(ALPHAS))]
        prompts, limits = [self.job["prompts"][q] for q, _ in rows], [self.job["limits"][q][a] for q, a in rows]
        return self.generate(prompts, limits, [ALPHAS[a] for _, a in rows], slots, self.job["eos"] or ())

    def fixed(self, rows: int, tokens: int, steered: bool) -> list[list[int]]:
        """A batch of ``rows`` prompts for exactly ``tokens`` tokens each, at different strengths."""
        prompts = [self.job["prompts"][row % len(self.job["prompts"])] for row in range(rows)]
        alphas = [ALPHAS[1 + row % (len(ALPHAS) - 1)] for row in range(rows)]
        return self.generate(prompts, [tokens] * rows, alphas if steered else None, rows, ())

    def generate(
        self, prompts: Any, limits: list[int], alphas: list[float] | None, slots: int, eos: Sequence[int]
    ) -> list[list[int]]:
        """Completions of these rows; without strengths the model has no hooks at all."""
        generator = Generator(self.model, GenerationSettings(slots=slots), pad_id=0, eos_ids=eos)
        if alphas is None:
            return [list(c.token_ids) for c in generator.generate(prompts, max_new_tokens=limits)]
        with Steering(self.model, self.vectors) as steering:
            generator.listeners.append(steering)
            steering.set_strengths(torch.tensor(alphas)[:, None] * self.indicator)
            return [list(c.token_ids) for c in generator.generate(prompts, max_new_tokens=limits)]


class PeerProcess:
    """A peer in its own environment; keeps its model between runs."""

    def __init__(self, python: str, name: str, folder: Path) -> None:
        self.name = name
        script = str(Path(__file__).with_name("steering_peers.py"))
        command = [python, script, name, str(folder), str(torch.get_num_threads())]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.versions = self._read()

    def sample(self, size: int) -> Timing:
        """The whole job, in batches of so many questions."""
        assert self.process.stdin is not None
        print(size, file=self.process.stdin, flush=True)
        return Timing(**self._read())

    def close(self) -> None:
        """End the process."""
        self.process.communicate()

    def _read(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.name} ended with an error; is it installed for --peer-python?")
        return dict(json.loads(line))


def overhead(ours: Ours, batches: list[int], tokens: int, repeats: int) -> None:
    """The ratio of steered to unsteered time at several batch sizes, and of unsteered to unsteered as a control."""
    layers, of = len(ours.job["layers"]), len(ours.vectors)
    print(f"\nSteered against unsteered generation, {tokens} tokens a row, {layers} of {of} layers; target <= 1.02x")
    print(
        f"{'rows':>6} {'unsteered s':>12} {'steered s':>12} {'wall':>8} {'CPU':>8}   {'control, wall':>13} {'CPU':>8}"
    )
    kinds = {"unsteered": False, "steered": True, "control": False}
    for rows in batches:
        runs: dict[str, list[Timing]] = {kind: [] for kind in kinds}
        ours.fixed(rows, tokens, steered=True)
        for _ in range(repeats):
            for kind, steered in kinds.items():
                runs[kind].append(timed(partial(ours.fixed, rows, tokens, steered)))
        wall = {kind: statistics.median(run.wall for run in runs[kind]) for kind in kinds}
        cpu = {kind: statistics.median(run.cpu for run in runs[kind]) for kind in kinds}
        ratios = [time[kind] / time["unsteered"] for kind in ("steered", "control") for time in (wall, cpu)]
        print(
            f"{rows:>6} {wall['unsteered']:>12.3f} {wall['steered']:>12.3f} {ratios[0]:>7.3f}x {ratios[1]:>7.3f}x "
            f"{ratios[2]:>14.3f}x {ratios[3]:>7.3f}x",
            flush=True,
        )


def against_peers(ours: Ours, peers: list[PeerProcess], sizes: list[int], slots: int, repeats: int) -> None:
    """The whole job, alternating; the ratio of their time to ours."""
    mine: list[Timing] = []
    theirs: dict[tuple[str, int], list[Timing]] = {(peer.name, size): [] for peer in peers for size in sizes}
    for _ in range(repeats):
        mine.append(timed(lambda: ours.sample(slots)))
        for peer in peers:
            for size in sizes:
                theirs[peer.name, size].append(peer.sample(size))
    tokens = sum(map(len, mine[0].completions))
    wall, cpu = (statistics.median(getattr(t, kind) for t in mine) for kind in ("wall", "cpu"))
    print(
        f"\n{len(ALPHAS)} strengths for {len(ours.job['prompts'])} questions, {tokens} tokens; target >= 2x end to end"
    )
    print(f"{'':<32} {'wall s':>8} {'CPU s':>8} {'tokens/s':>9} {'wall, to ours':>14} {'CPU':>7} {'same text':>10}")
    print(f"{f'ours, {slots} slots':<32} {wall:>8.2f} {cpu:>8.2f} {tokens / wall:>9.0f}")
    for (name, size), runs in theirs.items():
        peer_wall, peer_cpu = (statistics.median(getattr(t, kind) for t in runs) for kind in ("wall", "cpu"))
        pairs = list(zip(mine[0].completions, runs[0].completions, strict=True))
        same = sum(a == b for a, b in pairs) / len(pairs)
        print(
            f"{f'{name}, batches of {size}':<32} {peer_wall:>8.2f} {peer_cpu:>8.2f} {tokens / peer_wall:>9.0f} "
            f"{peer_wall / wall:>13.2f}x {peer_cpu / cpu:>6.2f}x {same:>10.0%}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description="Speed of steering.")
    parser.add_argument("--peer-python", help="python of an environment with repeng and steering-vectors")
    parser.add_argument("--model", help="folder, hub id or miniature, in place of a random model")
    parser.add_argument("--direction", type=Path, help="direction of --model")
    parser.add_argument("--layers", default="anchor:4", help="layer set of --direction")
    parser.add_argument("--prompts", type=Path, help="questions for --model, JSONL")
    parser.add_argument("--questions", type=int, default=64, help="how many questions")
    parser.add_argument("--shortest", type=int, default=16, help="tokens of the shortest completion at alpha 0")
    parser.add_argument("--longest", type=int, default=160, help="tokens of the longest; the limit with --model")
    parser.add_argument("--slots", type=int, default=64)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8, 64], help="rows, steered against unsteered")
    parser.add_argument("--tokens", type=int, default=16, help="tokens a row, steered against unsteered")
    parser.add_argument("--pairs", type=int, default=40, help="runs of each kind, steered against unsteered")
    parser.add_argument("--peer-batches", type=int, nargs="+", default=[8, 64], help="questions in a peer's batch")
    parser.add_argument("--repeats", type=int, default=3, help="runs of the whole job, against peers")
    options = parser.parse_args()
    if options.model and not (options.direction and options.prompts):
        parser.error("--model needs --direction and --prompts")
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if options.model:
            real_job(folder, options)
        else:
            random_job(folder, options.questions, options.shortest, options.longest)
        ours = Ours(folder)
        threads, load = torch.get_num_threads(), os.getloadavg()[0]
        print(f"torch {torch.__version__}, transformers {__version__}, {threads} thread(s), load {load:.1f}")
        overhead(ours, options.batches, options.tokens, options.pairs)
        if options.peer_python:
            peers = [PeerProcess(options.peer_python, peer, folder) for peer in PEERS]
            print(f"\npeers with torch {peers[0].versions['torch']}, transformers {peers[0].versions['transformers']}")
            against_peers(ours, peers, options.peer_batches, options.slots, options.repeats)
            for peer in peers:
                peer.close()


if __name__ == "__main__":
    main()
