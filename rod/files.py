"""Input and output files of the verbs: expand patterns, refuse to overwrite."""

import glob
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from datamodules.errors import InputError

_OF_A_MODEL = ("model*.safetensors", "model.safetensors.index.json", "adapter_model.*", "*.jinja", "checksums.json")
"""Files of a model folder that a later model may not write again, and that would be loaded beside its own."""
_MARKS = {"peft": "adapter_config.json", "merged": "model*.safetensors", "mogu": "mogu.json"}
"""Format of a model folder -> what only such folders have."""


def expand(option: str, patterns: str | Sequence[str]) -> list[Path]:
    """Expand paths and glob patterns to files, each file once, the matches of a pattern in alphabetical order.

    Patterns do not match ``*.rejected.jsonl``, the lines that a reader rejected. InputError if no path is given, one
    does not exist, or a pattern matches no file; the message names ``option``.
    """
    patterns = [patterns] if isinstance(patterns, str) else patterns
    if not patterns:
        raise InputError(f"{option}: there is no file; give at least one")
    paths: dict[Path, None] = {}
    for pattern in patterns:
        matches = sorted(path for path in glob.glob(pattern) if not path.endswith(".rejected.jsonl"))
        found = [Path(pattern)] if Path(pattern).is_file() else [Path(path) for path in matches]
        if not found:
            raise InputError(f"{option}: there is no file '{pattern}', and no file matches it as a pattern")
        paths.update(dict.fromkeys(found))
    return list(paths)


def run_names(runs: Sequence[Path]) -> list[str]:
    """Names of runs: their paths without the common part; a run that is the parent folder of another keeps its name."""
    folders = [run.parent if run.name == "predictions.jsonl" else run for run in map(Path.absolute, runs)]
    shared = os.path.commonpath(folders)
    return [os.path.relpath(run, shared) if str(run) != shared else run.name for run in folders]


def require_new(files: Sequence[Path], overwrite: bool) -> None:
    """Raise `InputError` if one of the output files exists, unless it may be overwritten."""
    existing = [file for file in files if file.exists()]
    if existing and not overwrite:
        more = f" (and {len(existing) - 1} more of this command's files)" if len(existing) > 1 else ""
        raise InputError(f"--output: '{existing[0]}' exists{more}; name another file or pass --overwrite true")


def require_empty(folder: Path, overwrite: bool, format: str = "merged") -> None:
    """Raise `InputError` if the output folder has files in it, unless they are of ``format`` and may be overwritten.

    Files of another format would be loaded beside the new ones.
    """
    if folder.exists() and any(folder.iterdir()) and not overwrite:
        raise InputError(f"--output: '{folder}' is not empty; name another folder or pass --overwrite true")
    for other, pattern in _MARKS.items():
        if other != format and any(folder.glob(pattern)):
            raise InputError(f"--output: '{folder}' holds an export in the format {other}; name another folder")


@contextmanager
def model_folder(folder: Path) -> Iterator[Path]:
    """A folder to save a model in; its files take the place of an earlier model's in ``folder``, with checksums."""
    from datamodules.writing import filling
    from llm_modules.backbone.checksums import write_checksums

    with filling(folder, _OF_A_MODEL) as partial:
        yield partial
        write_checksums(partial)
