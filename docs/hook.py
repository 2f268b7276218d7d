"""Adds the generated reference to the docs site; see `rod.reference`."""

from typing import Any

from mkdocs.structure.files import File, Files

from rod.reference import pages

GENERATED = pages()


def on_config(config: Any) -> Any:
    """Put the pages of public names at the end of the reference in the navigation."""
    (reference,) = (entry["Reference"] for entry in config.nav if isinstance(entry, dict) and "Reference" in entry)
    rooms = [place for place in GENERATED if place.startswith("reference/api/")]
    reference.append({"Python": [{place.split("/")[-1].removesuffix(".md"): place} for place in rooms]})
    return config


def on_files(files: Files, *, config: Any) -> Files:
    """Add the pages."""
    for place, text in GENERATED.items():
        files.append(File.generated(config, place, content=text))
    return files
