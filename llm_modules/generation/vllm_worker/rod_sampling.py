"""Sampling inside vLLM's workers by the random numbers of each row: the tokens that the other engines sample."""

import importlib.util
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

try:
    from vllm.v1.sample.logits_processor import LogitsProcessor
except ImportError:  # tests run without vLLM
    LogitsProcessor = object


def _token_sampling() -> Any:
    """The project's own module, which needs torch only; the packages that it is in need more."""
    file = Path(__file__).parents[1] / "token_sampling.py"
    spec = importlib.util.spec_from_file_location("rod_token_sampling", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@dataclass(frozen=True)
class Draws:
    """How a row samples: its random numbers, one for each token, and temperature, top-p and top-k."""

    uniforms: list[float]
    settings: tuple[float, float, int]
    output: list[int]
    """The tokens that the row has; vLLM appends to them."""


class RowSampling(LogitsProcessor):
    """Leaves one token possible in each row that samples; ``SamplingParams.extra_args["draws"]`` has its settings."""

    def __init__(self, vllm_config: Any, device: Any, is_pin_memory: bool) -> None:
        self.rows: dict[int, Draws] = {}
        self.sampling = _token_sampling()

    def is_argmax_invariant(self) -> bool:
        """It changes the most likely token."""
        return False

    def update_state(self, batch_update: Any) -> None:
        """Follow the rows of the batch."""
        if batch_update is None:
            return
        for index in batch_update.removed:
            self.rows.pop(index, None)
        for index, params, _, output in batch_update.added:
            self.rows.pop(index, None)
            own = (params.extra_args or {}).get("draws")
            own = json.loads(own) if isinstance(own, str) else own  # a request to the server carries JSON
            if own is not None:
                drawn = own.get("drawn", 0)
                uniforms = self.sampling.row_uniforms(own["seed"], drawn + params.max_tokens)[drawn:].tolist()
                self.rows[index] = Draws(uniforms, (own["temperature"], own["top_p"], own["top_k"]), output)
        for one, other, direction in batch_update.moved:
            first, second = self.rows.pop(one, None), self.rows.pop(other, None)
            if first is not None:
                self.rows[other] = first
            if second is not None and direction.name == "SWAP":
                self.rows[one] = second

    def apply(self, logits: Tensor) -> Tensor:
        """Logits (rows, vocab) with -inf for all but the sampled tokens, in rows that sample."""
        groups: dict[tuple[float, float, int], list[int]] = {}
        for index, row in self.rows.items():
            groups.setdefault(row.settings, []).append(index)
        for settings, indices in groups.items():
            # Of a prompt that is not read to its end the token is thrown away.
            drawn = [self.rows[index].uniforms[len(self.rows[index].output)] for index in indices]
            uniforms = torch.tensor(drawn, device=logits.device)
            own = torch.tensor(indices, device=logits.device)
            chosen = self.sampling.sample_tokens(logits[own], uniforms, *settings)
            logits[own] = float("-inf")
            logits[own, chosen] = 0.0
        return logits
