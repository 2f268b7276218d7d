"""Commands and options in pages and in the comments of configurations."""

import importlib
import re
import shlex
from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from pathlib import Path

from rod.__main__ import LIGHTNING, VERBS
from rod.cli import lightnings_parsers
from rod.parser import verb_parser, verb_words

LIGHTNINGS = cache(lightnings_parsers)


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


def parse(words: list[str]) -> None:
    """Parse the words after ``rod`` as the command does; InputError if they do not fit."""
    if VERBS[words[0]] == LIGHTNING:
        LIGHTNINGS()[words[0]].parse_args(words[1:])
    else:
        function = importlib.import_module(VERBS[words[0]]).run
        verb_parser(function, words[0]).parse_args(verb_words(function, words[1:]))
