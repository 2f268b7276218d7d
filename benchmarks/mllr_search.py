"""Cost of ML-LR: savings of restarted passes in its search, and overhead of parameter groups in training.

    python benchmarks/mllr_search.py
    python benchmarks/mllr_search.py --backbone Qwen/Qwen2.5-0.5B-Instruct --twins twins.jsonl --pairs 64

*Search*: the same map, search and stability report twice: with restarts at the first perturbed layer and shared
features, and with a whole forward pass for each measurement. Both must find the same, to the bit. A layer evaluation is
one decoder layer on one token.

*Groups*: optimiser steps on the same batch with one learning rate for all and with ML-LR's groups, in turn; the ratio
is the median over pairs of runs that follow one another.
"""

import argparse
import os
import statistics
import sys
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from datamodules.mllr.records import Twins
from datamodules.mllr.twin_data import families
from datamodules.prompts.chat_template import encode_prompt, render_prompt
from datamodules.prompts.contrast_data import ContrastPair
from datamodules.records.reader import read_records
from datamodules.world import tuning
from llm_modules.backbone.loading import load_model, load_tokenizer
from llm_modules.mllr.investigation import Investigation, ProxySettings, investigate
from llm_modules.mllr.search import SearchSettings
from llm_modules.optim.learning_rates import LearningRates
from llm_modules.optim.parameter_groups import named_groups
from llm_modules.optim.schedules import WarmupConstant


def pairs_of(options: argparse.Namespace) -> list[ContrastPair]:
    if options.twins:
        twins = read_records(options.twins, Twins)[: options.pairs]
        return [ContrastPair(twin.id, twin.malicious, twin.benign) for twin in twins]
    found = tuning.twins("train")[:: max(1, len(tuning.twins("train")) // options.pairs)][: options.pairs]
    return [ContrastPair(bad.id, bad.prompt, good.prompt) for bad, good in found]


def search(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, options: argparse.Namespace, restart: bool
) -> Investigation:
    template = None if tokenizer.chat_template else "plain"
    pairs = pairs_of(options)

    def encode(text: str) -> list[int]:
        return encode_prompt(tokenizer, render_prompt(tokenizer, text, template=template))

    seeds = tuple(range(options.seeds))
    proxy = ProxySettings(eps=(options.eps,), floor=0.0, stability=not options.no_stability)
    settings = SearchSettings(options.tau, seeds=seeds, check_seeds=tuple(seed + 100 for seed in seeds))
    malicious, benign = (
        [encode(text) for text in texts] for texts in zip(*((p.positive, p.negative) for p in pairs), strict=True)
    )
    return investigate(model, malicious, benign, families(pairs), proxy, settings, report=print, restart=restart)


def compare_searches(options: argparse.Namespace) -> None:
    model, tokenizer = load_model(options.backbone).eval(), load_tokenizer(options.backbone)
    cpu = time.process_time()
    cached = search(model, tokenizer, options, restart=True)
    cached_cpu, cpu = time.process_time() - cpu, time.process_time()
    whole = search(model, tokenizer, options, restart=False)
    whole_cpu = time.process_time() - cpu
    same = cached.found == whole.found and cached.stability == whole.stability
    same &= [one for _, one in cached.measurements] == [one for _, one in whole.measurements]
    print(
        "\n| search | measurements | forward passes | layer evaluations | wall s | CPU s |\n|---|---|---|---|---|---|"
    )
    for name, result, seconds in (("restarted", cached, cached_cpu), ("whole passes", whole, whole_cpu)):
        work = result.work
        print(f"| {name} | {work.requests} | {work.passes} | {work.done:,} | {result.seconds:.1f} | {seconds:.1f} |")
    done, full = cached.work.done, whole.work.done
    print(f"layer evaluations: {full:,} / {done:,} = {full / done:.2f}x fewer")
    print(f"wall time: {whole.seconds:.1f} / {cached.seconds:.1f} = {whole.seconds / cached.seconds:.2f}x less")
    print(f"CPU time: {whole_cpu:.1f} / {cached_cpu:.1f} = {whole_cpu / cached_cpu:.2f}x less")
    print(f"the same scores, modules and overlaps to the bit: {same}")


def compare_groups(options: argparse.Namespace) -> None:
    def steps(groups: bool) -> float:
        torch.manual_seed(0)
        model = load_model(options.backbone)
        rates = LearningRates(modules=["layers.*.q", "layers.*.v"]) if groups else LearningRates(policy="uniform")
        part_of = rates.parts(model, options.backbone).of if groups else None
        named = named_groups(model.named_parameters(), part_of)
        optimizer = torch.optim.AdamW(named, lr=1e-4)
        stepped = rates.schedule(WarmupConstant, optimizer, 1000) if groups else WarmupConstant(optimizer, 1000)
        ids = torch.randint(3, 500, (16, 64), generator=torch.Generator().manual_seed(0))
        start = 0.0
        for step in range(options.steps + 5):
            if step == 5:
                start = time.process_time()
            model(input_ids=ids, labels=ids, use_cache=False).loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            stepped.step()
        return (time.process_time() - start) / options.steps

    rows = [(steps(False), steps(True)) for _ in range(options.repeats)]
    one, many = (statistics.median(column) for column in zip(*rows, strict=True))
    ratio = statistics.median(b / a for a, b in rows)
    print("\n| groups | CPU ms a step |\n|---|---|")
    print(f"| one rate (3 groups) | {1e3 * one:.2f} |\n| ML-LR (4 groups, multiplied schedule) | {1e3 * many:.2f} |")
    print(f"ML-LR / one rate, median of {options.repeats} pairs: {ratio:.4f} ({100 * (ratio - 1):+.2f} %)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="miniature")
    parser.add_argument("--twins", help="JSONL file of twins; those of the miniature's world by default")
    parser.add_argument("--pairs", type=int, default=96)
    parser.add_argument("--eps", type=float, default=0.6)
    parser.add_argument("--tau", type=float, default=0.2, help="as in configs/mllr/controls/noise.yaml")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--no-stability", action="store_true", help="map and one search only")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--only", choices=["search", "groups"])
    options = parser.parse_args()
    if options.only != "groups":
        compare_searches(options)
    if options.only != "search":
        compare_groups(options)


if __name__ == "__main__":
    main()
