"""Commands in pages and in the comments of configurations."""

import re
import shlex
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path


def commands(page: Path) -> Iterator[list[str]]:
    """The words after ``rod`` of every command, with shell variables put in."""
    text = page.read_text().replace("\\\n#", "").replace("\\\n", "")
    variables = dict(re.findall(r'^(\w)="(.*)"$', text, re.MULTILINE))
    for line in re.findall(r"^(?:#? {3,}|)rod (.+)$", text, re.MULTILINE):
        for name, value in variables.items():
            line = line.replace(f"${name}", value)
        yield shlex.split(re.sub(r" (#|\(and|->).*", "", line))


def configs_of(words: list[str]) -> list[str]:
    """The configurations of a command, without files that a stage writes or the reader has."""
    named = [name for word, name in pairwise(words) if word == "--config"]
    return [name for name in named if not re.match(r"runs/|\w+\.yaml$", name)]
