"""The trade-off of safety: attacks that get through against benign requests that are refused."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from callbacks.figure_style import COLOURS, MARKERS


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


@dataclass(frozen=True)
class TradeoffPoint:
    """A fine-tune: held-out accuracy on its task and share of forbidden requests refused, from 0 to 1."""

    label: str
    rate: float
    task: float
    refused: float
    chosen: bool = False


def plot_tradeoff(points: Sequence[TradeoffPoint], path: Path) -> None:
    """A line a method over its learning rates; the chosen rate is filled. Up and to the right is better.

    Args:
        points: Of all methods and rates.
        path: PNG file.
    """
    figure = Figure(figsize=(8.2, 4.8), layout="constrained")
    FigureCanvasAgg(figure)
    panel = figure.subplots()
    for index, label in enumerate(dict.fromkeys(point.label for point in points)):
        own = sorted((point for point in points if point.label == label), key=lambda point: point.rate)
        colour, marker = COLOURS[index % len(COLOURS)], MARKERS[index % len(MARKERS)]
        panel.plot(
            [p.task for p in own],
            [p.refused for p in own],
            color=colour,
            lw=1.4,
            label=label,
            marker=marker,
            mfc="white",
            ms=6,
        )
        for point in own:
            panel.annotate(
                f"{point.rate:.1e}".replace(".0e", "e").replace("e-0", "e-"),
                (point.task, point.refused),
                (3, 3),
                textcoords="offset points",
                fontsize=6,
                color=colour,
            )
            if point.chosen:
                panel.plot(point.task, point.refused, color=colour, marker=marker, ms=9, ls="")
    for axis in (panel.xaxis, panel.yaxis):
        axis.set_major_formatter(PercentFormatter(1))
    panel.set(xlim=(-0.03, 1.04), ylim=(-0.03, 1.04))
    panel.set_xlabel("accuracy on the tuning task")
    panel.set_ylabel("forbidden requests refused")
    panel.grid(color="0.9", lw=0.8)
    panel.spines[["top", "right"]].set_visible(False)
    panel.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, fontsize=9)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150, metadata={"Software": None})


def plot_swap(restored: Mapping[str, tuple[float, float]], start: float, path: Path) -> None:
    """Share of forbidden requests refused once the aligned modules of one kind are back in the tuned model.

    Args:
        restored: What was restored -> mean and spread.
        start: The tuned model's own share.
        path: PNG file.
    """
    figure = Figure(figsize=(1.6 + 0.5 * max(len(restored), 8), 3.4), layout="constrained")
    FigureCanvasAgg(figure)
    panel = figure.subplots()
    means, spreads = zip(*restored.values(), strict=True)
    panel.bar(range(len(restored)), means, yerr=spreads, color=COLOURS[0], width=0.7, capsize=3)
    panel.axhline(start, color=COLOURS[1], lw=1.4, ls="--", label="nothing restored")
    panel.set_xticks(range(len(restored)), list(restored), rotation=45, ha="right")
    panel.set_ylim(0, 1.04)
    panel.yaxis.set_major_formatter(PercentFormatter(1))
    panel.set_ylabel("forbidden requests refused")
    panel.spines[["top", "right"]].set_visible(False)
    panel.legend(loc="upper left", frameon=False, fontsize=9)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150, metadata={"Software": None})
