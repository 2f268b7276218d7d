"""A run with the engine ``vllm`` that is killed again and again: are traces lost or doubled?

    python benchmarks/engine_kills.py
    python benchmarks/engine_kills.py --kills 3 --questions 60

The miniature answers questions at three strengths. Once some more traces are written, the process of vLLM is killed
(SIGKILL), and then the run itself, in turn; the same command goes on. In the end its traces are compared with those of
a run that nobody has killed.
"""

import argparse
import json
import multiprocessing
import os
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from lightning.pytorch import Trainer

from callbacks.generation.traces import TraceWriter
from callbacks.s3cot.steer import Steer
from datamodules.errors import InputError
from datamodules.prompts.prompt_data import PromptData
from llm_modules.generation import GenerationSettings
from llm_modules.s3cot import Direction
from llm_modules.s3cot.module import S3CoT

STEP = 12
"""Traces after which something is killed."""
MERGED = "traces/traces.jsonl"


def prepare(folder: Path, questions: int) -> None:
    """A direction, and questions."""
    vectors = torch.randn(6, 128, generator=torch.Generator().manual_seed(0))
    Direction(vectors, model="miniature", anchor=2).save(folder / "direction.safetensors")
    lines = [json.dumps({"id": f"q{i}", "question": f"What is {i} + {3 * i}?"}) for i in range(questions)]
    (folder / "questions.jsonl").write_text("\n".join(lines))


def predict(folder: Path, root: Path) -> None:
    """Sample the traces that are missing."""
    settings = GenerationSettings(engine="vllm", max_new_tokens=48, slots=4, temperature=1.0)
    settings.vllm.options = {"max_model_len": 512}
    trainer = Trainer(
        default_root_dir=root,
        callbacks=[Steer(folder / "direction.safetensors"), TraceWriter()],
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )
    data = PromptData(folder / "questions.jsonl", alphas=[0.0, -0.5, 0.5], layer_sets=["anchor:2"], seed=0)
    try:
        trainer.predict(S3CoT("miniature", generation=settings), data, return_predictions=False)
    except InputError as error:
        print(error, file=sys.stderr)
        sys.exit(2)


def workers(pid: int) -> list[int]:
    """The processes of vLLM under a run."""
    children = [
        int(child) for file in Path(f"/proc/{pid}").glob("task/*/children") for child in file.read_text().split()
    ]
    return [child for child in children if b"vllm_worker" in Path(f"/proc/{child}/cmdline").read_bytes()]


def ended(pid: int, seconds: float = 30.0) -> bool:
    """Whether a process ends within that time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except OSError:
            return True
        time.sleep(0.05)
    return False


def count(shard: Path) -> int:
    return shard.read_bytes().count(b"\n") if shard.exists() else 0


def start(folder: Path, root: Path) -> Any:
    process = multiprocessing.get_context("spawn").Process(target=predict, args=(folder, root))
    process.start()
    return process


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=5, help="of each kind")
    parser.add_argument("--questions", type=int, default=250)
    args = parser.parse_args()

    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tempfile.tempdir = os.environ["TMPDIR"] = name  # logs of vLLM
        prepare(folder, args.questions)
        shard = folder / "killed/traces/traces.rank0.jsonl"
        left = 0
        for kill in range(2 * args.kills):
            before, run = count(shard), start(folder, folder / "killed")
            while run.is_alive() and count(shard) < before + STEP:
                time.sleep(0.05)
            if not run.is_alive():
                raise RuntimeError("the run has ended by itself; give more --questions")
            (worker,) = workers(run.pid)
            kind = "vLLM" if kill % 2 == 0 else "run"
            os.kill(worker if kind == "vLLM" else run.pid, signal.SIGKILL)
            run.join()
            left += not ended(worker)
            print(f"{kill + 1}: {kind} killed, the run ended with {run.exitcode}, {count(shard)} traces", flush=True)
        for root in ("killed", "whole"):
            run = start(folder, folder / root)
            run.join()
            assert run.exitcode == 0
        written = Counter(json.loads(line)["id"] for line in shard.read_text().splitlines())
        whole, killed = (
            {trace["id"]: trace["completion"] for trace in map(json.loads, (folder / root / MERGED).open())}
            for root in ("whole", "killed")
        )
        print(
            f"{args.kills} kills of vLLM and {args.kills} of the run: of {len(whole)} traces "
            f"{len(whole.keys() - killed.keys())} lost, {sum(number > 1 for number in written.values())} doubled, "
            f"{sum(whole[row] != killed.get(row) for row in whole)} differ; processes left: {left}"
        )


if __name__ == "__main__":
    main()
