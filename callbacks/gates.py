"""The gates of the prompts of a run as figures and numbers (paper, sec. 4.5)."""

import csv
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from callbacks.figures_log import log_figure
from callbacks.gates_figures import plot_gates, plot_tokens
from datamodules.batch import IGNORE_INDEX, RouterBatch
from datamodules.errors import InputError
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
        folder = self.output or Path(trainer.default_root_dir)
        layers = pl_module.mogu.layers
        stacked = {name: torch.stack(values) for name, values in self._gates.items() if values}
        plot_gates(stacked, layers, folder / "gates.png")
        plot_tokens(self._tokens, folder / "gates_tokens.png")
        with (folder / "gates.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(["class", "layer", "prompts", "glad", "unwilling"])
            for name, values in stacked.items():
                for layer, (glad, unwilling) in zip(layers, values.mean(dim=0).tolist(), strict=True):
                    writer.writerow([name, layer, len(values), f"{glad:.4f}", f"{unwilling:.4f}"])
        if len(stacked) < 2:
            rank_zero_warn(f"the figures of the gates show {', '.join(stacked)} prompts only: there were no others")
        log_figure(trainer, "gates", folder / "gates.png")
        log_figure(trainer, "gates_tokens", folder / "gates_tokens.png")
