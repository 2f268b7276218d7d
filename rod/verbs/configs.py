"""``rod configs``: the configurations that come with the project."""

from itertools import groupby
from pathlib import Path


def run(part: str = "", /) -> None:
    """List the configurations that come with the project, with a line about each.

    Args:
        part: Text that their names contain, such as s3cot. All by default.
    """
    print(listing(part))


def listing(part: str = "") -> str:
    """Names for ``--config`` that contain ``part``, with their first comment line, a paragraph for each folder.

    InputError if no name contains it.
    """
    from datamodules.errors import InputError
    from rod.shipped import shipped

    found = {name: path for name, path in shipped().items() if part.removeprefix("configs/") in name}
    if not found:
        raise InputError(f"rod configs: no name contains '{part}'; `rod configs` without a word lists all of them")
    paragraphs = []
    for _, group in groupby(found.items(), key=lambda item: item[1].parent):
        lines = [(name, _first_line(path)) for name, path in group]
        width = max(len(name) for name, _ in lines)
        paragraphs.append("\n".join(f"{name:<{width}}  {text}" for name, text in lines))
    return "\n\n".join(paragraphs)


def _first_line(path: Path) -> str:
    with path.open(encoding="utf-8") as file:
        return file.readline().removeprefix("#").strip()
