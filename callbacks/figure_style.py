"""The style of all figures: palette, markers, and a context manager that opens and saves a figure."""

import itertools
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.container import Container
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.transforms import Bbox

# Okabe and Ito's palette, which colour-blind readers can tell apart. Lines differ in their markers too.
BLUE, VERMILION, GREEN, PURPLE = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
ORANGE, SKY, BLACK, YELLOW = "#E69F00", "#56B4E9", "#000000", "#F0E442"
GREY, OLIVE = "#6e6e6e", "#999933"

COLOURS = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY, BLACK, OLIVE)
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<")


INK, PAPER, GRID = "#1a1a1a", "#ffffff", "#e6e6e6"
"""Text, background and grid. The report swaps these, black and GREY for those of its theme."""
ON_LIGHT, ON_DARK, BLUE_ON_LIGHT = "#010101", "#fefefe", "#0071b1"
"""Text and outlines on the colours of a heat map, the same in every theme."""

_STYLE: dict[Any, Any] = {
    "font.size": 10,
    "axes.titlesize": 10,
    "figure.titlesize": 11,
    "legend.fontsize": 9,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "hatch.linewidth": 0.8,
    **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), INK),
    # The same numbers give the same bytes.
    "svg.hashsalt": "rod",
}


_HOVER = "hover: "
_HOVERED = re.compile(rf"<g id=([\"']){_HOVER}(.*?)\1>")


@contextmanager
def figure(
    path: Path, width: float, height: float, *, rows: int = 1, columns: int = 1, **grid: Any
) -> Iterator[np.ndarray]:
    """Open a figure (sizes in inches), give its panels row by row, and write it when the block ends.

    A PNG file and an SVG file of the same name beside it; the SVG alone if ``path`` ends so. It does not use pyplot,
    so it has no global state and needs no display. The same numbers give the same bytes. ``grid`` are further options
    of `Figure.subplots`, such as ``sharex=True``.
    """
    with rc_context(_STYLE):
        drawn = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasAgg(drawn)
        yield drawn.subplots(rows, columns, squeeze=False, **grid).ravel()
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix != ".svg":
            drawn.savefig(path, dpi=150, metadata={"Software": None})
        vector = path.with_suffix(".svg")
        drawn.savefig(vector, metadata={"Date": None, "Creator": None})
        vector.write_text(_HOVERED.sub(_titled(), vector.read_text(encoding="utf-8")), encoding="utf-8")


def hover(marker: Artist | Container, text: str) -> None:
    """Show ``text`` where a reader points at a marker in the SVG file; browsers do so without a script."""
    artist = marker.get_children()[0] if isinstance(marker, Container) else marker
    artist.set_gid(f"{_HOVER}{text}")


def _titled() -> Callable[[re.Match[str]], str]:
    numbers = itertools.count()
    return lambda found: f'<g id="hover{next(numbers)}"><title>{found[2]}</title>'


def marker_style(index: int, *, colour: int | None = None, hollow: bool = False) -> dict[str, Any]:
    """Options of `Axes.plot` for condition number ``index``: a colour and a marker of its own, without a line.

    With ``colour`` it has the colour of that number instead, which it may share, and its own marker.
    """
    shown = COLOURS[(index if colour is None else colour) % len(COLOURS)]
    # The markers shift by one each time the colours start again, so 64 conditions look different.
    marker = MARKERS[(index + index // len(COLOURS)) % len(MARKERS)]
    return {"color": shown, "marker": marker, "mfc": "white" if hollow else shown, "ms": 8, "mew": 1.6, "ls": ""}


_PLACES = [(4, 4), (4, -4), (-4, 4), (-4, -4), (0, 6), (0, -6), (6, 0), (-6, 0), (10, 10), (10, -10), (-10, 10)]
"""Where the text of a point may begin, in typographical points from it, the best first."""
_ALIGNED = {1: ("left", "bottom"), 0: ("center", "center"), -1: ("right", "top")}


def label_points(panel: Axes, labels: Sequence[tuple[str, float, float, str]], size: float = 7) -> None:
    """Write (text, x, y, colour) beside points where there is room; what has none is left out.

    No text covers another one or a point. The first ones choose first. Everything else must be in the panel already.
    """
    whole = panel.figure
    assert isinstance(whole, Figure)
    whole.draw_without_rendering()
    reach = whole.dpi / 72 * 4
    places = [panel.transData.transform((x, y)) for _, x, y, _ in labels]
    taken = [Bbox([at - reach, at + reach]) for at in places]
    for text, x, y, colour in labels:
        for right, up in _PLACES:
            sides = _ALIGNED[int(np.sign(right))][0], _ALIGNED[int(np.sign(up))][1]
            place: dict[str, Any] = {"xytext": (right, up), "textcoords": "offset points", "zorder": 5}
            place |= {"ha": sides[0], "va": sides[1], "path_effects": [withStroke(linewidth=2, foreground=PAPER)]}
            made = panel.annotate(text, (x, y), fontsize=size, color=colour, **place)
            made.set_in_layout(False)
            box = made.get_window_extent()
            inside = panel.bbox.containsx(box.x0) and panel.bbox.containsx(box.x1)
            if inside and panel.bbox.y0 <= box.y0 and box.y1 <= panel.bbox.y1 and not box.count_overlaps(taken):
                taken.append(box)
                break
            made.remove()


def legend(panel: Axes, **options: Any) -> None:
    """Add a legend, unless nothing in the panel has a label."""
    if panel.get_legend_handles_labels()[1]:
        panel.legend(**{"markerscale": 0.8} | options)


def legend_beside(panel: Axes) -> None:
    """Add a legend to the right of the panel."""
    legend(panel, loc="center left", bbox_to_anchor=(1.01, 0.5))
