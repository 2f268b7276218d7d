"""What libraries say at every start about their own insides; a user can do nothing about it."""

import logging
import os
import sys
import warnings
from pathlib import Path
from typing import TextIO

_WARNINGS = (
    "`loftq_config` specified but will be ignored",  # PEFT, of the default that the parser hands on
    "Could not find a config file in .* will assume that the vocabulary was not modified",  # PEFT, of a GGUF file
    "`is_gradient_checkpointing` is deprecated",  # transformers, of PEFT
    "`torch.distributed.reduce_op` is deprecated",  # torch, of NiceGUI, which looks at every object
    # Lightning, of metrics that have been gathered from all processes already
    r"It is recommended to use `self\.log\('val/(system[12]_|aes|over_refusal)",
    r"Total length of `\w+` across ranks is zero",  # Lightning, of a fit without validation
    "Checkpoint directory .* exists and is not empty",  # Lightning, of a run that goes on
    # Lightning, of a fit's checkpoint that is tested, where a fit's callbacks have nothing to do
    "Be aware that when using `ckpt_path`, callbacks used to create the checkpoint .*RecoveryCheckpoint",
    "The dirpath has changed from",
    "The number of training batches .* is smaller than the logging interval",  # Lightning, which counts over epochs
    r"`isinstance\(treespec, LeafSpec\)` is deprecated",  # torch, of Lightning
)
_ROOT = Path(__file__).parents[1]
_OURS = {"rod", "callbacks", "llm_modules", "datamodules"}
_NO_NEWS = (
    *("litlogger", "litmodels", "TPU available: False", "Seed set to"),
    *("to estimate number of stepping batches", "`Trainer.fit` stopped: `max_"),
)


def be_quiet() -> None:
    """Hide these warnings, Lightning's advertisements, and in a log file Hugging Face's bars, for the whole process.

    Our own warnings are one line, without the place in the code.
    """
    for message in _WARNINGS:
        warnings.filterwarnings("ignore", message=message)
    warnings.showwarning = _show
    for name in ("lightning.pytorch.utilities.rank_zero", "lightning.fabric.utilities.seed"):
        logging.getLogger(name).addFilter(_is_news)
    if not sys.stderr.isatty():
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")


_show_others = warnings.showwarning


def _show(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    place = Path(filename)
    if place.is_relative_to(_ROOT) and place.relative_to(_ROOT).parts[0] in _OURS:
        before, warnings.formatwarning = warnings.formatwarning, _without_place
        try:
            _show_others(message, category, filename, lineno, file, line)
        finally:
            warnings.formatwarning = before
    else:
        _show_others(message, category, filename, lineno, file, line)


def _without_place(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
) -> str:
    return f"warning: {message}\n"


def _is_news(record: logging.LogRecord) -> bool:
    return not any(name in record.getMessage() for name in _NO_NEWS)
