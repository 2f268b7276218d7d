"""Argument parsing with errors for people: one line, the key, the remedy."""

import difflib
import re
from typing import NoReturn

from jsonargparse import ArgumentParser

from datamodules.errors import InputError

_KEY = r'Parser key "([\w.+-]+)":\s*'
_UNION = re.compile(r"Does not validate against any of the Union subtypes\s*(?:Subtypes: \[.*?\]\s*)?Errors:\s*", re.S)
_TAIL = re.compile(r"\s*-?\s*(Expected a <class 'NoneType'>|Given value type:).*", re.S)
_UNKNOWN = re.compile(
    r"(?:(?:[Kk]ey|[Oo]ption) '([\w.+-]+)' is not (?:expected|accepted)|does not accept option '([\w.+-]+)'"
    r"|unrecognized arguments: --([\w.+-]+))"
)
_NO_SUCH = "there is no such key"


class Parser(ArgumentParser):
    """Raises ``InputError`` with one line where argparse would print its usage and exit.

    It knows nothing of Lightning, whose import takes longer than many a command.
    """

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Say what is wrong and, for an unknown key, what may have been meant."""
        if isinstance(ex, InputError):
            raise ex
        raise InputError(explain(message, [action.dest for action in self._actions])) from ex


def explain(message: str, known: list[str]) -> str:
    """Fold a parser's message into one line: the key, what is wrong with it.

    The parser reports a nested key from the outside in, one union of types inside the other; what helps is the
    innermost reason and the whole path to it.

    Args:
        message: What the parser said, possibly over many lines.
        known: Keys that the parser knows, to guess from.
    """
    unknown = _UNKNOWN.search(message)
    if unknown and not re.search(_KEY, message):
        key = next(group for group in unknown.groups() if group)
        return f"{key}: {_NO_SUCH}; {_guess(key, known)}"
    path = re.findall(_KEY, message)
    reason = _TAIL.sub("", _UNION.sub("", re.split(_KEY, message)[-1]))
    missing = re.search(r"Expected a dot import path string: (\S+)", message)
    if missing:
        reason = f"there is no class '{missing.group(1)}'; give the name of a class or its dotted path"
    reason = " ".join(part.strip(" -") for part in reason.splitlines() if part.strip(" -"))
    reason = re.sub(r"<class '(?:\w+\.)*(\w+)'>", r"\1", reason)
    reason = re.sub(r"typing\.Literal\[(.*?)\]", r"value that is one of \1", reason)
    text = ": ".join([*path, reason])
    # A nested parser has already said "key: reason" about its part: "model: peft: r: ..." is model.peft.r.
    return re.sub(r"^((?:[\w.+-]+: )+)", lambda keys: keys[1].replace(": ", ".")[:-1] + ": ", text)


def _guess(key: str, known: list[str]) -> str:
    """A key that is spelled alike, level by level; the list of keys where there is none."""
    head, _, rest = key.partition(".")
    heads = {name.partition(".")[0] for name in known}
    if rest and head not in heads:
        key, known = head, sorted(heads)
    close = difflib.get_close_matches(key, known, n=1, cutoff=0.6)
    if close:
        return f"did you mean '{close[0]}{'.' + rest if rest and key == head else ''}'?"
    return "`rod <verb> --help` lists the keys"
