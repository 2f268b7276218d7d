"""``run.json`` in a run folder: each start of the run, with its command, time, versions, device and data."""

import hashlib
import json
import os
import platform
import shlex
import sys
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from datamodules.writing import replacing

CONFIG = "config.yaml"
"""Name of a run's configuration."""
DONE = "done"
"""Name of the empty file that marks a finished run."""
RECORD = "run.json"
LIBRARIES = ("lightning-rod", "torch", "lightning", "transformers", "peft")
_READ = 64 * 2**20
"""Bytes of a data file that its fingerprint reads."""


def begin(folder: Path, verb: str, data: Any, *, anew: bool) -> None:
    """Add a start to ``run.json``.

    Args:
        folder: The run folder.
        verb: Verb of the command.
        data: The configuration's ``data``; fingerprints are taken of the files that it names.
        anew: Forget earlier starts.
    """
    starts = [] if anew else starts_of(folder)
    starts.append(
        {
            "verb": verb,
            "command": shlex.join(["rod", *sys.argv[1:]]),
            "started": _now(),
            "ended": None,
            "versions": versions(),
            "device": device(),
            "data": {path: fingerprint(Path(path)) for path in dict.fromkeys(_files(data))},
        }
    )
    _write(folder, starts)


def finish(folder: Path) -> None:
    """Note the end of the last start."""
    starts = starts_of(folder)
    if starts and starts[-1].get("ended") is None:
        starts[-1]["ended"] = _now()
        _write(folder, starts)


def starts_of(folder: Path) -> list[dict[str, Any]]:
    """The starts of a run, oldest first; empty if they were not recorded or cannot be read."""
    try:
        starts = json.loads((folder / RECORD).read_text(encoding="utf-8"))["starts"]
    except (OSError, ValueError, KeyError, TypeError):
        return []
    return [start for start in starts if isinstance(start, dict)] if isinstance(starts, list) else []


def versions() -> dict[str, str]:
    """Versions of Python, the project and the libraries that its numbers come from."""
    found = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def device() -> str:
    """The accelerators that torch sees, or the processor."""
    import torch

    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
        return f"{len(names)} x {names[0]}"
    if torch.backends.mps.is_available():
        return "Apple MPS"
    return f"{platform.machine()}, {os.cpu_count()} cores"


def fingerprint(path: Path) -> str:
    """A short hash of a file's size and first 64 MiB."""
    digest = hashlib.blake2b(str(path.stat().st_size).encode(), digest_size=8)
    with path.open("rb") as file:
        digest.update(file.read(_READ))
    return digest.hexdigest()


def _files(values: Any) -> Iterator[str]:
    """All texts in a configuration that name files."""
    if isinstance(values, Mapping):
        values = list(values.values())
    if isinstance(values, list | tuple):
        for value in values:
            yield from _files(value)
    elif isinstance(values, str | os.PathLike):
        text = os.fspath(values)
        try:
            if text and os.path.isfile(text) and os.access(text, os.R_OK):
                yield text
        except ValueError:  # a text with a null byte
            return


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _write(folder: Path, starts: list[dict[str, Any]]) -> None:
    with replacing(folder / RECORD) as file:
        file.write(json.dumps({"starts": starts}, indent=1, ensure_ascii=False).encode("utf-8", "backslashreplace"))
