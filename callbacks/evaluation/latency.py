"""What a model takes for one prompt: time to the first token, and for each one after it."""

import json
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info

from callbacks.trainer_parts import datamodule_of, language_model
from datamodules.batch import PromptBatch, PromptRow
from datamodules.errors import InputError
from datamodules.prompts.prompt_data import GenerationData
from llm_modules.causal_lm import CausalLM

WARM_UP = 2
"""Prompts that are not timed."""


@dataclass(frozen=True)
class Times:
    """Medians over prompts, in milliseconds of wall time; ``threads`` is what a CPU computes with."""

    first_token_ms: float
    next_token_ms: float
    prompts: int
    tokens: int
    device: str
    threads: int


class Latency(Callback):
    """Writes ``latency.json`` at the end of a test: prompts one at a time, as to a single user.

    Each prompt is answered with one token and then with several; what the second takes beyond the first, by the tokens
    that it has more, is the time of a further token. What a method does between tokens, such as reading the prompt
    anew, is in it. Logs ``test/first_token_ms`` and ``test/next_token_ms``.
    """

    def __init__(self, prompts: int = 20, tokens: int = 32, output: Path | None = None) -> None:
        """Say how much is timed.

        Args:
            prompts: How many, spread over the rows of the test.
            tokens: Most tokens of an answer.
            output: Folder, the run folder by default.
        """
        if prompts < 1 or tokens < 2:
            raise InputError("trainer.callbacks: Latency needs prompts of 1 or more and tokens of 2 or more")
        self.prompts, self.tokens, self.output = prompts, tokens, output

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check that there is something to time.

        Raises:
            InputError: There are no prompts, or the model is sharded, so that one process alone cannot run it.
        """
        data = datamodule_of(trainer)
        if not isinstance(data, GenerationData) or not data.rows:
            raise InputError("trainer.callbacks: Latency times answers to prompts, and the data have none")
        if language_model(pl_module).device_mesh is not None:
            raise InputError("trainer.callbacks: Latency times a model on one device; this one is sharded")

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure."""
        if not trainer.is_global_zero:
            return
        rows = datamodule_of(trainer).rows
        with trainer.precision_plugin.forward_context():
            times = measure(language_model(pl_module), rows, self.prompts, self.tokens)
        folder = self.output or Path(trainer.default_root_dir)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "latency.json").write_text(json.dumps(asdict(times), indent=2) + "\n", encoding="utf-8")
        numbers = {"test/first_token_ms": times.first_token_ms, "test/next_token_ms": times.next_token_ms}
        for logger in trainer.loggers:
            logger.log_metrics(numbers)
        rank_zero_info(f"first token {times.first_token_ms:.1f} ms, each further one {times.next_token_ms:.2f} ms")


def measure(module: CausalLM, rows: list[PromptRow], prompts: int, tokens: int) -> Times:
    """Time answers to some of the rows, one at a time.

    Raises:
        InputError: Every answer ends at its first token.
    """
    n = min(prompts, len(rows))
    chosen = [rows[number * len(rows) // n] for number in range(n)]
    first, further, most = [], [], 1
    for number, row in enumerate([*chosen[:WARM_UP], *chosen]):
        begun, _ = _timed(module, row, 1)
        whole, n = _timed(module, row, tokens)
        if number < WARM_UP:
            continue
        first.append(begun)
        most = max(most, n)
        if n > 1:
            further.append((whole - begun) / (n - 1))
    if not further:
        raise InputError("trainer.callbacks: Latency has nothing to time: every answer ends at its first token")
    return Times(
        round(1000 * median(first), 3),
        round(1000 * median(further), 4),
        len(chosen),
        most,
        str(module.device),
        torch.get_num_threads(),
    )


def _timed(module: CausalLM, row: PromptRow, tokens: int) -> tuple[float, int]:
    """Seconds that an answer takes, and how many tokens it has."""
    start = time.perf_counter()
    (completion,) = module.complete(PromptBatch([replace(row, max_new_tokens=tokens)]))
    return time.perf_counter() - start, len(completion.token_ids)
