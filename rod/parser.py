"""Argument parsing with errors for people: one line, the key, the remedy."""

import difflib
import re
from typing import Any, NoReturn

from lightning.pytorch.cli import LightningArgumentParser

from datamodules.errors import InputError


class Parser(LightningArgumentParser):
    """Raises ``InputError`` with one line where argparse would print its usage and exit."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Say what is wrong and, for an unknown key, what may have been meant."""
        raise InputError(explain(message, [action.dest for action in self._actions])) from ex


def explain(message: str, known: list[str]) -> str:
    """Fold a parser's message into one line.

    Args:
        message: What the parser said, possibly over many lines.
        known: Keys that the parser knows, to guess from.
    """
    text = " ".join(part.strip(" -") for part in message.splitlines() if part.strip())
    unknown = re.search(r"(?:[Kk]ey|[Oo]ption) '([\w.+-]+)' is not (?:expected|accepted)", text)
    if not unknown:
        return text
    key = unknown.group(1)
    close = difflib.get_close_matches(key, known, n=1, cutoff=0.75)
    hint = f"did you mean '{close[0]}'?" if close else "`rod <verb> --help` lists the keys"
    return f"{key}: there is no such key; {hint}"


def parse(parser: Parser, args: list[str]) -> Any:
    """Parsed and instantiated arguments of one of the project's own verbs."""
    return parser.instantiate_classes(parser.parse_args(args))
