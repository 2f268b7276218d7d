"""Command-line parsing: short errors, and configurations found by name."""

import difflib
import inspect
import json
import re
from collections.abc import Callable, Collection, Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any, Literal, NoReturn, get_args, get_origin

import docstring_parser
from jsonargparse import ActionConfigFile, ArgumentParser

from datamodules.errors import InputError
from rod import classes
from rod.config_files import check_yaml
from rod.shipped import find

_KEY = r'Parser key "([\w.+-]+)":\s*'
_UNION = re.compile(r"Does not validate against any of the Union subtypes\s*(?:Subtypes: \[.*?\]\s*)?Errors:\s*", re.S)
_TAIL = re.compile(r"\s*-?\s*(Expected a <class 'NoneType'>|Given value type:).*", re.S)
_UNKNOWN = re.compile(
    r"(?:(?:[Kk]ey|[Oo]ption) '([\w.+-]+)' is not (?:expected|accepted)|does not accept option '([\w.+-]+)'"
    r"|unrecognized arguments: --([\w.+-]+))"
)
_NO_CLASS = re.compile(
    r"Expected a dot import path string: (\S+)"
    r"|given class_path '((\w+)[\w.]*)':\s+(?:No module named '\3|module '[\w.]+' has no attribute ')"
    r"|callable class: (?:No module named '|module '[\w.]+' has no attribute ').*?Got value: (\S+)"
)
_NO_TEXT = re.compile(r"Expected a (?:<class ')?str(?:'>)?\. Got value: (\S+)\Z")
_GIVEN = re.compile(r"Given value: (\S+)\Z")
_NUMBER = re.compile(r"Expected a <class '(int|float)'>")
_ONLY_NUMBERS = re.compile(r"(?:Expected a (?:int|float)\.?\s*)+(?:Got value: .*)?")
_REQUIRED = "the following arguments are required"
_NO_SUCH = "there is no such key"
_KEYED = re.compile(r"[\w.+-]+: ")


class ConfigFile(ActionConfigFile):
    """``--config``: a file, or the name of a configuration that comes with the project."""

    def __call__(self, parser: Any, cfg: Any, values: Any, option_string: str | None = None) -> None:
        """Read the file; see `check_yaml`."""
        path = find(values)
        check_yaml(Path(path))
        super().__call__(parser, cfg, path, option_string)


class Parser(ArgumentParser):
    """Raises ``InputError`` with a message of one line; argparse would print its usage and exit.

    It does not import Lightning, which takes longer than many a command.
    """

    def add_argument(self, *args: Any, **kwargs: Any) -> Any:
        """Add an option; ``--config`` takes the names of shipped configurations."""
        if kwargs.get("action") in ("config", ActionConfigFile):
            kwargs["action"] = ConfigFile
            kwargs["help"] = "YAML file, or the name of a shipped configuration such as s3cot/1_direction."
        return super().add_argument(*args, **kwargs)

    def parse_args(self, *args: Any, **kwargs: Any) -> Any:
        """Parse words; a null for a class within a class stays one, which jsonargparse hands on as ``--name=None``."""
        if "namespace" in kwargs and args and args[0] is not None:
            words = [re.sub(r"\A(--[^=]+)=None\Z", r"\1=null", word) for word in args[0]]
            args = (words, *args[1:])
        return super().parse_args(*args, **kwargs)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raise one line: what is wrong and, for an unknown key, which one is spelled alike."""
        if isinstance(ex, InputError):
            raise ex
        raise InputError(explain(message, self._known())) from ex

    def _known(self) -> list[str]:
        """The keys of this parser and, for what stands in a file, of the verbs below it."""
        known = [action.dest for action in self._actions]
        for action in self._actions:
            verbs = action.choices if isinstance(action.choices, dict) else {}
            known += [key for verb in verbs.values() if isinstance(verb, Parser) for key in verb._known()]
        return known


def run_verb(function: Callable[..., object], args: Sequence[str], verb: str) -> None:
    """Run a function as a verb of the command: its signature gives the options, its docstring their help.

    ``--config FILE`` reads options from YAML, unless the function itself has a parameter ``config``. Parameters that
    are positional only take the words without a name (``rod compare A B``). An option that is a list of texts takes
    several words (``--traces a.jsonl b.jsonl``). InputError if the words do not fit the signature.
    """
    parser = verb_parser(function, verb)
    options = parser.instantiate_classes(parser.parse_args(verb_words(function, args))).as_dict()
    if "config" not in inspect.signature(function).parameters:
        del options["config"]
    values = [options.pop(name) for name in _unnamed(function)]
    function(*values, **options)


def verb_words(function: Callable[..., object], args: Sequence[str]) -> list[str]:
    """The words of a verb as its parser takes them: several words of an option as one list."""
    parameters = inspect.signature(function).parameters
    lists = {name for name, parameter in parameters.items() if "list[str]" in str(parameter.annotation)}
    return _gathered(args, lists.difference(_unnamed(function)))


def verb_parser(function: Callable[..., object], verb: str) -> Parser:
    """The parser of a verb: see `run_verb`."""
    parameters = inspect.signature(function).parameters
    parser = Parser(prog=f"rod {verb}", description=(inspect.getdoc(function) or "").partition("Args:")[0])
    if "config" not in parameters:
        parser.add_argument("--config", action="config")
    unnamed = _unnamed(function)
    for name in unnamed:
        _add_unnamed(parser, parameters[name], function.__doc__ or "")
    parser.add_function_arguments(function, as_group=False, skip=set(unnamed))
    return parser


def _unnamed(function: Callable[..., object]) -> list[str]:
    parameters = inspect.signature(function).parameters
    return [name for name, parameter in parameters.items() if parameter.kind is parameter.POSITIONAL_ONLY]


def _add_unnamed(parser: Parser, parameter: inspect.Parameter, docstring: str) -> None:
    """Add a word without a name or, for a list, any number of them; at least one if there is no default."""
    texts = {entry.arg_name: entry.description for entry in docstring_parser.parse(docstring).params}
    kinds = () if get_origin(parameter.annotation) is Literal else get_args(parameter.annotation)
    more: dict[str, Any] = {"nargs": "+"} if kinds else {}
    if parameter.default is not parameter.empty:
        more = {"nargs": "*", "default": list(parameter.default)} if kinds else {"nargs": "?", "default": ""}
    parser.add_argument(parameter.name, type=(*kinds, parameter.annotation)[0], help=texts.get(parameter.name), **more)


def _gathered(args: Sequence[str], lists: Collection[str]) -> list[str]:
    """Join the words after each option in ``lists``: ``--traces a b`` becomes ``--traces '["a", "b"]'``."""
    words: list[str] = []
    rest = list(args)
    while rest:
        words.append(rest.pop(0))
        if words[-1].startswith("--") and words[-1][2:] in lists:
            values = list(takewhile(lambda word: not word.startswith("--"), rest))
            del rest[: len(values)]
            written_as_list = len(values) == 1 and values[0].startswith("[")
            words += values if written_as_list or not values else [json.dumps(values)]
    return words


def explain(message: str, known: list[str]) -> str:
    """Fold a message of jsonargparse into one line: the whole path to the key and the innermost reason.

    The message has nested keys from the outside in; ``known`` are the keys to guess from.
    """
    unknown = _UNKNOWN.search(message)
    if unknown and not re.search(_KEY, message):
        key = next(group for group in unknown.groups() if group)
        return f"{key}: {_NO_SUCH}; {_guess(key, known)}"
    if message.startswith(_REQUIRED) and re.search(r"\bmodel\b", message):
        return f"{message}; name a stage, such as --config s3cot/1_direction (`rod configs` lists them)"
    path = re.findall(_KEY, message)
    reason = _TAIL.sub("", _UNION.sub("", re.split(_KEY, message)[-1]))
    missing = _NO_CLASS.search(message)
    if missing and _NUMBER.search(message):
        reason = "Expected a float"  # torch's rates may be tensors, which would be named by their class
    elif missing:
        values = re.search(r"typing\.Literal\[(.*?)\]", message)
        reason = f"it is none of {values[1]}, and " if values else ""
        reason += _no_class(missing[1] or missing[2] or missing[4])
    parts: dict[str, str] = {}
    for part in filter(None, (line.strip(" -") for line in reason.splitlines())):
        parts.setdefault(part.partition(";")[0], part)  # several types of a union say the same
    if path and (needed := re.search(rf"{_REQUIRED}: ([\w., -]+)", message)):
        return f"{'.'.join(path)}: {_REQUIRED}: {needed[1]}"
    # Of a union, the type whose keys these are; else the key that no type has.
    of_a_key = [part for part in parts.values() if _KEYED.match(part) and _NO_SUCH not in part]
    unknown_keys = [part for part in parts.values() if _NO_SUCH in part]
    reason = " ".join(of_a_key or unknown_keys or parts.values())
    reason = re.sub(r"<class '(?:\w+\.)*(\w+)'>", r"\1", reason)
    reason = re.sub(r"typing\.Literal\[(.*?)\]", r"value that is one of \1", reason)
    if _ONLY_NUMBERS.fullmatch(reason):
        value = re.search(r"(?:Got|Given) value: (.*)", message)
        kind = "number" if "float" in reason else "whole number"
        reason = f"a {kind} is expected" + (f", not {value[1]}" if value else "")
    given = _NO_TEXT.search(reason) or (_GIVEN.search(message) if reason == "Expected a str" else None)
    if given:
        truth = "; YAML reads yes, no, on and off as true and false" if given[1] in ("True", "False") else ""
        reason += f"{truth}; to mean a text, write it in quotes"
    text = ": ".join([*path, reason])
    # A nested parser has already said "key: reason" about its part: "model: peft: r: ..." is model.peft.r.
    return re.sub(r"^((?:[\w.+-]+: )+)", lambda keys: keys[1].replace(": ", ".")[:-1] + ": ", text)


def _no_class(path: str) -> str:
    meant = classes.guess(path)
    remedy = f"did you mean '{meant.rpartition('.')[2]}' ({meant})?" if meant else "give its name or its dotted path"
    return f"there is no class '{path}'; {remedy}"


def _guess(key: str, known: list[str]) -> str:
    """A key that is spelled alike, level by level."""
    head, _, rest = key.partition(".")
    heads = {name.partition(".")[0] for name in known}
    if rest and head not in heads:
        key, known = head, sorted(heads)
    close = difflib.get_close_matches(key, known, n=1, cutoff=0.6)
    if close:
        return f"did you mean '{close[0]}{'.' + rest if rest and key == head else ''}'?"
    return "`rod <verb> --help` lists the keys"
