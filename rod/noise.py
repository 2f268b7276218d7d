"""What libraries say at every start about their own insides; a user can do nothing about it."""

import logging
import warnings

_WARNINGS = (
    "`loftq_config` specified but will be ignored",  # PEFT, of the default that the parser hands on
    "`is_gradient_checkpointing` is deprecated",  # transformers, of PEFT
    "`torch.distributed.reduce_op` is deprecated",  # torch, of NiceGUI, which looks at every object
    r"`isinstance\(treespec, LeafSpec\)` is deprecated",  # torch, of Lightning
)
_ADVERTISED = ("litlogger", "litmodels")


def be_quiet() -> None:
    """Hide these warnings, and Lightning's advertisements, for the rest of the process."""
    for message in _WARNINGS:
        warnings.filterwarnings("ignore", message=message)
    logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(_is_news)


def _is_news(record: logging.LogRecord) -> bool:
    return not any(name in record.getMessage() for name in _ADVERTISED)
