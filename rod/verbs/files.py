"""What the verbs that turn files into files have in common."""

import glob
from collections.abc import Sequence
from pathlib import Path

from datamodules.errors import InputError


def expand(key: str, patterns: Sequence[str]) -> list[Path]:
    """The files that paths or glob patterns stand for, each once, those of a pattern in alphabetical order.

    Lines that a reader set aside (``*.rejected.jsonl``) match no pattern.

    Args:
        key: The option they were given with, for the error.
        patterns: Paths or patterns.

    Raises:
        InputError: One of them stands for no file.
    """
    paths: dict[Path, None] = {}
    for pattern in patterns:
        matches = sorted(path for path in glob.glob(pattern) if not path.endswith(".rejected.jsonl"))
        found = [Path(pattern)] if Path(pattern).is_file() else [Path(path) for path in matches]
        if not found:
            raise InputError(f"{key}: '{pattern}' is no file, nor does it match any; check the path")
        paths.update(dict.fromkeys(found))
    return list(paths)


def require_new(files: Sequence[Path], overwrite: bool) -> None:
    """Raise InputError if one of the files to write exists and may not be replaced."""
    standing = [str(file) for file in files if file.exists()]
    if standing and not overwrite:
        raise InputError(f"--output: {', '.join(standing)} exists; name another file or pass --overwrite true")
