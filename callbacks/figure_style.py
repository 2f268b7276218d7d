"""One style for all figures."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Okabe and Ito's palette, told apart by colour-blind readers; lines differ in their markers too."""


MARKERS = ("o", "s", "^", "D", "v", "P", "X")


def legend(panel: Axes, **place: Any) -> None:
    """Add a legend if any line of the panel has a label."""
    if panel.get_legend_handles_labels()[1]:
        panel.legend(frameon=False, fontsize=9, markerscale=0.8, **place)


@contextmanager
def figure(path: Path, width: float, height: float, *, rows: int = 1, columns: int = 1, **grid: Any) -> Iterator[Any]:
    """Panels of a figure in inches that is written when the block ends. No pyplot: nothing global, any backend."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(rows, columns, squeeze=False, **grid).ravel()
    for panel in panels:
        panel.spines[["top", "right"]].set_visible(False)
        panel.grid(color="#e6e6e6", lw=0.8)
        panel.set_axisbelow(True)
    yield panels
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
