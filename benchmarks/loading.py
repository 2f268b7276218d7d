"""Host memory of two processes that load one model, as a multiple of its weights.

    python benchmarks/loading.py

A Llama with random weights is written in several files. For each strategy two processes load it as ``rod`` does. Their
proportional set sizes are summed every 20 ms (memory that both share counts once), less what they had before. *Own* is
what the processes have to themselves; the rest are pages of the weight files, which the kernel takes back when memory
is needed. Linux.
"""

import argparse
import ctypes
import importlib
import os
import socket
import sys
import tempfile
import time
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.utilities.rank_zero import rank_zero_only
from lightning.pytorch import Trainer
from lightning.pytorch.strategies import ModelParallelStrategy

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import random_llama
from llm_modules.causal_lm import CausalLM


def load(folder: Path, strategy: str, dtype: Any, rank: int, port: int, gate: int) -> None:
    """One of the two processes: wait for the gate, load, wait to be ended."""
    warnings.simplefilter("ignore")
    os.environ |= {"LOCAL_RANK": str(rank), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    vars(rank_zero_only)["rank"] = rank
    chosen: Any = strategy
    if strategy == "fsdp":
        chosen = ModelParallelStrategy(data_parallel_size=2, tensor_parallel_size=1)
    trainer = Trainer(
        accelerator="cpu",
        devices=2,
        strategy=chosen,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        use_distributed_sampler=False,
    )
    model = CausalLM(str(folder), dtype=dtype)
    trainer.strategy._lightning_module = model
    os.read(gate, 1)
    trainer.predict(model, [torch.zeros(0)], return_predictions=False)


def set_size(process: int) -> tuple[int, int]:
    """Proportional set size in bytes, and the part of it that is no page of a file."""
    values = {}
    for line in Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()[1:]:
        name, value = line.split(":")
        values[name] = 1024 * int(value.split()[0])
    return values["Pss"], values["Pss_Anon"]


def measure(folder: Path, strategy: str, dtype: str) -> tuple[int, int, int]:
    """Peak of both processes together, the largest own part, and the own part in the end, all less the start."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    gate, opened = os.pipe()
    processes = []
    for rank in range(2):
        if not (process := os.fork()):
            status = 1
            try:
                load(folder, strategy, dtype, rank, port, gate)
                status = 0
            finally:
                os._exit(status)
        processes.append(process)
    time.sleep(5)
    start = [sum(values) for values in zip(*map(set_size, processes), strict=True)]
    os.write(opened, b"xx")
    peak, own, last = 0, 0, 0
    while True:
        ended = [os.waitpid(process, os.WNOHANG) for process in processes]
        if any(done for done, _ in ended):
            break
        with suppress(OSError):  # one has just ended
            sizes = zip(*map(set_size, processes), strict=True)
            now = [sum(values) - before for values, before in zip(sizes, start, strict=True)]
            peak, own, last = max(peak, now[0]), max(own, now[1]), now[1]
        time.sleep(0.02)
    for process, (done, status) in zip(processes, ended, strict=True):
        if not done:
            _, status = os.waitpid(process, 0)
        if status:
            raise SystemExit(f"{strategy}: status {status}")
    return peak, own, last


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=16, help="28 million parameters each, and 25 million beside them")
    options = parser.parse_args()
    os.environ |= {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    torch.set_num_threads(1)
    # Freed matrices go back to the kernel, as those of large models do, which have more than 32 MB.
    ctypes.CDLL(None).mallopt(-3, 2**22)
    importlib.import_module("transformers.models.llama.modeling_llama")  # before the processes are forked
    shape = random_llama.config(1536, options.layers, 4096)

    print("| weights in the files | loaded as | strategy | peak | largest own | own in the end |")
    print("|---|---|---|--:|--:|--:|")
    for stored in ("bfloat16", "float32"):
        with tempfile.TemporaryDirectory() as place:
            weights = random_llama.write(Path(place), shape, getattr(torch, stored), shard="200MB")
            weights //= getattr(torch, stored).itemsize
            for dtype in ("bfloat16", "float32") if stored == "bfloat16" else ("float32",):
                loaded = weights * getattr(torch, dtype).itemsize
                for strategy in ("ddp", "fsdp"):
                    numbers = [f"{n / loaded:.2f} x" for n in measure(Path(place), strategy, dtype)]
                    print(f"| {stored} | {dtype} | {strategy} | " + " | ".join(numbers) + " |", flush=True)


if __name__ == "__main__":
    main()
