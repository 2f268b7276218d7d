"""Tables of numbers for the terminal: what does not fit beside it is printed below, no number is cut."""

import sys
from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.measure import Measurement
from rich.table import Table

_NAME = 24
"""Characters of a name that stand in one line at least."""


def terminal() -> Console:
    """The terminal; 140 columns wide if the output goes elsewhere."""
    return Console(width=None if sys.stdout.isatty() else 140)


def printable(text: str) -> str:
    """The text with half characters escaped, which no terminal can print."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def print_columns(
    console: Console,
    headings: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    names: int = 1,
    title: str = "",
    caption: str = "",
) -> None:
    """Print a table; the first ``names`` columns are names, which may fold, and begin every part of the table."""
    lead = list(range(names))
    endless = console.options.update(max_width=10_000)
    longest = [max((len(row[i]) for row in rows), default=0) for i in lead]
    folded = sum(max(0, length - _NAME) for length in longest)

    def fits(columns: Sequence[int]) -> bool:
        table = _table(headings, rows, columns, names, "")
        return Measurement.get(console, endless, table).maximum - folded <= console.width

    parts = [list(lead)]
    for index in range(names, len(headings)):
        if len(parts[-1]) > names and not fits([*parts[-1], index]):
            parts.append(list(lead))
        parts[-1].append(index)
    for number, columns in enumerate(parts):
        table = _table(headings, rows, columns, names, "" if number else title)
        table.caption = caption if caption and number == len(parts) - 1 else None
        console.print(table)


def _table(
    headings: Sequence[str], rows: Sequence[Sequence[str]], columns: Sequence[int], names: int, title: str
) -> Table:
    table = Table(title=escape(title) or None, box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for index in columns:
        name = index < names
        table.add_column(headings[index], justify="left" if name else "right", no_wrap=not name, overflow="fold")
    for row in rows:
        table.add_row(*(escape(printable(row[index])) for index in columns))
    return table
