"""The reference pages of the docs site, generated from signatures, types and docstrings."""

import importlib
import inspect
import re
import types
from collections.abc import Callable, Iterator
from dataclasses import is_dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

from jsonargparse import ArgumentParser

from llm_modules.judges import Judge
from rod import classes
from rod.__main__ import GROUPS, LIGHTNING, VERBS
from rod.cli import lightnings_parsers
from rod.parser import Parser, verb_parser

ROOT = Path(__file__).parents[1]
OURS = ("callbacks.", "datamodules.", "llm_modules.", "rod.")
KINDS = {
    "Models: `model`": tuple(path for path in classes.MODELS if ".optim." not in path),
    "Optimisers and schedules: `model.optimizer`, `model.schedule`": tuple(
        path for path in classes.MODELS if ".optim." in path
    ),
    "Data: `data`": classes.DATA,
    "Callbacks: `trainer.callbacks`": classes.CALLBACKS,
    "Loggers: `trainer.logger`": classes.LOGGERS,
    "Judges": classes.JUDGES,
}
GIVEN = {"params", "optimizer", "total_steps"}
"""What a model hands to its optimiser and schedule."""
TOLD = {
    "seed_everything": "Seed of the run; `data.seed` follows it.",
    "model": "A [model](#models-model): `class_path` and `init_args`.",
    "ckpt_path": "Checkpoint to start or to go on from: a file, an address or a folder; see docs/long_runs.md.",
    "weights_only": "Load tensors and plain values only, so that a file can run no code.",
    "data": "A kind of [data](#data-data): `class_path` and `init_args`.",
}
"""In place of Lightning's words."""


def pages() -> dict[str, str]:
    """Place below ``docs/`` -> Markdown: the verbs, the keys of configurations, and the public names of each room."""
    found = {"reference/verbs.md": verbs_page(), "reference/keys.md": keys_page()}
    return found | {f"reference/api/{room}.md": f"# {room}\n\n::: {room}\n" for room in rooms()}


def rooms() -> list[str]:
    """Packages with a public face: those whose ``__init__`` has an ``__all__``."""
    files = [
        file for storey in ("datamodules", "llm_modules", "callbacks") for file in (ROOT / storey).rglob("__init__.py")
    ]
    faces = [file.parent for file in files if "__all__" in file.read_text(encoding="utf-8")]
    return sorted(".".join(folder.relative_to(ROOT).parts) for folder in faces)


def verbs_page() -> str:
    """Every verb with its options; Lightning's have keys."""
    anchors = {cls: f"keys.md{anchor}" for cls, anchor in _described()[1].items()}
    lines = [
        "# Verbs",
        "",
        "`fit`, `validate`, `test` and `predict` take [keys](keys.md). The options of the other verbs are here;",
        "`--config FILE` reads them from YAML.",
    ]
    for heading, group in GROUPS.items():
        lines += ["", f"## {heading[0].upper()}{heading[1:]}"]
        for verb, (module, told) in group.items():
            lines += ["", f"### rod {verb}", ""]
            if module == LIGHTNING:
                lines += [f"{told[0].upper()}{told[1:]}: [keys](keys.md)."]
                continue
            function = importlib.import_module(module).run
            lines += [_prose((inspect.getdoc(function) or "").partition("Args:")[0]), ""]
            lines += _table(options_in(verb_parser(function, verb)), anchors, "option")
    return "\n".join(lines) + "\n"


def keys_page() -> str:
    """Every key of ``rod fit``, ``validate``, ``test`` and ``predict``, class by class."""
    kinds, anchors = _described()
    lines = [
        "# Keys of a configuration",
        "",
        "A key of YAML is a flag too: `model.optimizer.lr: 1e-4` is `--model.optimizer.lr 1e-4`. A class is named",
        "without its module: `--model S3CoT`, `--trainer.callbacks+=Latency`. `--print_config` prints the whole",
        "configuration of a command.",
        "",
        "## Keys of a run",
    ]
    for heading, options in _lightnings_keys().items():
        lines += ["", f"### {heading}", "", *_table(options, anchors)]
    for heading, found in kinds.items():
        lines += ["", f"## {heading}"]
        for cls in found:
            lines += ["", f"### {cls.__name__}", "", *_class(cls, anchors)]
    return "\n".join(lines) + "\n"


@cache
def _described() -> tuple[dict[str, list[type]], dict[type, str]]:
    """Heading -> classes with a table of keys, and where each is on the page."""
    kinds = {heading: classes.load(paths) for heading, paths in KINDS.items()}
    named = [cls for found in kinds.values() for cls in found]
    functions = {verb: importlib.import_module(module).run for verb, module in VERBS.items() if module != LIGHTNING}
    options = [option for verb, function in functions.items() for option in options_in(verb_parser(function, verb))]
    kinds["Parts"] = _parts([option for cls in named for option in options_of(cls)] + options, named)
    anchors = {cls: f"#{cls.__name__.lower()}" for found in kinds.values() for cls in found}
    return kinds, anchors | {Judge: "#judges"}


def _class(cls: type, anchors: dict[type, str]) -> Iterator[str]:
    told = (inspect.getdoc(cls) or "").partition("\n\n")[0]
    yield _prose(told if told and not told.startswith(f"{cls.__name__}(") else "")
    yield ""
    options = options_of(cls)
    parent = next((base for base in cls.__mro__[1:] if base in anchors), None)
    if parent is not None:
        known = {option.dest for option in options_of(parent)}
        mine = [option for option in options if option.dest not in known]
        if known <= {option.dest for option in options}:
            options = mine
            yield f"Also takes the keys of [{parent.__name__}]({anchors[parent]})."
            yield ""
    yield from _table(options, anchors)


def options_of(cls: type) -> list[Any]:
    """The actions of a class's arguments."""
    parser = Parser()
    given = GIVEN if cls.__module__.startswith("llm_modules.optim.") else set()
    parser.add_class_arguments(cls, fail_untyped=False, skip=given)
    return options_in(parser)


def options_in(parser: ArgumentParser) -> list[Any]:
    """The actions of a parser that set a value; those of nested groups have dotted names."""
    hidden = {"help", "config", "print_config", "subcommand"}
    found = [action for action in parser._actions if action.dest not in hidden and not action.dest.endswith(".help")]
    return [action for action in found if type(action).__name__ != "_ActionConfigLoad"]


def _parts(options: list[Any], known: list[type]) -> list[type]:
    """Our classes that are values of options and have keys of their own, in order of their names."""
    parts: set[type] = set()
    rest = list(options)
    while rest:
        new = set(classes_in(type_of(rest.pop()))).difference(parts, known)
        parts |= new
        rest += [option for part in new for option in options_of(part)]
    return sorted(parts, key=lambda part: part.__name__)


def classes_in(kind: Any) -> Iterator[type]:
    """The classes of ours in a type."""
    if inspect.isclass(kind) and get_origin(kind) is None:
        if kind is not Judge and kind.__module__.startswith(OURS) and (is_dataclass(kind) or "__init__" in vars(kind)):
            yield kind
        return
    for inner in get_args(kind):
        yield from classes_in(inner)


def _lightnings_keys() -> dict[str, list[Any]]:
    """Heading -> keys that no class of ours has: those of every verb, of single verbs, and of the Trainer."""
    parsers = lightnings_parsers()
    options = {verb: {option.dest: option for option in options_in(parser)} for verb, parser in parsers.items()}
    everywhere = [dest for dest in options["fit"] if all(dest in found for found in options.values())]
    headings = {"Every verb": [options["fit"][dest] for dest in everywhere if not dest.startswith("trainer")]}
    for verb, found in options.items():
        headings[f"`rod {verb}`"] = [option for dest, option in found.items() if dest not in everywhere]
    trainers = [options["fit"][dest] for dest in everywhere if dest.startswith("trainer.")]
    headings["Lightning's Trainer: `trainer`"] = trainers
    for option in (*headings["Every verb"], *trainers):
        text = re.sub(r"\s+", " ", re.sub(r":\w+:`~?([\w.]+)`", r"`\1`", option.help or ""))
        option.help = TOLD.get(option.dest, re.split(r"(?<=\.) (?=[A-Z])", text)[0])
    return {heading: found for heading, found in headings.items() if found}


def _table(options: list[Any], anchors: dict[type, str], head: str = "key") -> list[str]:
    if not options:
        return ["No keys of its own."] if head == "key" else ["No options."]
    rows = [
        f"| `{option.option_strings[0] if head == 'option' and option.option_strings else option.dest}` "
        f"| {type_text(type_of(option), anchors)} | {_default(option)} | {_prose(option.help or '', cell=True)} |"
        for option in options
    ]
    return [
        '<div class="keys" markdown>',
        "",
        f"| {head} | type | default | |",
        "|---|---|---|---|",
        *rows,
        "",
        "</div>",
    ]


def type_of(option: Any) -> Any:
    """The type of an action's value."""
    return getattr(option, "_typehint", None) or option.type


def _default(option: Any) -> str:
    value = option.default
    if isinstance(value, dict) and "class_path" in value:
        value = value["class_path"].rpartition(".")[2]
    if value is None:
        return "*required*" if option.required or not option.option_strings else ""
    if type(value).__name__ == "Namespace" or not isinstance(value, str | int | float | list | tuple | dict | Path):
        return ""
    if isinstance(value, bool):
        value = str(value).lower()
    if isinstance(value, float):
        value = f"{value:g}"
    text = ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
    return _code(text.removeprefix(f"{ROOT}/")) if text else ""


def type_text(kind: Any, anchors: dict[type, str]) -> str:
    """A type in words: choices as they are written, our classes as links.

    Example:
        >>> type_text(Literal["a", "b"] | list[int] | None, {})
        '`a`, `b` or list of int'
    """
    if kind in (None, Any, inspect.Parameter.empty):
        return "any"
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Literal:
        return ", ".join(_code(str(value).lower() if isinstance(value, bool) else str(value)) for value in inner)
    if origin in (Union, types.UnionType):
        values = [value for one in inner if get_origin(one) is Literal for value in get_args(one)]
        texts = [type_text(one, anchors) for one in inner if get_origin(one) is not Literal and one is not type(None)]
        if values:
            texts.insert(0, type_text(Literal[*values], anchors))
        return " or ".join(dict.fromkeys(texts))
    if origin in (list, set, frozenset, tuple) or (inspect.isclass(origin) and issubclass(origin, (list, tuple))):
        return f"list of {type_text(inner[0], anchors)}" if inner else "list"
    if origin is dict or kind is dict:
        return "mapping"
    if origin is Callable:
        return f"class: {type_text(inner[-1], anchors)}" if inner else "class"
    if origin is not None:  # Sequence, Iterable
        return f"list of {type_text(inner[0], anchors)}"
    name = {"PosixPath": "path", "Path": "path"}.get(
        getattr(kind, "__name__", str(kind)), getattr(kind, "__name__", str(kind))
    )
    name = {"str": "text", "bool": "`true`, `false`", "float": "number"}.get(name, name)
    return f"[{name}]({anchors[kind]})" if kind in anchors else name


def _prose(text: str, *, cell: bool = False) -> str:
    """Docstring text as Markdown."""
    text = re.sub(r"\bdocs/(\w+)\.md\b", r"[docs/\1.md](../\1.md)", text)
    text = re.sub(r"``(.+?)``", r"`\1`", text.strip(), flags=re.DOTALL)
    if not cell:
        return text
    text = re.sub(r"\s*\n\s*", " ", text)
    return text.replace("|", "\\|").replace("<", "&lt;")


def _code(text: str) -> str:
    return f"`{text}`".replace("|", "\\|")
