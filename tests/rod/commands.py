"""Commands and options in pages and in the comments of configurations."""

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


def runnable(words: list[str]) -> list[str]:
    """A command without the files that a stage writes or the reader has, and with a stage for ``STAGE``."""
    stage = {"fit": "mllr/0_pilot", "test": "test"}.get(words[0], "s3cot/1_direction")
    kept: list[str] = []
    rest = iter(words)
    for word in rest:
        if word != "--config":
            kept += [word] * (word != "...")
        elif configs_of(pair := [word, next(rest)]):
            kept += [word, stage if pair[1] == "STAGE" else pair[1]]
    return kept


def spans(page: Path) -> list[str]:
    """Texts between backticks outside of blocks, such as ``rod filter --by agreement`` and ``--data.limit 20``."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    return re.findall(r"(?<!`)`([^`\n]+)`(?!`)", text)


def option_names(text: str) -> list[str]:
    """The options in a text, without dashes and ``+``."""
    return re.findall(r"(?<![\w-])--([a-zA-Z][\w.-]*)", text)
