"""Configuration files as text: what YAML would pass over in silence, and where a key stands."""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from datamodules.errors import InputError
from rod.shipped import CONFIGS, find

_CLASS = "init_args"
_MERGE = "tag:yaml.org,2002:merge"
"""The level of a file between a class and its options, which the command line and messages leave out."""
_KEY = re.compile(r"(?:--)?([A-Za-z_][\w.]*): ")
_WRONG = re.compile(r" is expected, not (\S+)\Z")
_MISSING = re.compile(r"(.+?): there is no such file")


def listed(values: Any) -> list[Any]:
    """The entries of a key that takes one or a list of them, such as ``trainer.callbacks``."""
    return list(values) if isinstance(values, list) else [] if values is None else [values]


def check_yaml(path: Path) -> None:
    """Raise InputError, with file and line, if a file is no YAML with keys, or has a key twice."""
    try:
        loader = yaml.SafeLoader(path.read_text(encoding="utf-8"))
        tree = loader.get_single_node()
        _check_keys(path, tree)  # before `<<` puts keys of other mappings among a mapping's own
        values = None if tree is None else loader.construct_document(tree)
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: is not UTF-8, so no configuration; name a YAML file") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark is not None else ""
        problem = getattr(error, "problem", None) or "cannot be read"
        raise InputError(f"{path}{line}: is no YAML ({problem}); mend the line") from error
    if not isinstance(values, dict):
        raise InputError(
            f"{path}: " + ("is empty" if values is None else "holds no keys") + "; leave it out or write keys"
        )


def _check_keys(path: Path, tree: yaml.Node | None) -> None:
    for mapping in _mappings(tree):
        first: dict[tuple[str, str], int] = {}
        for key in (key for key, _ in mapping.value if isinstance(key, yaml.ScalarNode)):
            line, name = key.start_mark.line + 1, (key.tag, key.value)
            if name in first:
                before = f"line {first[name]} has it too, and YAML would take the last one"
                raise InputError(f"{path}:{line}: the key '{key.value}' is there twice ({before}); keep one")
            first[name] = line


def with_place(message: str, words: Sequence[str]) -> str:
    """Put ``FILE:LINE`` before a message if a file among the words of a command sets what it is about.

    That is the key that the message begins with. If it says which value is wrong ("..., not x"), that is where the key
    has this value; else the last file counts. A message about a file that is missing is about the value that names it.
    If a word such as ``--model.dtype`` may have set the key, or a shipped file, there is no place.
    """
    key, wrong, missing = _KEY.match(message), _WRONG.search(message), _MISSING.match(message)
    if missing and not any(missing[1] in word for word in words):
        return _placed(message, words, lambda tree: _naming(tree, missing[1]))
    if key is None or any(_sets(word, key[1]) for word in words):
        return message
    levels = key[1].split(".")
    return _placed(
        message,
        words,
        lambda tree: (
            line for line, value in _settings(tree, levels) if wrong is None or wrong[1] in _spellings(value)
        ),
    )


def _placed(message: str, words: Sequence[str], lines: Callable[[yaml.Node | None], Iterable[int]]) -> str:
    """The message with the last of the ``lines`` that a file's tree has."""
    places: list[tuple[Path, int]] = []
    for name in _configs(words):
        try:
            path = Path(find(name))
            tree = yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
        except (InputError, OSError, UnicodeDecodeError, yaml.YAMLError):  # it comes after the first error
            continue
        places += [(path, line) for line in lines(tree)]
    if not places or places[-1][0].is_relative_to(CONFIGS):
        return message
    return "{}:{}: {}".format(*places[-1], message)


def _naming(tree: yaml.Node | None, path: str) -> Iterator[int]:
    """The lines on which a mapping has this path as a value, or in a list."""
    for _, value in (pair for mapping in _mappings(tree) for pair in mapping.value):
        for node in value.value if isinstance(value, yaml.SequenceNode) else [value]:
            if isinstance(node, yaml.ScalarNode) and str(Path(node.value)) == path:
                yield node.start_mark.line + 1


def _spellings(node: yaml.Node) -> set[str]:
    """A value as a message may have it: ``yes`` is True, ``1.50`` is 1.5."""
    value = yaml.SafeLoader("").construct_object(node, deep=True)
    return {str(value), repr(value)}


def _sets(word: str, key: str) -> bool:
    """Whether an option may have set a key: itself, a part of it, or the whole that it is a part of."""
    if not word.startswith("--"):
        return False
    option = word[2:].partition("=")[0].removesuffix("+").replace(f".{_CLASS}", "")
    return f"{key}.".startswith(f"{option}.") or option.startswith(f"{key}.")


def _configs(words: Sequence[str]) -> list[str]:
    """The values of ``--config``, in their order."""
    found = []
    for word, after in zip(words, [*words, ""][1:], strict=True):
        name, _, value = word.partition("=")
        if name == "--config":
            found.append(value or after)
    return found


def _mappings(tree: yaml.Node | None) -> Iterator[yaml.MappingNode]:
    """All mappings of a tree, each once: an alias may name a node again, also one that it is in."""
    waiting, seen = [tree], set[int]()
    while waiting:
        node = waiting.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        if isinstance(node, yaml.MappingNode):
            yield node
            waiting += [value for _, value in node.value]
        elif isinstance(node, yaml.SequenceNode):
            waiting += node.value


def _settings(node: yaml.Node | None, levels: list[str]) -> Iterator[tuple[int, yaml.Node]]:
    """The lines that set a key, given level by level, with the values."""
    for key, value in node.value if isinstance(node, yaml.MappingNode) else ():
        if not isinstance(key, yaml.ScalarNode):
            continue
        own = [level for level in key.value.split(".") if level != _CLASS]
        if key.tag == _MERGE:
            for merged in value.value if isinstance(value, yaml.SequenceNode) else [value]:
                if merged is not node:
                    yield from _settings(merged, levels)
        elif own == levels:
            yield int(key.start_mark.line) + 1, value
        elif levels[: len(own)] == own and value is not node:
            yield from _settings(value, levels[len(own) :])
