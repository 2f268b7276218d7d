"""The configurations that come with the project, found by name from any folder."""

import difflib
from pathlib import Path

from datamodules.errors import InputError

CONFIGS = Path(__file__).parents[1] / "configs"


def shipped() -> dict[str, Path]:
    """Short name -> file, such as ``s3cot/1_direction``; in alphabetical order of folders."""
    files = sorted(CONFIGS.rglob("*.yaml"), key=lambda path: (path.parent, path.name))
    return {path.relative_to(CONFIGS).with_suffix("").as_posix(): path for path in files}


def find(word: str) -> str:
    """The file that ``--config`` names: a local file, else a shipped one, with or without ``configs/`` and ``.yaml``.

    InputError, with the shipped ones that are spelled alike, if there is none.

    Example:
        >>> Path(find("s3cot/1_direction")).relative_to(CONFIGS).as_posix()
        's3cot/1_direction.yaml'
    """
    if Path(word).is_file():
        return word
    known = shipped()
    name = word.removeprefix("configs/").removesuffix(".yaml")
    if name in known:
        return str(known[name])
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean '{close[0]}'?" if close else "`rod configs` lists those that come along"
    raise InputError(f"--config: there is no file '{word}', nor a shipped configuration of that name; {hint}")
