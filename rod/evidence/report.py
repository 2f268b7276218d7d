"""The report of ``rod evidence``: ``summary.json``, tables in the terminal, a page for each method, figures."""

import json
import platform
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from datetime import date
from importlib.metadata import version
from pathlib import Path

from rich.console import Console
from rich.table import Table

from datamodules.errors import InputError
from rod.evidence.rows import Evidence, Row, Rows, Section
from rod.verbs.compare import run as compare

_LIBRARIES = ("torch", "lightning", "transformers", "peft")


def report(methods: Sequence[Evidence], output: Path, seeds: int | None, publish: Path | None) -> list[Row]:
    """Print each method's main tables and its compared test runs, and write all files; returns the rows of all methods.

    Without ``seeds`` each method has its own number. ``publish`` is a second folder for the files of ``output``.
    """
    tables = []
    for method in methods:
        folders = [output / f"seed{seed}" for seed in range(seeds or method.seeds)]
        tables.append((method, Rows(method.method, [method.values(folder) for folder in folders])))
    console = Console(width=None if Console().is_terminal else 220)
    for method, table in tables:
        for number, section in enumerate(method.sections(table)):
            if section.printed or number == 0:
                console.print(_printed(section))
        tests = [output / "seed0" / name for name in method.compared if (output / "seed0" / name).is_dir()]
        if len(tests) > 1:
            compare(tests)
    for target in [output, *([publish] if publish else [])]:
        target.mkdir(parents=True, exist_ok=True)
        for method, table in tables:
            method.plot(table, target)
            for name, source in method.figures.items():
                for suffix in (".png", ".svg"):
                    if (made := (output / "seed0" / source).with_suffix(suffix)).is_file():
                        shutil.copyfile(made, (target / name).with_suffix(suffix))
        _write(target, tables)
    console.print(f"figures, tables and summary.json in {output}", style="dim", highlight=False)
    return [row for _, table in tables for row in table.rows]


def redraw(methods: Sequence[Evidence], folder: Path) -> list[str]:
    """Draw published figures again from the rows in ``summary.json``; the methods that have rows there.

    Figures that a run of the first seed draws (`Evidence.figures`) need that run, and are left alone. InputError if
    there is no such file.
    """
    path = folder / "summary.json"
    if not path.is_file():
        raise InputError(f"--redraw: '{folder}' has no summary.json; give a folder that rod evidence has written")
    rows = [Row(**row) for row in json.loads(path.read_text(encoding="utf-8"))]
    drawn = []
    for method in methods:
        table = Rows(method.method, [])
        table.rows = [row for row in rows if row.method == method.method]
        if table.rows:
            method.plot(table, folder)
            drawn.append(method.method)
    return drawn


def _write(folder: Path, tables: Sequence[tuple[Evidence, Rows]]) -> None:
    """Replace the rows and tables of these methods; keep those of other methods."""
    path = folder / "summary.json"
    mine = {method.method for method, _ in tables}
    before = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []
    others = [row for row in before if row["method"] not in mine]
    rows = [*others, *(asdict(row) for _, table in tables for row in table.rows)]
    path.write_text("[\n" + ",\n".join(json.dumps(row) for row in rows) + "\n]\n", encoding="utf-8")
    for method, table in tables:
        name = "tables.md" if method.method == "s3cot" else f"{method.method}.md"
        (folder / name).write_text(_markdown(method, table), encoding="utf-8")


def _printed(section: Section) -> Table:
    table = Table(title=section.title)
    for number, heading in enumerate(section.headings):
        table.add_column(heading, justify="right" if number else "left", no_wrap=not number)
    for cells in section.cells:
        table.add_row(*cells)
    return table


def _markdown(method: Evidence, table: Rows) -> str:
    versions = ", ".join(f"{name} {version(name)}" for name in _LIBRARIES)
    several = any(row.seeds > 1 for row in table.rows)
    spread = "Mean ± standard deviation over seeds" if several else "One seed, so the spread is not known"
    lines = [
        f"# Evidence: {method.method}",
        "",
        f"Written by `rod evidence` on {date.today().isoformat()} (Python {platform.python_version()}, {versions}).",
        f"{spread}; held-out problems and requests.",
        "",
    ]
    for section in method.sections(table):
        lines += [f"## {section.title}", ""]
        lines += ["| " + " | ".join(section.headings) + " |", "|" + "---|" * len(section.headings)]
        lines += ["| " + " | ".join(cells) + " |" for cells in section.cells]
        lines += ["", section.notes, ""] if section.notes else [""]
    return "\n".join(lines)
