"""Fits probes on a ``predict`` run over benign and malicious requests, and chooses the layers for routers."""

import csv
import random
from pathlib import Path
from typing import Any, Literal

import torch
import yaml
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor

from callbacks.mogu.figures import plot_probes
from datamodules.errors import InputError
from datamodules.records.shards import write_lines
from datamodules.trainer_parts import run_seed
from llm_modules.mogu.probes import choose_probes, fit_probes, save_probes
from llm_modules.mogu.v2.probe_module import ProbeStates


class ProbeWriter(Callback):
    """Fits one probe per layer; writes ``probes.safetensors``, ``.csv``, ``.png`` and the choice of layers.

    The choice is written as two configuration fragments for the next stages: ``responders.yaml`` and ``routers.yaml``.
    Runs on one device only: the probes need all requests.
    """

    def __init__(
        self,
        k: int = 3,
        selection: Literal["probes", "random", "all"] = "probes",
        l2: float = 1e-3,
        held_out: float = 0.25,
        seed: int | None = None,
        output: Path | None = None,
    ) -> None:
        """Configure probes and choice.

        Args:
            k: Layers to choose (ours).
            selection: ``probes`` takes the layers with the best probes. Ablations: ``random`` draws k layers, ``all``
                takes every layer.
            l2: Penalty on the probes' weights (ours).
            held_out: Share of the requests that probes are measured on.
            seed: Seed of the split and of ``random``. By default that of ``seed_everything``.
            output: Folder; the run folder by default.
        """
        if not 0 < held_out < 1:
            raise InputError(f"ProbeWriter.held_out: must be between 0 and 1, is {held_out:g}")
        self.k, self.selection, self.l2, self.held_out, self.seed = k, selection, l2, held_out, run_seed(seed)
        self.output = output
        self._inputs: list[Tensor] = []
        self._malicious: list[Tensor] = []
        self._layers: tuple[int, ...] = ()

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Raise InputError with several processes: each would see a part of the requests."""
        if stage == "predict" and trainer.world_size > 1:
            raise InputError("trainer.devices: ProbeWriter needs all requests in one process; set devices: 1")

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keep the states of a batch."""
        if not isinstance(outputs, ProbeStates):
            raise InputError("model: ProbeWriter needs model: MoGUProbe and data: RouterData")
        self._inputs.append(outputs.inputs.cpu())
        self._malicious.append(outputs.malicious.cpu())
        self._layers = outputs.layers

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Fit, choose, write."""
        probes = fit_probes(
            self._layers, torch.cat(self._inputs), torch.cat(self._malicious), self.l2, self.held_out, self.seed
        )
        self._inputs, self._malicious = [], []
        layers = [probe.layer for probe in choose_probes(probes, self.k)]
        if self.selection == "random":
            layers = sorted(random.Random(self.seed).sample(list(self._layers), self.k))
        elif self.selection == "all":
            layers = list(self._layers)
        folder = self.output or Path(trainer.default_root_dir)
        save_probes(probes, folder / "probes.safetensors")
        with (folder / "probes.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(["layer", "accuracy", "loss", "chosen"])
            writer.writerows([p.layer, f"{p.accuracy:.4f}", f"{p.loss:.6g}", int(p.layer in layers)] for p in probes)
        plot_probes(probes, layers, folder / "probes.png")
        chosen = {
            "responders.yaml": {"layers": layers},
            "routers.yaml": {
                "router": {"layers": layers, "d_router": 0, "bias": True},
                "probes": str(folder / "probes.safetensors"),
            },
        }
        for name, settings in chosen.items():
            write_lines(folder / name, [yaml.safe_dump({"model": {"init_args": settings}}).rstrip()])
        rank_zero_info(f"probes of {len(probes)} layers; chosen: {layers}; wrote {folder}")
