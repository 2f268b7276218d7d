"""Speed of MoGU: training against the published way, and mixed tokens against the base model.

    python benchmarks/mogu.py
    python benchmarks/mogu.py --model FOLDER --repeats 9
    python benchmarks/mogu.py --model random --hidden 512 --layers 8

*Training* runs optimiser steps at the paper's effective batch. The published way passes one sequence at a time and both
responses apart; it multiplies the three matrices of each router token by token, computes both responders in full, and
differentiates the sum of the losses. Both ways get the same sequences, of similar lengths as the sampler groups them;
by default they are as long as those of the miniature's world.

*Generation* answers one prompt at a time, greedily. The published way reads the whole sequence again for each of the
first five tokens, and then a sixth time with a second copy of the base model.

Runs alternate, forwards and backwards. A ratio is the median over the repeats of two neighbouring runs, in CPU time:
on a busy machine that varies less than wall time, which is shown beside it.
"""

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from peft import LoraConfig, get_peft_model
from rich.console import Console
from rich.table import Table
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel

from benchmarks.published_mogu import published, single_loss
from datamodules.batch import IGNORE_INDEX
from datamodules.mogu.branching import branch
from datamodules.training.packing import Example, pad
from llm_modules.backbone.head import OutputHead
from llm_modules.backbone.loading import load_model
from llm_modules.generation import GenerationSettings, Generator
from llm_modules.loss import last_hidden, row_losses_of
from llm_modules.mogu.adapters import LoRAAdapter, random_adapter
from llm_modules.mogu.branches import branch_losses, takes_branches
from llm_modules.mogu.config import Mode, RouterConfig
from llm_modules.mogu.losses import gate_penalty, responder_loss
from llm_modules.mogu.model import MoGUModel
from llm_modules.mogu.router import router_costs
from llm_modules.mogu.target import output_projections, projection_pattern

console = Console()


def responders(model: PreTrainedModel) -> tuple[LoRAAdapter, LoRAAdapter]:
    projections = output_projections(model)
    return random_adapter(projections, 8, 16, 0), random_adapter(projections, 8, 16, 1)


@dataclass
class Times:
    """Seconds of each run of one way."""

    wall: list[float]
    cpu: list[float]


def alternate(ways: dict[str, Callable[[], object]], repeats: int) -> dict[str, Times]:
    times = {name: Times([], []) for name in ways}
    for work in ways.values():
        work()
    for repeat in range(repeats):
        names = list(ways) if repeat % 2 == 0 else list(reversed(ways))
        for name in names:
            wall, cpu = time.perf_counter(), time.process_time()
            ways[name]()
            times[name].wall.append(time.perf_counter() - wall)
            times[name].cpu.append(time.process_time() - cpu)
    return times


def ratio(one: Times, other: Times) -> float:
    """Median over the repeats of CPU time against CPU time."""
    return statistics.median(a / b for a, b in zip(one.cpu, other.cpu, strict=True))


def sequences(n: int, vocab: int, prompt: int, response: int) -> list[tuple[list[int], int]]:
    """Token ids and length of the prompt: ``n`` sequences of similar length out of 600."""
    generator = torch.Generator().manual_seed(0)
    found = []
    for _ in range(600):
        sizes = [int(s * (0.5 + torch.rand(1, generator=generator))) for s in (prompt, response)]
        found.append((torch.randint(3, vocab, (sum(sizes),), generator=generator).tolist(), sizes[0]))
    middle = 300 - n // 2
    return sorted(found, key=lambda row: len(row[0]))[middle : middle + n]


def as_example(row: tuple[list[int], int]) -> Example:
    ids, prompt = row
    return Example(tuple(ids), (*[IGNORE_INDEX] * prompt, *ids[prompt:]))


def responder_ways(model: PreTrainedModel, options: argparse.Namespace) -> dict[str, Callable[[], object]]:
    """One optimiser step of a responder: a response and its opposite to each prompt."""
    rows = sequences(2 * options.responder_batch, model.config.vocab_size, options.prompt, options.response)
    half = len(rows) // 2
    for item in range(half):
        (one, prompt), (other, its_prompt) = rows[item], rows[half + item]
        rows[half + item] = one[:prompt] + other[its_prompt:], prompt

    def adapted() -> tuple[PreTrainedModel, torch.optim.Optimizer]:
        base = deepcopy(model)
        config = LoraConfig(r=8, lora_alpha=16, target_modules=projection_pattern(base), task_type="CAUSAL_LM")
        wrapped = get_peft_model(base, config).train()
        return base, torch.optim.AdamW([p for p in wrapped.parameters() if p.requires_grad], lr=5e-5)

    ours, our_optimizer = adapted()
    theirs, their_optimizer = adapted()
    head = OutputHead(ours)
    examples = [as_example(row) for row in rows]
    batch = branch(list(zip(examples[:half], examples[half:], strict=True)))
    assert takes_branches(ours.get_decoder(), head)

    def our_step() -> None:
        both = branch_losses(ours.get_decoder(), head, batch)
        responder_loss(both[:half], both[half:]).mean().backward()
        our_optimizer.step()
        our_optimizer.zero_grad()

    def their_step() -> None:
        total = torch.zeros(())
        for item in range(half):
            wanted, unwanted = (single_loss(theirs, rows[item + shift]) for shift in (0, half))
            total = total + wanted / unwanted / half
        total.backward()
        their_optimizer.step()
        their_optimizer.zero_grad()

    return {"ours": our_step, "published": their_step}


def router_ways(model: PreTrainedModel, options: argparse.Namespace) -> dict[str, Callable[[], object]]:
    """One optimiser step of the routers."""
    rows = sequences(options.router_batch, model.config.vocab_size, options.prompt, options.response)
    batch, malicious = pad([as_example(row) for row in rows]), torch.arange(len(rows)) % 2 == 1
    ours, theirs = deepcopy(model).train(), deepcopy(model).train()
    mogu = MoGUModel(ours, *responders(ours), RouterConfig(d_router=options.d_router))
    head = OutputHead(ours)
    plain = published(theirs, *responders(theirs), options.d_router)
    our_optimizer = torch.optim.AdamW(mogu.router_parameters(), lr=5e-4)
    their_optimizer = torch.optim.AdamW([p for p in theirs.parameters() if p.requires_grad], lr=5e-4)
    assert batch.attention_mask is not None
    mask = batch.attention_mask.bool()

    def our_step() -> None:
        with mogu.recording() as record:
            losses = row_losses_of(last_hidden(ours.get_decoder(), batch), batch, head)
        (losses + 2 * gate_penalty(record.stacked(), malicious, mask)).mean().backward()
        our_optimizer.step()
        our_optimizer.zero_grad()

    def their_step() -> None:
        total = torch.zeros(())
        for row, bad in zip(rows, malicious.tolist(), strict=True):
            loss = single_loss(theirs, row)
            gates = torch.stack([layer.gates for layer in plain])
            goal = torch.tensor([0.0, 1.0] if bad else [1.0, 0.0])
            total = total + (loss + 2 * (gates - goal).square().sum(-1).mean()) / len(rows)
        total.backward()
        their_optimizer.step()
        their_optimizer.zero_grad()

    return {"ours": our_step, "published": their_step}


def generation_ways(model: PreTrainedModel, options: argparse.Namespace, n: int) -> dict[str, Callable[[], object]]:
    """Generation of ``n`` tokens after one prompt."""
    generator = torch.Generator().manual_seed(0)
    prompt = torch.randint(3, model.config.vocab_size, (options.prompt,), generator=generator).tolist()
    settings = GenerationSettings(max_new_tokens=n)
    base = Generator(deepcopy(model), settings, pad_id=0, eos_ids=[])
    mixed = deepcopy(model)
    mogu = MoGUModel(mixed, *responders(mixed), RouterConfig(d_router=options.d_router))
    mogu.fold()
    ways: dict[str, Callable[[], object]] = {"base": partial(base.generate, [prompt])}
    modes: tuple[Mode, ...] = ("first_m", "keep_cache", "always")
    for mode in modes:
        ways[mode] = partial(mogu.generator(settings, mode=mode, m=5, eos_ids=[]).generate, [prompt])
    two = deepcopy(model)
    published(two, *responders(two), options.d_router)

    def their_way() -> None:
        ids = torch.tensor([prompt])
        with torch.no_grad():
            for _ in range(min(5, n)):
                ids = torch.cat([ids, two(input_ids=ids, use_cache=True).logits[:, -1:].argmax(-1)], dim=1)
        if n > 5:
            base.generate([ids[0].tolist()], max_new_tokens=[n - 5])

    return ways | {"published": their_way}


def show(title: str, unit: str, times: dict[str, Times], against: str, per: float = 1.0) -> None:
    table = Table(title=title, title_justify="left")
    for heading in ("way", f"{unit}, CPU", f"{unit}, wall", f"CPU time against {against}"):
        table.add_column(heading, justify="left" if heading == "way" else "right")
    for name, found in times.items():
        values = [statistics.median(part) for part in (found.cpu, found.wall)]
        shown = [f"{per / value:.1f}" if per > 1 else f"{1000 * value:.1f}" for value in values]
        table.add_row(name, *shown, f"{ratio(found, times[against]):.2f}x")
    console.print(table)


def minus(whole: dict[str, Times], begun: dict[str, Times]) -> dict[str, Times]:
    """The time of longer runs minus that of shorter ones."""
    return {
        name: Times(
            [a - b for a, b in zip(times.wall, begun[name].wall, strict=True)],
            [a - b for a, b in zip(times.cpu, begun[name].cpu, strict=True)],
        )
        for name, times in whole.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="miniature", help="checkpoint folder, 'miniature', or 'random'")
    defaults = {"hidden": 256, "layers": 6, "vocab": 4096, "d_router": 512, "prompt": 28, "response": 12}
    defaults |= {"responder_batch": 8, "router_batch": 16, "tokens": 64, "repeats": 5}
    for name, value in defaults.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=value)
    options = parser.parse_args()
    torch.manual_seed(0)
    if options.model != "random":
        model = load_model(options.model)
    else:
        config = LlamaConfig(
            vocab_size=options.vocab,
            hidden_size=options.hidden,
            intermediate_size=3 * options.hidden,
            num_hidden_layers=options.layers,
            num_attention_heads=max(1, options.hidden // 32),
            pad_token_id=0,
            bos_token_id=None,
            eos_token_id=None,
        )
        model = LlamaForCausalLM(config)
    model.eval()
    projections = output_projections(model)
    costs = [router_costs(p.in_features, options.d_router) for p in projections]
    factored, folded = (sum(cost[i] for cost in costs) for i in (0, 1))
    console.print(f"{model.num_parameters():,} parameters; routers {factored:,} factored, {folded:,} folded")
    console.print(f"multiply-adds a token for the gates: {factored:,} factored, {folded:,} folded", highlight=False)
    deltas = sum(2 * 8 * (p.in_features + p.out_features) for p in projections)
    console.print(f"extra parameters as run: {folded + deltas:,}; the published way holds the base twice")

    for title, ways, batch in (
        ("responder, one step", responder_ways(model, options), options.responder_batch),
        ("routers, one step", router_ways(model, options), options.router_batch),
    ):
        show(f"{title} of {batch}", "examples/s", alternate(ways, options.repeats), "ours", batch)
    first = alternate(generation_ways(model, options, 1), options.repeats)
    show("time to first token", "ms", first, "base")
    begun = alternate(generation_ways(model, options, 8), options.repeats)
    whole = alternate(generation_ways(model, options, 8 + options.tokens), options.repeats)
    show("the first eight tokens, with the hand-off", "ms", begun, "base")
    show(f"{options.tokens} tokens after them", "ms", minus(whole, begun), "base")


if __name__ == "__main__":
    main()
