"""The public names of the project and their parameters, as text.

``python -m tests.public_api`` writes ``tests/public_api.txt``, which `tests.test_public_api` holds the code against.
"""

import importlib
import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rod import classes
from rod.reference import rooms

FILE = Path(__file__).with_suffix(".txt")


def public_api() -> str:
    """One line per public function, class and public method."""
    lines = [line for room in rooms() for line in _room(room)]
    return "\n".join([*lines, "", "# Classes that a configuration may name", *_configurable()]) + "\n"


def _room(name: str) -> Iterator[str]:
    room = importlib.import_module(name)
    yield f"# {name}"
    for public in sorted(room.__all__):
        yield from _lines(public, getattr(room, public))


def _lines(name: str, thing: object) -> Iterator[str]:
    if not (inspect.isclass(thing) or inspect.isroutine(thing)):
        yield name
        return
    yield f"{name}{_parameters(thing)}"
    if not inspect.isclass(thing):
        return
    for method, value in sorted(vars(thing).items()):
        function = value.__func__ if isinstance(value, classmethod | staticmethod) else value
        if not method.startswith("_") and inspect.isfunction(function):
            yield f"{name}.{method}{_parameters(function)}"


def _parameters(thing: Any) -> str:
    try:
        names = [
            f"{'*' * (p.kind == p.VAR_POSITIONAL) + '**' * (p.kind == p.VAR_KEYWORD)}{p.name}"
            + ("=" if p.default is not p.empty else "")
            for p in inspect.signature(thing).parameters.values()
            if p.name != "self"
        ]
    except ValueError:  # a literal or a generic alias has no signature
        return ""
    return f"({', '.join(names)})"


def _configurable() -> Iterator[str]:
    for thing in sorted(classes.load(), key=lambda thing: thing.__name__):
        yield f"{thing.__name__}{_parameters(thing)}"


if __name__ == "__main__":
    FILE.write_text(public_api(), encoding="utf-8")
