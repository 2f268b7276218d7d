"""The memory that ``rod plan`` counts for a fit, against the peak of a real one on the CPU.

    python benchmarks/plan.py

Llamas with random weights are trained for three steps of full rows. Peak is the largest resident size of the process,
less what it had before the model was loaded; freed blocks go back to the kernel at once. Linux.
"""

import argparse
import ctypes
import importlib
import os
import sys
import tempfile
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from lightning.pytorch import Trainer
from peft import LoraConfig
from transformers import LlamaConfig

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import random_llama
from datamodules.training.packing import Example
from datamodules.training.supervised import SupervisedData
from llm_modules.causal_lm import CausalLM
from rod.noise import be_quiet
from rod.plan.memory import Fit, Parts


@dataclass(frozen=True)
class Shape:
    """A fit: the model's width and layers, the batch, and how it is trained."""

    hidden: int
    layers: int
    rows: int
    length: int
    lora: bool = False
    recomputes: bool = False
    optimizer: type = torch.optim.AdamW

    def config(self) -> LlamaConfig:
        """The model's configuration."""
        return random_llama.config(self.hidden, self.layers, 11 * self.hidden // 4)

    def peft(self) -> LoraConfig | None:
        """The adapter's configuration, if one is trained."""
        return LoraConfig(r=8, target_modules="all-linear") if self.lora else None


SHAPES = [
    Shape(1024, 4, 2, 256),
    Shape(768, 8, 4, 128),
    Shape(1024, 4, 2, 256, optimizer=torch.optim.SGD),
    Shape(1024, 4, 4, 256, lora=True),
    Shape(768, 8, 1, 768, lora=True),
    Shape(1024, 4, 8, 256, lora=True, recomputes=True),
]


class FullRows(SupervisedData):
    """Three batches of rows of one length."""

    def __init__(self, rows: int, length: int) -> None:
        super().__init__(batch_size=rows)
        self.rows, self.length = rows, length

    def train_examples(self, stage: int) -> Sequence[Example]:
        """Random tokens."""
        tokens = torch.randint(2, random_llama.VOCABULARY, (3 * self.rows, self.length)).tolist()
        return [Example(tuple(row), tuple(row)) for row in tokens]

    def val_examples(self) -> Sequence[Example]:
        """None."""
        return []


def planned(shape: Shape) -> Parts:
    """What ``rod plan`` counts."""
    fit = Fit(
        shape.config(),
        partial(shape.optimizer, lr=1e-4),
        shape.rows,
        shape.length,
        peft=shape.peft(),
        recomputes=shape.recomputes,
    )
    return fit.counted().parts("one device", 1)


def status(name: str) -> int:
    """A size of this process in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(f"{name}:")).split()[1])


def fit(shape: Shape, folder: Path) -> int:
    """Train; the peak in bytes."""
    before = status("VmRSS")
    model = CausalLM(
        str(folder),
        peft=shape.peft(),
        activation_checkpointing=shape.recomputes,
        optimizer=partial(shape.optimizer, lr=1e-4),
    )
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=1,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        use_distributed_sampler=False,
        default_root_dir=folder,
    )
    trainer.fit(model, datamodule=FullRows(shape.rows, shape.length))
    return status("VmHWM") - before


def measured(shape: Shape) -> int:
    """The peak of a fit in a process of its own."""
    reading, writing = os.pipe()
    with tempfile.TemporaryDirectory() as place:
        if not os.fork():
            random_llama.write(Path(place), shape.config())
            os._exit(0)
        os.wait()
        if not os.fork():
            Path("/proc/self/clear_refs").write_text("5")  # the peak begins here
            os.write(writing, str(fit(shape, Path(place))).encode())
            os._exit(0)
        os.wait()
    os.close(writing)
    return int(os.read(reading, 100))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", action="store_true", help="print what the sum is made of")
    options = parser.parse_args()
    os.environ |= {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    torch.set_num_threads(1)
    ctypes.CDLL(None).mallopt(-3, 2**20)
    warnings.simplefilter("ignore")
    for module in ("transformers.models.llama.modeling_llama", "torch._dynamo"):
        importlib.import_module(module)
    print("| trained | width x layers | rows x length | planned MB | peak MB | peak / planned |")
    print("|---|---|---|--:|--:|--:|")
    for shape in SHAPES:
        plan, peak = planned(shape), measured(shape)
        trained = "LoRA" if shape.lora else f"all, {shape.optimizer.__name__}"
        trained += ", recomputing" if shape.recomputes else ""
        sizes = f"{shape.hidden} x {shape.layers} | {shape.rows} x {shape.length}"
        print(
            f"| {trained} | {sizes} | {plan.total / 1e6:.0f} | {peak / 1e6:.0f} | {peak / plan.total:.2f} |", flush=True
        )
        if options.parts:
            print(plan)


if __name__ == "__main__":
    be_quiet()
    main()
