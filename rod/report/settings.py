"""The settings of runs: what differs from the shipped configuration, and between runs."""

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from datamodules.errors import InputError
from rod.report.runs import Run
from rod.shipped import find, shipped

_OF_PLACE = ("trainer.default_root_dir", "config", "overwrite", "resume", "recovery_minutes", "ckpt_path")
"""Settings that say where a run is and how it goes on."""
_LISTS = ("trainer.callbacks", "trainer.logger", "data.suites", "data.attack_templates", "evaluate.judges")
"""Settings that fragments add to, so that no single shipped value is theirs."""


def flat(config: Mapping[str, Any]) -> dict[str, Any]:
    """All settings by dotted key, as the command line spells them: no ``init_args``, classes by their last name.

    >>> flat({"model": {"class_path": "llm_modules.s3cot.module.S3CoT", "init_args": {"backbone": "x"}}})
    {'model': 'S3CoT', 'model.backbone': 'x'}
    """
    found: dict[str, Any] = {}

    def take(values: Any, path: str) -> None:
        if isinstance(values, Mapping) and values:
            for key, value in values.items():
                inner = path if key in ("init_args", "class_path") else f"{path}.{key}".removeprefix(".")
                take(str(value).rpartition(".")[2] if key == "class_path" else value, inner)
        elif isinstance(values, list) and any(isinstance(value, Mapping) for value in values):
            for number, value in enumerate(values):
                take(value, f"{path}.{number}")
        else:
            found[path] = values

    take(config, "")
    return found


def used_configs(command: str) -> list[str]:
    """Names of the configurations that a command gives, shipped ones by their short name."""
    words = _words(command)
    named = [words[i + 1] for i, word in enumerate(words[:-1]) if word == "--config"]
    named += [word.partition("=")[2] for word in words if word.startswith("--config=")]
    by_file = {str(path): name for name, path in shipped().items()}
    found = []
    for name in named:
        try:
            path = find(name)
        except InputError:
            path = name
        short = name.partition("configs/")[2].removesuffix(".yaml")
        found.append(by_file.get(path) or (short if short in shipped() else name))
    return found


def changes(run: Run) -> list[tuple[str, str, str]]:
    """Key, shipped value, and the run's value, for all settings in which they differ.

    Empty if the command was not recorded, or names no shipped configuration.
    """
    command = run.starts[-1].get("command", "") if run.starts else ""
    files = [shipped()[name] for name in used_configs(command) if name in shipped()]
    if not files:
        return []
    before: dict[str, Any] = {}
    for file in files:
        before |= flat(yaml.safe_load(file.read_text(encoding="utf-8")) or {})
    now = flat(run.config)
    found = {
        key: (_told(value), _told(now[key]))
        for key, value in before.items()
        if key in now and not key.startswith((*_OF_PLACE, *_LISTS)) and not _same(value, now[key])
    }
    for key, value in _options(command).items():
        if not key.startswith(_OF_PLACE) and key not in found:
            found[key] = (_told(before.get(key, "")), value)
    return [(key, old, new) for key, (old, new) in found.items() if old != new]


def differing(runs: Sequence[Run]) -> list[tuple[str, list[str]]]:
    """Key and the value of each run, for all settings that are not the same in all runs with a configuration."""
    settings = [flat(run.config) for run in runs]
    keys = dict.fromkeys(key for own in settings for key in own)
    rows = [(key, [_told(own.get(key, "")) for own in settings]) for key in keys if not key.startswith(_OF_PLACE)]
    found = {key: values for key, values in rows if len(set(values)) > 1}
    # The settings of a part that some of the runs do not have say nothing more.
    absent = tuple(f"{key}." for key, values in found.items() if {"none", ""} & set(values))
    return [(key, values) for key, values in found.items() if not key.startswith(absent)]


def _options(command: str) -> dict[str, str]:
    """Options of a command, by key."""
    words, found = _words(command), {}
    for number, word in enumerate(words):
        if word.startswith("--"):
            key, _, value = word[2:].partition("=")
            following = words[number + 1] if number + 1 < len(words) else ""
            found[key] = value or ("" if following.startswith("--") else following)
    return found


def _words(command: str) -> list[str]:
    try:
        return shlex.split(command)
    except ValueError:
        return command.split()


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, str) and isinstance(other, int | float):
        try:
            return float(one) == float(other)  # YAML reads 5e-4 as a text
        except ValueError:
            return False
    return bool(one == other)


def _told(value: Any) -> str:
    return "none" if value is None else str(value)
