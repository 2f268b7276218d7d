"""The gates of the prompts of a run as figures and numbers (paper, sec. 4.5)."""

import csv
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
from datamodules.suites.benchmark_data import BenchmarkData
from llm_modules.mogu.module import MoGU

CLASSES = ("benign", "malicious")


class GateFigures(Callback):
    """Writes ``gates.png``, ``gates_tokens.png`` and ``gates.csv`` at the end of each validation over ``RouterData``.

    Box plots by class and layer; one prompt of each class, token by token; means.
    The box plots are of the last token of each prompt, which decides how the answer begins. On several processes they
    show the prompts of the first.
    """

    def __init__(self, output: Path | None = None) -> None:
        """``output``: folder, the run folder by default."""
        self.output = output
        self._gates: dict[str, list[Tensor]] = {}
        self._tokens: dict[str, tuple[list[str], Tensor]] = {}

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse a model without gates."""
        if not isinstance(pl_module, MoGU):
            raise InputError(f"trainer.callbacks: GateFigures shows gates, and {type(pl_module).__name__} has none")

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin anew."""
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
        """Read the gates of a batch's prompts."""
        if not isinstance(batch, RouterBatch) or not trainer.is_global_zero:
            return
        assert isinstance(pl_module, MoGU)
        gates = pl_module.mogu.gates(batch.rows.input_ids, batch.rows.attention_mask).permute(1, 2, 0, 3).float().cpu()
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
            rank_zero_warn(f"the figures of the gates show {', '.join(stacked)} prompts only: there were no others")


class SuiteGates(Callback):
    """Writes the same files for the suites of a test, before it begins: a class a suite, held-out prompts.

    The gates of the last token of each prompt. Prompts that begin the answer (prefill) are left out: there, another
    token is the last one. The tokens shown are those of the first malicious prompt, and of the benign prompt that has
    most of its tokens in common with it.
    """

    def __init__(self, output: Path | None = None) -> None:
        """``output``: folder, the run folder by default."""
        self.output = output

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Read the gates of all prompts.

        Raises:
            InputError: The model has no gates, or the data are no suites.
        """
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
    lengths = [len(row.token_ids) for row in rows]
    device = module.language_model.device
    ids = torch.zeros(len(rows), max(lengths), dtype=torch.long, device=device)
    for line, row in zip(ids, rows, strict=True):
        line[: len(row.token_ids)] = torch.tensor(row.token_ids)
    mask = torch.arange(ids.shape[1], device=device) < torch.tensor(lengths, device=device)[:, None]
    gates = module.mogu.gates(ids, mask.long()).permute(1, 2, 0, 3).float().cpu()
    return [row[:length] for row, length in zip(gates, lengths, strict=True)]


def _alike(one: PromptRow, other: PromptRow) -> int:
    """Tokens that two prompts of one length have in common, place by place; less than none if the lengths differ."""
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
    """Both figures and the table of means; ``gates`` (prompts, layers, 2) by class."""
    folder = output or Path(trainer.default_root_dir)
    plot_gates(gates, layers, folder / "gates.png")
    log_figure(trainer, "gates", folder / "gates.png")
    if tokens:
        plot_tokens(tokens, folder / "gates_tokens.png")
        log_figure(trainer, "gates_tokens", folder / "gates_tokens.png")
    with (folder / "gates.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["class", "layer", "prompts", "glad", "unwilling"])
        for name, values in gates.items():
            for layer, (glad, unwilling) in zip(layers, values.mean(dim=0).tolist(), strict=True):
                writer.writerow([name, layer, len(values), f"{glad:.4f}", f"{unwilling:.4f}"])
