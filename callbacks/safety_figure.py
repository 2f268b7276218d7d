"""The trade-off of safety: attacks that get through against benign requests that are refused."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from callbacks.figures import COLOURS, MARKERS


@dataclass(frozen=True)
class SafetyPoint:
    """A condition: rates from 0 to 1; ``error`` is the spread of ``asr``. Rivals and the base are hollow."""

    label: str
    refused: float
    asr: float
    error: float = 0.0
    rival: bool = True


def plot_safety(points: Sequence[SafetyPoint], path: Path) -> None:
    """Attack success against refusals of benign requests, a marker a condition. Down and to the left is better."""
    figure = Figure(figsize=(8.0, 4.8), layout="constrained")
    FigureCanvasAgg(figure)
    panel = figure.subplots()
    for index, point in enumerate(points):
        colour = COLOURS[index % len(COLOURS)]
        marker = MARKERS[(index + index // len(COLOURS)) % len(MARKERS)]
        face = "white" if point.rival else colour
        style: dict[str, Any] = {"color": colour, "marker": marker, "mfc": face, "ms": 8, "mew": 1.6, "ls": ""}
        panel.errorbar(point.refused, point.asr, yerr=point.error or None, elinewidth=1, capsize=3, **style)
        panel.plot([], [], label=point.label, **style)
    panel.set_xlabel("benign requests and near-twins refused")
    panel.set_ylabel("attacks in new wraps not refused")
    for axis in (panel.xaxis, panel.yaxis):
        axis.set_major_formatter(PercentFormatter(1))
    panel.set(xlim=(-0.04, 1.04), ylim=(-0.04, 1.04))
    panel.grid(color="0.9", lw=0.8)
    panel.spines[["top", "right"]].set_visible(False)
    if points:
        panel.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, fontsize=9, markerscale=0.8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150, metadata={"Software": None})
