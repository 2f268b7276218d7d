"""Speed and memory of supervised fine-tuning, against TRL's ``SFTTrainer``.

    python benchmarks/sft.py --data gsm8k.jsonl --tokenizer Qwen/Qwen2.5-0.5B
    python benchmarks/sft.py --data gsm8k.jsonl --tokenizer Qwen/Qwen2.5-0.5B --peer-python peers/bin/python

TRL runs in its own environment:

    python -m venv peers
    peers/bin/pip install torch==2.13.0 trl peft

There are two models: ``large``, a random Qwen2 with a vocabulary of 151,936 (4 layers, tied, ``--hidden`` wide), and
``small``, the miniature. All engines train the same LoRA adapter (r 8, all linear layers) from the same start in fp32,
on the same tokens in the same batches. The batches are ours, of rows of similar length, so the other engines pad as
little as we do. The losses of all steps are compared. TRL, whose loss is computed in chunks since 1.x, runs padded and
padding-free. A third engine is the ``Trainer`` that TRL extends, with the model's own loss over all logits, as in
earlier versions of TRL. No engine checkpoints activations.

Each run is a new process. Runs alternate; a ratio is the median over the repeats of two consecutive runs. Speed is
completion tokens per second of wall time after ``--warm-up`` steps; CPU time is given as well, for busy machines.
Memory is the peak resident size during training minus the size at its start, with model, data and optimiser loaded
(Linux).
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from peft import LoraConfig, get_peft_model
from transformers import PreTrainedModel, PreTrainedTokenizerBase, Qwen2Config, Qwen2ForCausalLM
from transformers.utils.logging import disable_progress_bar

from datamodules.records.kinds import Instruction
from datamodules.records.reader import read_records
from datamodules.training.instruction_data import InstructionData
from datamodules.training.packing import Example
from llm_modules.backbone.loading import load_model, load_tokenizer
from llm_modules.loss import LOGITS_BYTES

MB = 1e6
PEERS = {"trl": "TRL, padded", "trl_padding_free": "TRL, padding-free", "all_logits": "Trainer, all logits"}


@dataclass
class Engine:
    """A trainer, and the time and memory of its runs."""

    key: str
    name: str
    python: str
    runs: list[dict[str, Any]] = field(default_factory=list)

    def run(self, folder: Path) -> None:
        """Train once, in a new process."""
        command = [self.python, str(Path(__file__).with_name("sft_workers.py")), self.key, str(folder)]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
        if done.returncode != 0:
            raise SystemExit(f"{done.stdout}\n{self.name} ended with an error; is it installed in its environment?")
        self.runs.append(json.loads((folder / "result.json").read_text()))

    def seconds(self, clock: str, warm_up: int) -> list[float]:
        """Seconds of each run after its first steps."""
        return [run[clock][-1] - run[clock][warm_up] for run in self.runs]

    def memory(self) -> list[float]:
        """Bytes that each run took beyond what was loaded at its start."""
        return [run["peak"] - run["before"] for run in self.runs]


def large_vocabulary(tokenizer: str, hidden: int) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    config = Qwen2Config(
        vocab_size=151_936,
        hidden_size=hidden,
        intermediate_size=4 * hidden,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        tie_word_embeddings=True,
        pad_token_id=None,
    )
    return Qwen2ForCausalLM(config), load_tokenizer(tokenizer)


def write_job(folder: Path, case: str, options: argparse.Namespace) -> list[list[Example]]:
    """Write model, adapter and data as files that every environment reads; return the batches."""
    torch.manual_seed(0)
    if case == "large":
        model, tokenizer = large_vocabulary(options.tokenizer, options.hidden)
    else:
        model, tokenizer = load_model("miniature"), load_tokenizer("miniature")
    model.save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    lora = LoraConfig(r=8, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM")
    get_peft_model(model, lora).save_pretrained(str(folder / "adapter"))

    fields = dict(pair.split("=", 1) for pair in options.fields)
    n_rows = options.batch_size * (options.warm_up + options.steps)
    records = read_records(options.data, Instruction, fields=fields)[:n_rows]
    if len(records) < n_rows:
        raise SystemExit(f"{options.data} has {len(records)} rows, and {n_rows} are needed")
    lines = [json.dumps({"id": r.id, "prompt": r.prompt, "response": r.response}) for r in records]
    (folder / "data.jsonl").write_text("\n".join(lines) + "\n")
    data = InstructionData(folder / "data.jsonl", batch_size=options.batch_size)
    data.tokenizer = tokenizer
    loader = data.train_dataloader()
    batches = [[loader.examples[index] for index in batch] for batch in loader.batches]
    rows = [{"input_ids": e.input_ids, "labels": e.labels} for batch in batches for e in batch]
    (folder / "rows.json").write_text(json.dumps(rows))
    threads = int(os.environ["OMP_NUM_THREADS"])
    job = {"batch_size": options.batch_size, "rate": options.rate, "threads": threads}
    (folder / "job.json").write_text(json.dumps(job))
    return batches


def median_ratio(theirs: list[float], ours: list[float]) -> float:
    return statistics.median(a / b for a, b in zip(theirs, ours, strict=True))


def describe(case: str, vocab: int, batches: list[list[Example]]) -> None:
    """Print the computed sizes, to compare with the measured memory."""
    tokens = sum(len(e.input_ids) for batch in batches for e in batch)
    padded = [len(batch) * max(len(e.input_ids) for e in batch) for batch in batches]
    targets = [sum(label != -100 for e in batch for label in e.labels[1:]) for batch in batches]

    def size(positions: int) -> float:
        return positions * vocab * 4 / MB

    print(
        f"\n{case} vocabulary ({vocab:,}): {len(batches)} batches of {len(batches[0])} rows, {tokens} tokens, "
        f"{sum(targets)} of them learnt, {1 - tokens / sum(padded):.1%} padding\n"
        f"fp32 logits of the largest batch: {max(padded)} positions x {vocab} x 4 = {size(max(padded)):.0f} MB; "
        f"of the most learnt positions {size(max(targets)):.0f} MB; ours: {LOGITS_BYTES / MB:.0f} MB at a time",
        flush=True,
    )


def report(engines: list[Engine], batches: list[list[Example]], warm_up: int) -> None:
    """Print the table, and whether all engines trained on the same tokens."""
    ours = engines[0]
    expected = [sum(label != -100 for e in batch for label in e.labels[1:]) for batch in batches]
    learnt = sum(expected[warm_up:])
    print(
        f"{'':<20}{'tokens/s':>9} {'ours, wall':>11} {'CPU time':>9} {'memory MB':>10} {'ours':>6} {'in all':>7} "
        f"{'first loss':>11} {'last':>9} {'same tokens':>12}"
    )
    for engine in engines:
        wall, cpu, memory = engine.seconds("wall", warm_up), engine.seconds("cpu", warm_up), engine.memory()
        run = engine.runs[0]
        print(
            f"{engine.name:<20}{learnt / statistics.median(wall):>9.1f} "
            f"{median_ratio(wall, ours.seconds('wall', warm_up)):>10.2f}x "
            f"{median_ratio(cpu, ours.seconds('cpu', warm_up)):>8.2f}x "
            f"{statistics.median(memory) / MB:>10.0f} {1 / median_ratio(memory, ours.memory()):>5.2f}x "
            f"{statistics.median(r['peak'] for r in engine.runs) / MB:>7.0f} "
            f"{run['losses'][0]:>11.6f} {run['losses'][-1]:>9.6f} {run['targets'] == expected!s:>12}",
            flush=True,
        )
    gap = max(
        abs(a - b)
        for e in engines[1:] or engines
        for a, b in zip(e.runs[0]["losses"], ours.runs[0]["losses"], strict=True)
    )
    print(f"largest difference of a loss from ours, over all {len(expected)} steps: {gap:.1e}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="JSONL of prompts and responses")
    parser.add_argument("--fields", nargs="*", default=["prompt=question", "response=answer"], help="its keys")
    parser.add_argument("--tokenizer", help="hub id or folder of a Qwen2.5 tokenizer, for the large vocabulary")
    parser.add_argument("--peer-python", help="python of an environment with TRL")
    parser.add_argument("--peers", nargs="+", choices=list(PEERS), default=list(PEERS))
    parser.add_argument("--cases", nargs="+", choices=["large", "small"], default=["large", "small"])
    parser.add_argument("--hidden", type=int, default=128, help="width of the model with the large vocabulary")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--warm-up", type=int, default=2, help="steps before the clock runs")
    parser.add_argument("--steps", type=int, default=8, help="steps that are timed")
    parser.add_argument("--rate", type=float, default=1e-3, help="learning rate")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    if "large" in options.cases and not options.tokenizer:
        parser.error("the large vocabulary needs --tokenizer")
    disable_progress_bar()
    for case in options.cases:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            batches = write_job(folder, case, options)
            describe(case, json.loads((folder / "model" / "config.json").read_text())["vocab_size"], batches)
            engines = [Engine("ours", "ours", sys.executable)]
            if options.peer_python:
                engines += [Engine(key, PEERS[key], options.peer_python) for key in options.peers]
            for repeat in range(options.repeats):
                for engine in engines if repeat % 2 == 0 else reversed(engines):
                    engine.run(folder)
            print(
                f"{engines[0].runs[0]['threads']} thread(s), load {os.getloadavg()[0]:.1f}, median of {options.repeats}"
            )
            report(engines, batches, options.warm_up)


if __name__ == "__main__":
    main()
