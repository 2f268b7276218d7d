"""Latency of a single prompt: time to the first token, and time per further token."""

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
"""Prompts that are answered first, untimed."""


@dataclass(frozen=True)
class Times:
    """Medians over prompts in milliseconds of wall time; ``threads`` is the number of CPU threads."""

    first_token_ms: float
    next_token_ms: float
    prompts: int
    tokens: int
    device: str
    threads: int


class Latency(Callback):
    """Writes ``latency.json`` at the end of a test, answering one prompt at a time as for a single user.

    Each prompt is answered with one token, then with several. The extra time divided by the extra tokens is the time
    per further token; it includes whatever a method does between tokens, such as reading the prompt again. Logs
    ``test/first_token_ms`` and ``test/next_token_ms``.
    """

    def __init__(self, prompts: int = 20, tokens: int = 32, output: Path | None = None) -> None:
        """Choose how much is timed.

        Args:
            prompts: Number of prompts, spread evenly over the rows of the test.
            tokens: Token budget of an answer.
            output: Folder of the file; the run folder by default.
        """
        if prompts < 1 or tokens < 2:
            raise InputError("trainer.callbacks: Latency: prompts must be 1 or more, tokens 2 or more")
        self.prompts, self.tokens, self.output = prompts, tokens, output

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check the data and the model. InputError if there are no prompts, or the model is sharded."""
        data = datamodule_of(trainer)
        if not isinstance(data, GenerationData) or not data.rows:
            raise InputError("trainer.callbacks: Latency times answers to prompts, but the data have no prompts")
        if language_model(pl_module).device_mesh is not None:
            raise InputError("trainer.callbacks: Latency cannot time a sharded model; run it on one device")

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure and write the file."""
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
    """Time the answers to some of the rows, one at a time. InputError if every answer ends at its first token."""
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
        raise InputError("trainer.callbacks: Latency cannot time further tokens: every answer ends at its first token")
    return Times(
        round(1000 * median(first), 3),
        round(1000 * median(further), 4),
        len(chosen),
        most,
        str(module.device),
        torch.get_num_threads(),
    )


def _timed(module: CausalLM, row: PromptRow, tokens: int) -> tuple[float, int]:
    """Seconds and tokens of an answer."""
    start = time.perf_counter()
    (completion,) = module.complete(PromptBatch([replace(row, max_new_tokens=tokens)]))
    return time.perf_counter() - start, len(completion.token_ids)
