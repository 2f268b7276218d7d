"""What libraries say at every start about their own insides; a user can do nothing about it."""

import logging
import os
import sys
import warnings

_WARNINGS = (
    "`loftq_config` specified but will be ignored",  # PEFT, of the default that the parser hands on
    "Could not find a config file in .* will assume that the vocabulary was not modified",  # PEFT, of a GGUF file
    "`is_gradient_checkpointing` is deprecated",  # transformers, of PEFT
    "`torch.distributed.reduce_op` is deprecated",  # torch, of NiceGUI, which looks at every object
    # Lightning, of metrics that have been gathered from all processes already
    r"It is recommended to use `self\.log\('val/(system[12]_|aes|over_refusal)",
    r"`isinstance\(treespec, LeafSpec\)` is deprecated",  # torch, of Lightning
)
_ADVERTISED = ("litlogger", "litmodels")


def be_quiet() -> None:
    """Hide these warnings, Lightning's advertisements, and in a log file Hugging Face's bars, for the whole process."""
    for message in _WARNINGS:
        warnings.filterwarnings("ignore", message=message)
    logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(_is_news)
    if not sys.stderr.isatty():
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")


def _is_news(record: logging.LogRecord) -> bool:
    return not any(name in record.getMessage() for name in _ADVERTISED)
