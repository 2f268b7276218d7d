"""Figures and a table of the gates on the prompts of a run (paper, sec. 4.5)."""

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from callbacks.mogu.figures import plot_gates, plot_tokens
from callbacks.trainer_parts import datamodule_of, log_figure
from datamodules.batch import IGNORE_INDEX, PromptRow
from datamodules.errors import InputError
from datamodules.mogu.batch import RouterBatch
from datamodules.padding import pad_prompts
from datamodules.records.shards import write_lines
from datamodules.suites.benchmark_data import BenchmarkData
from llm_modules.mogu.module import MoGU

CLASSES = ("benign", "malicious")


class GateFigures(Callback):
    """Writes figures and tables of the gates after each validation over ``RouterData``.

    ``gates.png``: box plots by class and layer, at the last token of each prompt, which decides how the answer begins.
    ``gates_tokens.png`` and ``.json``: one prompt of each class, token by token. ``gates.csv``: means. With several
    processes, all show the prompts of the first one.
    """

    def __init__(self, output: Path | None = None) -> None:
        """Set the place of the files.

        Args:
            output: Folder; the run folder by default.
        """
        self.output = output
        self._gates: dict[str, list[Tensor]] = {}
        self._tokens: dict[str, tuple[list[str], Tensor]] = {}

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Raise InputError if the model has no gates."""
        if not isinstance(pl_module, MoGU):
            raise InputError(f"trainer.callbacks: GateFigures shows gates, and {type(pl_module).__name__} has none")

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forget the gates of an earlier validation."""
        self._gates, self._tokens = {name: [] for name in CLASSES}, {}

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keep the gates of the prompts, which the validation step returns."""
        if not isinstance(batch, RouterBatch) or not trainer.is_global_zero:
            return
        assert isinstance(pl_module, MoGU)
        gates = outputs["gates"].permute(1, 2, 0, 3).float().cpu()
        last = (batch.rows.labels != IGNORE_INDEX).int().argmax(dim=1).cpu() - 1
        for row, malicious in enumerate(batch.malicious.tolist()):
            name = CLASSES[malicious]
            end = int(last[row])
            self._gates[name].append(gates[row, end])
            if name not in self._tokens:
                ids = batch.rows.input_ids[row, : end + 1].tolist()
                texts = [str(pl_module.tokenizer.decode([token])) for token in ids]
                self._tokens[name] = texts, gates[row, : end + 1]

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the figures."""
        if not trainer.is_global_zero or not any(self._gates.values()):
            return
        assert isinstance(pl_module, MoGU)
        stacked = {name: torch.stack(values) for name, values in self._gates.items() if values}
        _write(trainer, self.output, pl_module.mogu.layers, stacked, self._tokens)
        if len(stacked) < 2:
            rank_zero_warn(
                f"the figures of the gates show {', '.join(stacked)} prompts only: the validation data have no others"
            )


class SuiteGates(Callback):
    """Writes the same files before a test, on its held-out prompts, with one class per suite.

    Prompts that begin the answer (prefill) are left out: their last token is another one. ``gates_tokens.png`` shows
    the first malicious prompt and the benign prompt that has most tokens in common with it.
    """

    def __init__(self, output: Path | None = None) -> None:
        """Set the place of the files.

        Args:
            output: Folder; the run folder by default.
        """
        self.output = output

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Compute the gates of all prompts; InputError if the model has none, or the data are no suites."""
        data = datamodule_of(trainer)
        if not isinstance(pl_module, MoGU) or not isinstance(data, BenchmarkData):
            raise InputError("trainer.callbacks: SuiteGates shows the gates of a MoGU on the suites of BenchmarkData")
        if not trainer.is_global_zero:
            return
        by_suite: dict[str, list[PromptRow]] = {}
        for row in data.rows:
            if not row.prefill:
                by_suite.setdefault(row.suite, []).append(row)
        gates = {name: torch.stack(_last_gates(pl_module, rows)) for name, rows in by_suite.items()}
        kinds = {
            kind: [n for n in by_suite if (data.suites[n].kind == "safety") == (kind == "malicious")]
            for kind in CLASSES
        }
        ordered = {name: gates[name] for kind in CLASSES for name in kinds[kind]}
        tokens = {}
        if all(kinds.values()):
            bad = by_suite[kinds["malicious"][0]][0]
            good = max((row for name in kinds["benign"] for row in by_suite[name]), key=lambda row: _alike(row, bad))
            for name, row in (("benign", good), ("malicious", bad)):
                texts = [str(pl_module.tokenizer.decode([token])) for token in row.token_ids]
                tokens[name] = texts, _gates_of(pl_module, [row])[0]
        _write(trainer, self.output, pl_module.mogu.layers, ordered, tokens)


def _last_gates(module: MoGU, rows: Sequence[PromptRow], size: int = 64) -> list[Tensor]:
    """Gates (layers, 2) of the last token of each prompt."""
    parts = (rows[start : start + size] for start in range(0, len(rows), size))
    return [gates[-1] for part in parts for gates in _gates_of(module, part)]


def _gates_of(module: MoGU, rows: Sequence[PromptRow]) -> list[Tensor]:
    """Gates (tokens, layers, 2) of each prompt."""
    ids, mask = (t.to(module.language_model.device) for t in pad_prompts([row.token_ids for row in rows], 0))
    gates = module.mogu.gates(ids, mask).permute(1, 2, 0, 3).float().cpu()
    return [of_row[: len(row.token_ids)] for of_row, row in zip(gates, rows, strict=True)]


def _alike(one: PromptRow, other: PromptRow) -> int:
    """Number of places at which two prompts have the same token; -1 if their lengths differ."""
    if len(one.token_ids) != len(other.token_ids):
        return -1
    return sum(a == b for a, b in zip(one.token_ids, other.token_ids, strict=True))


def _write(
    trainer: Trainer,
    output: Path | None,
    layers: Sequence[int],
    gates: Mapping[str, Tensor],
    tokens: Mapping[str, tuple[list[str], Tensor]],
) -> None:
    """Write both figures and the table of means; ``gates`` (prompts, layers, 2) by class."""
    folder = output or Path(trainer.default_root_dir)
    plot_gates(gates, layers, folder / "gates.png")
    log_figure(trainer, "gates", folder / "gates.png")
    if tokens:
        plot_tokens(tokens, folder / "gates_tokens.png")
        log_figure(trainer, "gates_tokens", folder / "gates_tokens.png")
        write_lines(folder / "gates_tokens.json", [json.dumps(_by_token(tokens), ensure_ascii=False)])
    with (folder / "gates.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["class", "layer", "prompts", "glad", "unwilling"])
        for name, values in gates.items():
            for layer, (glad, unwilling) in zip(layers, values.mean(dim=0).tolist(), strict=True):
                writer.writerow([name, layer, len(values), f"{glad:.4f}", f"{unwilling:.4f}"])


def _by_token(prompts: Mapping[str, tuple[list[str], Tensor]]) -> dict[str, list[list[Any]]]:
    """By prompt: text, willing gate and unwilling gate of each token, means over the layers."""
    return {
        name: [
            [text, round(glad, 4), round(unwilling, 4)]
            for text, (glad, unwilling) in zip(texts, gates.mean(dim=1).tolist(), strict=True)
        ]
        for name, (texts, gates) in prompts.items()
    }
