"""Commands and options between backticks parse as those in blocks do, with what they leave out put in."""

import re
import shlex
import sys
from functools import cache
from pathlib import Path

import pytest

from datamodules.errors import InputError
from rod.__main__ import LIGHTNING, VERBS
from tests.conftest import ROOT
from tests.rod.commands import option_names, parse, runnable, spans
from tests.rod.test_documented_commands import ANY, COMMANDS, TEXTS, exists, named

PAGES = [*TEXTS, *sorted((ROOT / ".github").rglob("*.yml"))]


@cache
def examples(verb: str) -> list[list[str]]:
    """Whole commands of a verb, from the blocks of all pages; one logger's keys would stand in for another's."""
    known = [words for commands in COMMANDS.values() for words in commands if words[0] == verb]
    return [words for words in known if not any(word.startswith("logger/") for word in words)]


def given(span: str) -> list[str]:
    """The words of a span, without dots and with a configuration that is there."""
    words = shlex.split(span.removeprefix("rod "))
    return [word.replace("suites/...", "suites/gsm8k") for word in words if word != "..."]


def is_whole(words: list[str]) -> bool:
    """Whether each option has its value."""
    return not any(
        word.startswith("--") and "=" not in word and following.startswith("--")
        for word, following in zip(words, [*words[1:], "--"], strict=True)
    )


def problem(verb: str, words: list[str]) -> str:
    """What the command says of some words, alone or after those of an example of the verb; empty if one parses."""
    told = ""
    alone = [verb]
    for before in (*examples(verb), alone) if words[0].startswith("--") else (alone, *examples(verb)):
        try:
            parse([*before, *words])
        except InputError as error:
            told = told or str(error)
        except SystemExit:  # help
            return ""
        else:
            return ""
    return told


def problems(page: Path) -> list[str]:
    """The spans of a page that do not parse, each with the reason."""
    found = []
    for span in spans(page):
        if "|" in span or not re.match(r"rod (?!--)|--", span):
            continue
        words = given(span)
        if span.startswith("rod "):
            verbs, words = words[:1], runnable(words)[1:]
        else:
            # `rod plan` takes any configuration unread.
            known = [verb for verb in ANY if verb != "plan"]
            verbs = [verb for verb in known if all(exists(name, [verb]) for name in option_names(span))]
        if words and is_whole(words):
            told = ""
            for verb in verbs:
                if not (reason := problem(verb, words)):
                    break
                told = told or reason
            else:
                found.append(f"{span}: {told or 'no verb has these'}")
    return found


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_what_stands_between_backticks_parses(page: Path) -> None:
    assert problems(page) == []


def test_words_that_do_not_parse_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    few = {verb: examples(verb)[:4] for verb in VERBS}
    monkeypatch.setattr(sys.modules[__name__], "examples", few.__getitem__)
    page = tmp_path / "page.md"
    wrong = ["rod env runs/a runs/b", "rod filter --by golden", "--trainer.logger TensorBoardLogger", "--data.alpha x"]
    right = ["rod filter --by agreement", "--data.alpha -0.2", "rod compare A B ...", "--steer.positions", "rod plan"]
    page.write_text("".join(f"`{span}`\n" for span in [*wrong, *right]))
    assert [line.partition(":")[0] for line in problems(page)] == wrong


def test_there_are_examples_of_the_verbs_that_texts_speak_of() -> None:
    assert all(examples(verb) for verb in VERBS if VERBS[verb] == LIGHTNING and verb != "validate")
