"""Adds to the docs site what other files hold: the tutorials' notebooks, and the reference (see `rod.reference`)."""

import base64
import json
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

from rod.reference import pages

GENERATED = pages()
TUTORIALS = sorted(Path(__file__).parent.glob("tutorials/*.ipynb"))


def on_config(config: Any) -> Any:
    """Put the pages of public names at the end of the reference in the navigation."""
    (reference,) = (entry["Reference"] for entry in config.nav if isinstance(entry, dict) and "Reference" in entry)
    rooms = [place for place in GENERATED if place.startswith("reference/api/")]
    reference.append({"Python": [{place.split("/")[-1].removesuffix(".md"): place} for place in rooms]})
    return config


def on_files(files: Files, *, config: Any) -> Files:
    """Add the pages, and the pictures of the tutorials."""
    for place, text in GENERATED.items():
        files.append(File.generated(config, place, content=text))
    for notebook in TUTORIALS:
        text, pictures = tutorial(notebook)
        files.append(File.generated(config, f"tutorials/{notebook.stem}.md", content=text))
        for name, picture in pictures.items():
            files.append(File.generated(config, f"tutorials/{name}", content=picture))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Links to a notebook lead to its page."""
    return re.sub(r"(\]\([\w./]+)\.ipynb\)", r"\1.md)", markdown)


def tutorial(notebook: Path) -> tuple[str, dict[str, bytes]]:
    """A notebook as a page: its cells with what they printed; and its pictures by file name."""
    parts, pictures = [], dict[str, bytes]()
    for cell in json.loads(notebook.read_text(encoding="utf-8"))["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(source)
            continue
        is_command = source.startswith("!")
        if not any("image/png" in output.get("data", {}) for output in cell["outputs"]):
            parts.append(_fence("bash" if is_command else "python", source.removeprefix("!")))
        for output in cell["outputs"]:
            if picture := output.get("data", {}).get("image/png"):
                name = f"{notebook.stem}_{len(pictures) + 1}.png"
                pictures[name] = base64.b64decode("".join(picture))
                parts.append(f"![{source.split('/')[-1].partition('.')[0].replace('_', ' ')}]({name})")
            else:
                parts.append(_fence("text", "".join(output["text"])))
    return "\n\n".join(parts) + "\n", pictures


def _fence(language: str, text: str) -> str:
    return f"```{language}\n{text.strip()}\n```"
