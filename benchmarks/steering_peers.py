"""repeng and steering-vectors at the job of ``benchmarks/steering.py``, in an environment of their own.

Started by that script with ``--peer-python``. Reads a batch size a line, answers with a line of JSON. Each peer is used
the way its documentation shows: one strength at a time, over batches of questions.
"""

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, StoppingCriteria, StoppingCriteriaList, __version__


class Limits(StoppingCriteria):
    """Ends each row where an end-of-sequence token would."""

    def __init__(self, ends: torch.Tensor) -> None:
        self.ends = ends

    def __call__(self, input_ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
        """Which rows are complete: (batch,) bool."""
        return self.ends <= input_ids.shape[1]


class Peer:
    """A model under the control of one of the libraries."""

    def __init__(self, name: str, folder: Path) -> None:
        self.job = json.loads((folder / "job.json").read_text())
        self.model = AutoModelForCausalLM.from_pretrained(folder).eval()
        vectors, layers = load_file(folder / "vectors.safetensors")["vectors"], self.job["layers"]
        if name == "repeng":
            from repeng import ControlModel, ControlVector

            control = ControlModel(self.model, layers)
            vector = ControlVector("llama", {layer: vectors[layer].numpy() for layer in layers})

            @contextmanager
            def strength(alpha: float) -> Iterator[None]:
                control.set_control(vector, alpha)
                yield
                control.reset()

        else:
            from steering_vectors import SteeringVector

            steering = SteeringVector({layer: vectors[layer] for layer in layers})

            @contextmanager
            def strength(alpha: float) -> Iterator[None]:
                with steering.apply(self.model, multiplier=alpha):
                    yield

        self.strength = strength

    @torch.no_grad()
    def sample(self, size: int) -> list[list[int]]:
        """All completions: question by question, strength by strength."""
        questions = range(len(self.job["prompts"]))
        done: dict[tuple[int, int], list[int]] = {}
        for index, alpha in enumerate(self.job["alphas"]):
            with self.strength(alpha):
                for start in range(0, len(questions), size):
                    batch = questions[start : start + size]
                    done.update(zip([(q, index) for q in batch], self.generate(batch, index), strict=True))
        return [done[key] for key in sorted(done)]

    def generate(self, questions: range, alpha: int) -> list[list[int]]:
        """One batch at the strength that is set, left-padded, greedy."""
        prompts = [self.job["prompts"][q] for q in questions]
        limits = [self.job["limits"][q][alpha] for q in questions]
        width = max(map(len, prompts))
        out = self.model.generate(
            input_ids=torch.tensor([[0] * (width - len(p)) + p for p in prompts]),
            attention_mask=torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts]),
            do_sample=False,
            pad_token_id=0,
            eos_token_id=self.job["eos"],
            max_new_tokens=max(limits),
            stopping_criteria=StoppingCriteriaList([Limits(width + torch.tensor(limits))]),
        )
        return [self.end(row[width : width + limit].tolist()) for row, limit in zip(out, limits, strict=True)]

    def end(self, tokens: list[int]) -> list[int]:
        """A completion up to its first end-of-sequence token."""
        ends = [tokens.index(eos) + 1 for eos in self.job["eos"] or () if eos in tokens]
        return tokens[: min(ends, default=len(tokens))]


def main() -> None:
    name, folder, threads = sys.argv[1:]
    torch.set_num_threads(int(threads))
    peer = Peer(name, Path(folder))
    print(json.dumps({"transformers": __version__, "torch": torch.__version__}), flush=True)
    for line in sys.stdin:
        wall, cpu = time.perf_counter(), time.process_time()
        completions = peer.sample(int(line))
        times = {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}
        print(json.dumps(times | {"completions": completions}), flush=True)


if __name__ == "__main__":
    main()
