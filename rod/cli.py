"""The LightningCLI of the project: fit, validate, test, predict."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import CSVLogger

import callbacks.evaluation.evaluate
import callbacks.evaluation.latency
import callbacks.evaluation.reasoning
import callbacks.generation.completion_writer
import callbacks.generation.progress
import callbacks.generation.traces
import callbacks.mllr.gradient_norms
import callbacks.mllr.robust_modules
import callbacks.mogu.gates
import callbacks.mogu.probes

# Imported for their classes: a class that is imported can be named without its module in YAML and on the command line.
import callbacks.s3cot.calibration
import callbacks.s3cot.direction
import callbacks.s3cot.figures
import callbacks.s3cot.steer
import datamodules.mllr.twin_data
import datamodules.mogu.response_data
import datamodules.prompts.contrast_data
import datamodules.prompts.prompt_data
import datamodules.s3cot.curriculum_data
import datamodules.suites.benchmark_data
import datamodules.training.instruction_data
import datamodules.world.data
import llm_modules.baselines.conditional_steering
import llm_modules.baselines.prompt_defence
import llm_modules.baselines.safe_decoding
import llm_modules.judges.classifier
import llm_modules.judges.local
import llm_modules.judges.phrases
import llm_modules.judges.server
import llm_modules.mllr.module
import llm_modules.mogu.module
import llm_modules.mogu.responder
import llm_modules.mogu.v2.probe_module
import llm_modules.optim.learning_rates
import llm_modules.optim.muon
import llm_modules.s3cot.module
from callbacks.trainer_parts import callbacks_of
from datamodules.errors import InputError
from rod.parser import Parser
from rod.run_folder import RunFolder

TRAINER_DEFAULTS: dict[str, Any] = {
    # The datamodules shard by themselves, without padding by duplicates.
    "use_distributed_sampler": False,
    # An epoch is a stage of a curriculum: its data are drawn anew.
    "reload_dataloaders_every_n_epochs": 1,
    "num_sanity_val_steps": 0,
    "log_every_n_steps": 10,
}


class CLIParser(Parser, LightningArgumentParser):
    """Lightning's parser with errors of one line."""


class RodCLI(LightningCLI):
    """LightningCLI whose checkpoint never overrides the configuration, and whose runs have a folder each."""

    def __init__(self, args: Sequence[str] | None = None) -> None:
        super().__init__(
            LightningModule,
            LightningDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            auto_configure_optimizers=False,
            trainer_defaults=TRAINER_DEFAULTS,
            save_config_callback=RunFolder,
            parser_class=CLIParser,
            seed_everything_default=0,
            args=list(args) if args is not None else None,
        )

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add what every verb has beside Lightning's own."""
        parser.add_argument(
            "--overwrite",
            type=bool,
            default=False,
            help="Run in a folder that already holds a run; its files are replaced.",
        )

    def _prepare_subcommand_parser(self, klass: type, subcommand: str, **kwargs: Any) -> LightningArgumentParser:
        parser = super()._prepare_subcommand_parser(klass, subcommand, **kwargs)
        # A checkpoint from elsewhere must not run code; ours hold tensors and plain values only.
        parser.set_defaults({"weights_only": True})
        if subcommand == "predict":
            parser.set_defaults({"return_predictions": False})
        if subcommand == "test":
            # Every test is an evaluation: fragments add judges under this key without touching other callbacks.
            parser.add_lightning_class_args(callbacks.evaluation.evaluate.Evaluate, "evaluate", required=False)
            parser.set_defaults({"verbose": False})
        return parser

    def _parse_ckpt_path(self) -> None:
        """Lightning would replace the configuration's ``model`` by what the checkpoint was trained with, unsaid."""

    def before_instantiate_classes(self) -> None:
        """Refuse a checkpoint path that does not exist before anything is loaded."""
        path = self.config[self.subcommand].get("ckpt_path")
        if path and path not in {"last", "best", "hpc", "registry"} and not Path(path).exists():
            raise InputError(f"ckpt_path: there is no file '{path}'")
        torch.set_float32_matmul_precision("high")

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Metrics go to a CSV file unless a logger is configured; ``--overwrite`` replaces traces too."""
        config = self._get(self.config_init, "trainer")
        folder = config["default_root_dir"] = str(config.get("default_root_dir") or "runs/latest")
        if config.get("logger") in (None, True):
            kwargs["logger"] = CSVLogger(folder, name="logs")
        trainer = super().instantiate_trainer(**kwargs)
        for callback in callbacks_of(trainer):
            if isinstance(callback, callbacks.generation.completion_writer.CompletionWriter):
                callback.overwrite = callback.overwrite or bool(self._get(self.config, "overwrite"))
        for checkpoint in trainer.checkpoint_callbacks:
            if isinstance(checkpoint, ModelCheckpoint) and checkpoint.dirpath is None:
                checkpoint.dirpath = str(Path(folder) / "checkpoints")
        return trainer


def main(args: Sequence[str]) -> RodCLI:
    """Run one of Lightning's verbs.

    Args:
        args: The verb and its options.
    """
    # Processes that Lightning starts for other devices repeat sys.argv, so that the words must stand there.
    before = sys.argv
    sys.argv = [str(Path(__file__).with_name("__main__.py")), *args]
    try:
        return RodCLI()
    finally:
        sys.argv = before
