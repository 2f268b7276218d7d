"""Commands in README, docs and the comments of configurations parse; options that a text names exist."""

import importlib
import re
from argparse import Action
from collections.abc import Iterator
from functools import cache
from inspect import Parameter, signature
from pathlib import Path

import pytest
import yaml
from jsonargparse import ArgumentParser

from rod import classes
from rod.__main__ import LIGHTNING, VERBS
from rod.parser import verb_parser
from rod.reference import classes_in, options_in, options_of, type_of
from rod.shipped import CONFIGS, find
from tests.conftest import ROOT
from tests.rod.commands import LIGHTNINGS, commands, configs_of, option_names, parse, runnable, spans

README = ROOT / "README.md"
TEXTS = [README, ROOT / "CONTRIBUTING.md", ROOT / "AGENTS.md", *sorted((ROOT / "docs").rglob("*.md"))]
PAGES = [*TEXTS, *sorted(CONFIGS.rglob("*.yaml"))]


ANY = list(VERBS)


def first_seen() -> dict[Path, list[list[str]]]:
    """Page -> its commands, each on the first page that has one with such words; other files make no other words."""
    seen: set[tuple[str, ...]] = set()
    found: dict[Path, list[list[str]]] = {}
    for page in PAGES:
        for words in map(runnable, commands(page)):
            alike = tuple("FILE" if re.search(r"^runs/|^(?!--).*\.\w+$", word) else word for word in words)
            if alike not in seen:
                seen.add(alike)
                found.setdefault(page, []).append(words)
    return found


COMMANDS = first_seen()


def named(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_verbs_and_configurations_exist(page: Path) -> None:
    for words in commands(page):
        assert words[0] in VERBS, words
        for name in configs_of(words):
            if name != "STAGE":
                find(name)


def test_there_are_commands() -> None:
    assert len(COMMANDS[README]) > 25
    assert sum(map(len, COMMANDS.values())) > 100


@pytest.mark.parametrize("page", COMMANDS, ids=named)
def test_commands_parse(page: Path) -> None:
    for words in COMMANDS[page]:
        parse(words)


@cache
def options(verb: str) -> dict[str, Action | None]:
    """Name -> action of each option of a verb."""
    parser: ArgumentParser
    if VERBS[verb] == LIGHTNING:
        parser = LIGHTNINGS()[verb]
    else:
        parser = verb_parser(importlib.import_module(VERBS[verb]).run, verb)
    return {option.dest: option for option in options_in(parser)} | {"config": None, "print_config": None, "help": None}


KINDS = {"model": classes.load(classes.MODELS), "data": classes.load(classes.DATA)}
ARGUMENTS = cache(options_of)


def exists(name: str, verbs: list[str]) -> bool:
    """Whether a verb, or a class that its configuration may name, has an option."""
    head, _, rest = name.partition(".")
    for verb in verbs:
        if rest and verb == "plan" and verbs == ANY:
            continue  # it takes any configuration unread
        known = options(verb)
        if name in known or any(leads_to([option], name) for option in known.values() if option is not None):
            return True
        if rest and head in KINDS and head in known and (rest == "help" or leads_to_class(KINDS[head], rest)):
            return True
    return False


def leads_to(found: list[Action], name: str) -> bool:
    """Whether one of some options has a name, or a class of it has what follows; classes of others have anything."""
    for option in found:
        if name == option.dest:
            return True
        if name.startswith(f"{option.dest}.") and option.dest not in ("model", "data"):
            inner = list(classes_in(type_of(option)))
            return not inner or leads_to_class(inner, name.removeprefix(f"{option.dest}."))
    return False


def leads_to_class(found: list[type], name: str) -> bool:
    return any(leads_to(ARGUMENTS(cls), name) for cls in found)


def option_spans(page: Path) -> Iterator[tuple[str, list[str]]]:
    """Each option that a text names, and the verbs that it may be of."""
    for span in spans(page):
        verb = re.match(r"rod ([\w-]+)", span)
        if verb and verb[1] not in VERBS:
            assert verb[1] == "--help", f"there is no verb: {span}"
        elif verb or span.startswith("--"):
            for name in option_names(span):
                yield name, [verb[1]] if verb else ANY


@pytest.mark.parametrize("page", TEXTS, ids=named)
def test_options_in_texts_exist(page: Path) -> None:
    assert [name for name, verbs in option_spans(page) if not exists(name, verbs)] == []


def test_an_option_that_does_not_exist_is_found() -> None:
    for name in ("model.backbon", "data.alpa", "trainer.max_stepps", "model.generation.slot", "steer.position", "bye"):
        assert not exists(name, ANY), name
    for name in ("model.peft.r", "data.alpha", "model.generation.slots", "steer.positions", "by"):
        assert exists(name, ANY), name


@pytest.mark.parametrize("page", TEXTS, ids=named)
def test_words_without_an_option_in_texts_are_of_verbs_that_take_some(page: Path) -> None:
    for span in spans(page):
        verb = re.match(r"rod ([\w-]+) (?![.<>|&-])", span)
        if verb:
            assert verb[1] in VERBS, span
            run = getattr(importlib.import_module(VERBS[verb[1]]), "run", None)
            kinds = {parameter.kind for parameter in signature(run).parameters.values()} if run is not None else set()
            assert Parameter.POSITIONAL_ONLY in kinds, span


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_a_test_against_a_baseline_comes_after_the_test_that_writes_it(page: Path) -> None:
    written: set[str] = set()
    for words in commands(page):
        values: dict[str, str] = {}
        for name in [name for name in configs_of(words) if name != "STAGE"]:
            settings = yaml.safe_load(Path(find(name)).read_text()) or {}
            values |= (settings.get("evaluate") or {}) | (settings.get("trainer") or {})
        if words[0] == "test" and "--evaluate.baseline" not in words:
            written.add(f"{values.get('default_root_dir')}/metrics.json")
            needed = values.get("baseline")
            assert needed is None or needed in written or "..." in words, (
                f"{needed} comes from no command before {words}"
            )


@pytest.mark.parametrize("page", TEXTS, ids=named)
def test_scripts_and_targets_exist(page: Path) -> None:
    text = page.read_text()
    for script in re.findall(r"python ((?:benchmarks|tests|rod)/[\w/]+\.py)", text):
        assert (ROOT / script).is_file(), script
    rules = re.findall(r"^([a-z -]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    targets = {target for rule in rules for target in rule.split()}
    assert set(re.findall(r"(?:^|`)make ([a-z-]+)", text, re.MULTILINE)) <= targets
