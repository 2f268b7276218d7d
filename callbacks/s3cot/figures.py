"""Figures of the direction, the strength sweep and the stages."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from callbacks.figure_style import COLOURS, MARKERS, figure, legend
from datamodules.s3cot.curriculum_data import StageRow
from llm_modules.s3cot.direction import Direction

_GREY = "#6e6e6e"


@dataclass(frozen=True)
class DialPoint:
    """One (layer set, alpha) of the dial; rates are fractions of 1."""

    layer_set: str
    alpha: float
    length_ratio: float
    accuracy: float
    accuracy_low: float
    accuracy_high: float
    collapsed: bool
    chosen: bool


def plot_dial(points: Sequence[DialPoint], path: Path, *, judged_by: str = "accuracy") -> None:
    """Length ratio and accuracy against strength, a line a layer set; collapsed strengths shaded, the choice marked.

    Args:
        points: Those of alpha 0 stand for every layer set (their own ``layer_set`` is not read).
        path: PNG file.
        judged_by: What the lower panel shows: ``accuracy``, or ``agreement`` with the initial answer.
    """
    layer_sets = sorted({point.layer_set for point in points if point.alpha != 0})
    initial = [point for point in points if point.alpha == 0]
    with figure(path, 7.2, 6.4, rows=2, sharex=True) as (above, below):
        for index, layer_set in enumerate(layer_sets):
            own = [point for point in points if point.alpha != 0 and point.layer_set == layer_set]
            _dial_line(above, below, sorted(initial + own, key=lambda point: point.alpha), layer_set, index)
        for start, end in _collapsed_spans(points):
            above.axvspan(start, end, color="#d0d0d0", alpha=0.45, lw=0, zorder=0)
            below.axvspan(start, end, color="#d0d0d0", alpha=0.45, lw=0, zorder=0)
        for point in points:
            if point.chosen:
                star = {"ms": 19, "mfc": "#F0E442", "mec": "black", "zorder": 5, "ls": ""}
                above.plot(point.alpha, point.length_ratio, "*", label=f"chosen, alpha = {point.alpha:g}", **star)
                below.plot(point.alpha, point.accuracy, "*", **star)
        if any(point.collapsed for point in points):
            above.plot([], [], "o", color=_GREY, mfc="white", mew=1.6, label="collapse (shaded: of every layer set)")
        above.axhline(1, color=_GREY, lw=1, ls=":")
        above.set_ylabel("length ratio Len-R\n(tokens / initial tokens)")
        above.set_ylim(0, max(1.0, *(point.length_ratio for point in points)) * 1.06)
        below.set_ylabel("accuracy" if judged_by == "accuracy" else "agreement with\nthe initial answer")
        low, high = below.get_ylim()
        below.set_ylim(max(low, -0.02), min(max(high, 0.1), 1.03))
        below.yaxis.set_major_formatter(PercentFormatter(1))
        below.set_xlabel("steering strength alpha (times the direction)")
        legend(above)


def plot_stages(stages: Sequence[StageRow], path: Path) -> None:
    """Pairs drawn by length ratio in every stage of a curriculum, and how short they are on average.

    Args:
        stages: `stage_table` of the curriculum's datamodule.
        path: PNG file.
    """
    n = len(stages)
    buckets = len(stages[0].drawn)
    counts = np.array([stage.drawn for stage in stages], dtype=float)
    with figure(path, 9.2, 1.9 + 0.34 * max(n, 4), columns=2, width_ratios=(2.2, 1), sharey=True) as (left, right):
        left.imshow(
            np.where(counts > 0, counts, np.nan),
            cmap="Blues",
            norm=PowerNorm(0.5, vmin=0, vmax=1.6 * counts.max()),  # light enough for black numbers
            aspect="auto",
            extent=(0, 1, n - 0.5, -0.5),
        )
        for row, stage in enumerate(stages):
            for column, count in enumerate(stage.drawn):
                if count:
                    left.text((column + 0.5) / buckets, row, str(count), ha="center", va="center", fontsize=8)
            left.plot([stage.lower] * 2, [row - 0.5, row + 0.5], color=COLOURS[1], lw=2.5, solid_capstyle="butt")
        left.plot([], [], color=COLOURS[1], lw=2.5, label="lower end of the window (numbers: pairs drawn)")
        left.set_xlim(0, 1.005)
        left.set_xlabel("length ratio Len-R (tokens / initial tokens)")
        left.set_ylabel("stage")
        left.yaxis.set_major_locator(MaxNLocator(integer=True))
        left.grid(visible=False)
        right.plot([stage.length_ratio for stage in stages], range(n), color=COLOURS[0], marker="o", ms=5, lw=1.8)
        right.set_xlim(0, 1)
        right.set_xlabel("mean Len-R of the pairs")
        legend(left, loc="lower center", bbox_to_anchor=(0.5, 1.0))


def _dial_line(above: Axes, below: Axes, line: Sequence[DialPoint], label: str, index: int) -> None:
    """A layer set in both panels; the markers of collapsed strengths are hollow."""
    colour, marker = COLOURS[index % len(COLOURS)], MARKERS[index % len(MARKERS)]
    alphas = [point.alpha for point in line]
    accuracy = np.array([point.accuracy for point in line])
    bars = np.array([[p.accuracy - p.accuracy_low for p in line], [p.accuracy_high - p.accuracy for p in line]])
    below.errorbar(
        alphas, accuracy, yerr=np.nan_to_num(bars).clip(min=0), color=colour, elinewidth=1, capsize=3, lw=1.8
    )
    above.plot(alphas, [point.length_ratio for point in line], color=colour, lw=1.8)
    for point in line:
        face = "white" if point.collapsed else colour
        for panel, value in ((above, point.length_ratio), (below, point.accuracy)):
            panel.plot(point.alpha, value, marker, color=colour, mfc=face, ms=6.5, mew=1.6, zorder=4)
    above.plot([], [], color=colour, marker=marker, lw=1.8, ms=6.5, label=label or "steered layers")


def _collapsed_spans(points: Sequence[DialPoint]) -> list[tuple[float, float]]:
    """Stretches in which every layer set collapses: each strength with half the way to its neighbours."""
    alphas = sorted({point.alpha for point in points})
    if len(alphas) < 2:
        return []
    edges = [(left + right) / 2 for left, right in pairwise(alphas)]
    edges = [2 * alphas[0] - edges[0], *edges, 2 * alphas[-1] - edges[-1]]
    spans: list[tuple[float, float]] = []
    for alpha, start, end in zip(alphas, edges, edges[1:], strict=False):
        if all(point.collapsed for point in points if point.alpha == alpha):
            spans = [*spans[:-1], (spans[-1][0], end)] if spans and spans[-1][1] == start else [*spans, (start, end)]
    return spans


def plot_direction(direction: Direction, path: Path) -> None:
    """Separation, mean cosine and its variance against the decoder layer, with the anchor marked, as a PNG file."""
    curves = [
        ("separation\n" + r"$\|\mathrm{mean}_{+} - \mathrm{mean}_{-}\|_2$", direction.separation, COLOURS[0], "o"),
        ("mean cosine of\nsingle differences", direction.cosine, COLOURS[1], "s"),
        ("variance of\nthat cosine", direction.cosine_variance, COLOURS[2], "^"),
    ]
    figure = Figure(figsize=(6.4, 6.4), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(len(curves), 1, sharex=True)
    for panel, (label, values, colour, marker) in zip(panels, curves, strict=True):
        panel.plot(range(len(values)), values, marker=marker, markersize=4, linewidth=1.5, color=colour)
        panel.set_ylabel(label)
        panel.set_ylim(bottom=min(0.0, *values), top=1.08 * max(values) or 1.0)
        panel.grid(axis="y", color="0.9", linewidth=0.8)
        panel.set_axisbelow(True)
        panel.spines[["top", "right"]].set_visible(False)
        if direction.anchor is not None:
            panel.axvline(direction.anchor, color="0.35", linestyle="--", linewidth=1)
    if direction.anchor is not None:
        panels[0].annotate(
            f"anchor: layer {direction.anchor}",
            xy=(direction.anchor, 1),
            xycoords=("data", "axes fraction"),
            xytext=(0, 3),
            textcoords="offset points",
            ha="center",
            va="bottom",
            color="0.35",
        )
    panels[-1].set_xlabel("decoder layer")
    panels[-1].xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.align_ylabels()
    figure.suptitle(f"Direction of {direction.n} pairs in {Path(direction.model).name or 'an unknown model'}")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150, metadata={"Software": None})
