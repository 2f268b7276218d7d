"""Lightning's verbs: ``rod fit``, ``validate``, ``test`` and ``predict``."""

import os
import sys
from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any, Literal, NoReturn

import torch
from jsonargparse import Namespace
from lightning.fabric.plugins import CheckpointIO
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.accelerators import CPUAccelerator
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import CSVLogger, WandbLogger
from lightning.pytorch.utilities import rank_zero_info

from callbacks.evaluation.evaluate import Evaluate
from callbacks.generation.completion_writer import CompletionWriter
from callbacks.generation.progress import GenerationProgress
from callbacks.progress_lines import FitProgress, ReadingProgress
from callbacks.s3cot.steer import Steer
from callbacks.trainer_parts import callbacks_of
from callbacks.training.random_state import RandomState
from callbacks.training.step_guard import StepGuard
from datamodules.errors import InputError
from datamodules.trainer_parts import run_seed
from llm_modules.backbone.checkpoint import CheckpointFiles, check_checkpoint
from rod import classes, dashboards, wandb_run
from rod.config_files import listed
from rod.parser import Parser
from rod.peers import decide
from rod.recovery import RecoveryCheckpoint
from rod.requeue import requeueing
from rod.run_folder import (
    CONFIG,
    DONE,
    REPLACED,
    RunFolder,
    difference,
    is_restart,
    newest_checkpoint,
    resumes_by_default,
    takes_over,
)

TRAINER_DEFAULTS: dict[str, Any] = {
    # The datamodules shard themselves, without duplicates as padding.
    "use_distributed_sampler": False,
    # An epoch is a stage of a curriculum: every epoch draws its data anew.
    "reload_dataloaders_every_n_epochs": 1,
    "num_sanity_val_steps": 0,
    "log_every_n_steps": 10,
}

DEFAULT_FOLDER = "runs/latest"


class CLIParser(Parser, LightningArgumentParser):
    """Lightning's parser with short errors and configurations found by name."""


class RodCLI(LightningCLI):
    """LightningCLI with a folder for each run; a checkpoint never overrides the configuration.

    Keys beside Lightning's own: ``evaluate`` (the `Evaluate` callback of ``test``), ``steer`` (the `Steer` callback of
    ``predict``, ``test`` and ``validate``), ``step_guard`` (the `StepGuard` of ``fit``), ``recovery_minutes`` (of
    ``fit``), ``resume`` and ``overwrite``.
    ``data.seed`` follows ``seed_everything`` unless given.
    """

    def __init__(self, args: Sequence[str] | None = None) -> None:
        self._is_finished = False
        classes.load()
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
        """Add the options of every verb."""
        parser.add_argument(
            "--overwrite",
            type=bool,
            default=False,
            help="Replace the run that the folder holds.",
        )
        parser.add_argument(
            "--resume",
            type=Literal["auto", "never"] | None,
            default=None,
            help="auto: go on with the run that the folder holds, a fit from its newest checkpoint; the default in "
            "jobs of SLURM and torchrun.",
        )

    def _prepare_subcommand_parser(self, klass: type, subcommand: str, **kwargs: Any) -> LightningArgumentParser:
        parser = super()._prepare_subcommand_parser(klass, subcommand, **kwargs)
        # A checkpoint from elsewhere must not run code; ours hold tensors and plain values only.
        parser.set_defaults({"weights_only": True})
        if subcommand == "fit":
            told = "Minutes between the checkpoints that a stopped fit goes on from; the newest two are kept."
            parser.add_argument("--recovery_minutes", type=float, default=10.0, help=told)
            parser.add_lightning_class_args(StepGuard, "step_guard", required=False)
        if subcommand == "predict":
            parser.set_defaults({"return_predictions": False})
        if subcommand == "test":
            # A callback with a key of its own: a fragment changes it without repeating trainer.callbacks.
            parser.add_lightning_class_args(Evaluate, "evaluate", required=False)
            parser.set_defaults({"verbose": False})
        if subcommand != "fit":
            told = "Steering of what is generated: steer.direction, steer.positions, ...; none by default."
            parser.add_argument("--steer", type=Steer | None, default=None, help=told)
        return parser

    def _parse_ckpt_path(self) -> None:
        """Keep the configuration's ``model``; Lightning would silently take the checkpoint's."""

    def before_instantiate_classes(self) -> None:
        """Find the checkpoint, check it and give the data the run's seed, before anything is loaded."""
        config = self.config[self.subcommand]
        if config.get("data.init_args.seed", 0) is None:
            config["data.init_args.seed"] = run_seed()
        resumed = (config.resume or ("auto" if resumes_by_default() else "never")) == "auto" and self._resume(config)
        for key in ("accumulate_grad_batches", "check_val_every_n_epoch"):
            if config.trainer.get(key) == 0:
                raise InputError(f"trainer.{key}: must be at least 1, not 0")
        for key in ("max_epochs", "max_steps", "limit_train_batches"):
            if self.subcommand == "fit" and config.trainer.get(key) == 0:
                raise InputError(f"trainer.{key}: 0 trains nothing, and no checkpoint would be kept; give at least 1")
        path = config.get("ckpt_path")
        if path and not resumed and path not in {"last", "best", "hpc"} and not path.startswith("registry"):
            check_checkpoint(path)
        torch.set_float32_matmul_precision("high")
        loggers = [logger for logger in listed(config.trainer.logger) if isinstance(logger, Namespace)]
        if any(str(logger.get("class_path")).endswith("WandbLogger") for logger in loggers):
            wandb_run.describe(self._folder(config), str(self.subcommand), self._is_anew(config))

    def instantiate_classes(self) -> None:
        """Tell the loggers what the run says of them; its configuration keeps what the user has said."""
        config = self.config[self.subcommand]
        given = config.trainer.logger
        found = listed(deepcopy(given))
        known = [logger for logger in found if isinstance(logger, Namespace) and logger.get("init_args") is not None]
        is_anew = bool(known) and self._is_anew(config)
        for logger in known:
            kind, told = logger.class_path.rpartition(".")[2], vars(logger.init_args)
            about = dashboards.arguments(kind, told, self._folder(config), str(self.subcommand), is_anew)
            logger.init_args = Namespace(about)
        config.trainer.logger = found if isinstance(given, list) else next(iter(found), None)
        super().instantiate_classes()
        config.trainer.logger = given

    def _folder(self, config: Namespace) -> Path:
        return Path(config.trainer.default_root_dir or DEFAULT_FOLDER)

    def _is_anew(self, config: Namespace) -> bool:
        """Whether the run replaces what its folder holds."""
        text = self._parser(self.subcommand).dump(config, skip_none=False, skip_link_targets=False)
        return bool(config.overwrite) or takes_over(self._folder(config), text, str(self.subcommand))

    def _resume(self, config: Namespace) -> bool:
        """Let a run of the same configuration go on, also if the job's command said to replace it or where to start.

        Returns whether a fit goes on from a checkpoint, which is then checked already.
        """
        folder = self._folder(config)
        text = self._parser(self.subcommand).dump(config, skip_none=False, skip_link_targets=False)
        if not (folder / CONFIG).is_file() or difference(folder / CONFIG, text, self.subcommand or "") is not None:
            return False
        if config.overwrite and is_restart() and not (folder / REPLACED).exists():
            rank_zero_info(f"{folder}: not replaced, because this job has been started before")
            config.overwrite = False
        if self.subcommand != "fit" or config.overwrite or (config.ckpt_path and not is_restart()):
            return False
        newest = decide(lambda: DONE if (folder / DONE).is_file() else str(newest_checkpoint(folder) or ""))
        self._is_finished = newest == DONE
        if newest in ("", DONE):
            return False
        rank_zero_info(f"{folder}: going on from {newest}")
        config.ckpt_path = newest
        return True

    def _run_subcommand(self, subcommand: str) -> None:
        if self._is_finished:
            rank_zero_info(f"{self.trainer.default_root_dir}: holds the finished run; there is nothing left to do")
            return
        self._check_data(subcommand)
        with requeueing(self.trainer):
            super()._run_subcommand(subcommand)

    def _check_data(self, verb: str) -> None:
        """Raise InputError before anything is loaded if the data are not for a verb."""
        loaders = {"fit": "train", "validate": "val", "test": "test", "predict": "predict"}
        data, base = type(self.datamodule), LightningDataModule
        names = {verb: f"{name}_dataloader" for verb, name in loaders.items()}
        able = [verb for verb, name in names.items() if getattr(data, name) is not getattr(base, name)]
        if self.datamodule is not None and verb not in able:
            others = " or ".join(f"rod {other}" for other in able)
            raise InputError(f"data: {data.__name__} is not for rod {verb}, but for {others}")

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Add the steering, a CSV logger unless another is configured, and places for files in the run folder."""
        config = self._get(self.config_init, "trainer")
        steer = self._get(self.config_init, "steer")
        others = listed(config.get("callbacks"))
        if steer is not None:
            if any(isinstance(callback, Steer) for callback in others):
                raise InputError("steer: trainer.callbacks has a Steer too; give one of them")
            config["callbacks"] = [steer, *others]
        folder = config["default_root_dir"] = str(config.get("default_root_dir") or DEFAULT_FOLDER)
        if self.subcommand == "fit" and config.get("enable_checkpointing") is not False:
            saving = any(isinstance(callback, ModelCheckpoint) for callback in others)
            recovery = RecoveryCheckpoint(self._get(self.config, "recovery_minutes"))
            # The first one is Lightning's own default, which it adds only if there is no other.
            config["callbacks"] = [*others, *([] if saving else [ModelCheckpoint()]), recovery]
        if self.subcommand == "fit":
            config["callbacks"] = [*listed(config.get("callbacks")), RandomState(), FitProgress()]
        if self.subcommand == "predict" and not any(isinstance(callback, GenerationProgress) for callback in others):
            config["callbacks"] = [*listed(config.get("callbacks")), ReadingProgress()]
        if not sys.stderr.isatty() and config.get("enable_progress_bar") is None:
            config["enable_progress_bar"] = False  # a file would have its last state
        plugins = listed(config.get("plugins"))
        if not any(isinstance(plugin, CheckpointIO) for plugin in plugins):
            config["plugins"] = [*plugins, CheckpointFiles()]
        if config.get("logger") in (None, True):
            kwargs["logger"] = CSVLogger(folder, name="logs")
        for logger in listed(config.get("logger")):
            if isinstance(logger, WandbLogger) and not logger._wandb_init.get("anonymous"):
                logger._wandb_init.pop("anonymous", None)  # wandb warns of it, even of none
        trainer = super().instantiate_trainer(**kwargs)
        most = max(2, os.cpu_count() or 1)  # two are a trial on any machine
        if isinstance(trainer.accelerator, CPUAccelerator) and trainer.num_devices > most:
            raise InputError(
                f"trainer.devices: {trainer.num_devices} processes on the CPU, which has {os.cpu_count()} cores; give "
                f"at most {most}, or a GPU as trainer.accelerator"
            )
        for callback in callbacks_of(trainer):
            if isinstance(callback, CompletionWriter):
                callback.overwrite = callback.overwrite or bool(self._get(self.config, "overwrite"))
        for checkpoint in trainer.checkpoint_callbacks:
            if isinstance(checkpoint, ModelCheckpoint) and checkpoint.dirpath is None:
                checkpoint.dirpath = str(Path(folder) / "checkpoints")
        return trainer


class _Ready(Exception):
    """The parser is built."""


class _ParserOnly(RodCLI):
    """Stops when its parser is built."""

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> NoReturn:
        raise _Ready(parser)


def lightnings_parsers() -> dict[str, LightningArgumentParser]:
    """Verb of Lightning's -> its parser; nothing is parsed or run."""
    try:
        _ParserOnly([])
    except _Ready as ready:
        action = ready.args[0]._subcommands_action
        return dict(action.choices)
    raise AssertionError("the parser was not built")


def main(args: Sequence[str]) -> RodCLI:
    """Run one of Lightning's verbs, the first of the words, with its options."""
    # Lightning starts the processes of other devices with sys.argv.
    before = sys.argv
    sys.argv = [str(Path(__file__).with_name("__main__.py")), *args]
    try:
        return RodCLI()
    finally:
        sys.argv = before
