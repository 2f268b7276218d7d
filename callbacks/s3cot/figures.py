"""Figures of S³-CoT: the direction, the strength sweep, the stages of the curriculum."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.ticker import MaxNLocator, PercentFormatter

from callbacks.figure_style import (
    BLUE,
    COLOURS,
    GREEN,
    GREY,
    MARKERS,
    ON_LIGHT,
    VERMILION,
    YELLOW,
    figure,
    legend,
)
from datamodules.s3cot.stage_table import StageRow
from llm_modules.s3cot import Direction


@dataclass(frozen=True)
class SweepPoint:
    """One (layer set, alpha) of a strength sweep; rates are fractions of 1."""

    layer_set: str
    alpha: float
    length_ratio: float
    accuracy: float
    accuracy_low: float
    accuracy_high: float
    collapsed: bool
    chosen: bool


def plot_direction(direction: Direction, path: Path) -> None:
    """Plot separation, mean cosine and its variance against the decoder layer, with the anchor layer marked."""
    curves = [
        ("separation\n" + r"$\|\mathrm{mean}_{+} - \mathrm{mean}_{-}\|_2$", direction.separation, BLUE, "o"),
        ("mean cosine of\nsingle differences", direction.cosine, VERMILION, "s"),
        ("variance of\nthat cosine", direction.cosine_variance, GREEN, "^"),
    ]
    with figure(path, 6.4, 6.4, rows=len(curves), sharex=True) as panels:
        for panel, (label, values, colour, marker) in zip(panels, curves, strict=True):
            panel.plot(range(len(values)), values, marker=marker, ms=4, lw=1.5, color=colour)
            panel.set_ylabel(label)
            panel.set_ylim(bottom=min(0.0, *values), top=1.08 * max(values) or 1.0)
            if direction.anchor is not None:
                panel.axvline(direction.anchor, color=GREY, ls="--", lw=1)
        if direction.anchor is not None:
            at = panels[0].get_xaxis_transform()
            panels[0].text(
                direction.anchor, 1.02, f"anchor: layer {direction.anchor}", transform=at, ha="center", color=GREY
            )
        panels[-1].set_xlabel("decoder layer")
        panels[-1].xaxis.set_major_locator(MaxNLocator(integer=True))
        whole = panels[0].figure
        whole.align_ylabels()
        whole.suptitle(f"Direction of {direction.n} pairs in {Path(direction.model).name or 'an unknown model'}")


def plot_sweep(points: Sequence[SweepPoint], path: Path, *, accuracy: str = "accuracy") -> None:
    """Plot length ratio and accuracy (with its label) against strength, one line per layer set.

    Points of alpha 0 count for every layer set. Strengths at which all layer sets collapse are shaded; a star marks the
    chosen one.
    """
    layer_sets = sorted({point.layer_set for point in points if point.alpha != 0})
    initial = [point for point in points if point.alpha == 0]
    with figure(path, 7.2, 6.4, rows=2, sharex=True) as (above, below):
        for index, layer_set in enumerate(layer_sets):
            own = [point for point in points if point.alpha != 0 and point.layer_set == layer_set]
            _sweep_line(above, below, sorted(initial + own, key=lambda point: point.alpha), layer_set, index)
        for start, end in _collapsed_spans(points):
            for panel in (above, below):
                panel.axvspan(start, end, color="#d0d0d0", alpha=0.45, lw=0, zorder=0)
        for point in points:
            if point.chosen:
                star = {"ms": 19, "mfc": YELLOW, "mec": "black", "zorder": 5, "ls": ""}
                above.plot(point.alpha, point.length_ratio, "*", label=f"chosen, alpha = {point.alpha:g}", **star)
                below.plot(point.alpha, point.accuracy, "*", **star)
        if any(point.collapsed for point in points):
            label = "collapse (shaded: in every layer set)"
            above.plot([], [], "o", color=GREY, mfc="white", mew=1.6, label=label)
        above.axhline(1, color=GREY, lw=1, ls=":")
        above.set_ylabel("length ratio Len-R\n(tokens / initial tokens)")
        above.set_ylim(0, max(1.0, *(point.length_ratio for point in points)) * 1.06)
        below.set_ylabel(accuracy)
        low, high = below.get_ylim()
        below.set_ylim(max(low, -0.02), min(max(high, 0.1), 1.03))
        below.yaxis.set_major_formatter(PercentFormatter(1))
        below.set_xlabel("steering strength alpha (times the direction)")
        legend(above)


def plot_stages(stages: Sequence[StageRow], path: Path) -> None:
    """Plot how many pairs each stage of a curriculum draws by length ratio, and their mean length ratio."""
    n = len(stages)
    buckets = len(stages[0].drawn)
    counts = np.array([stage.drawn for stage in stages], dtype=float)
    with figure(path, 9.2, 1.9 + 0.34 * max(n, 4), columns=2, width_ratios=(2.2, 1), sharey=True) as (left, right):
        left.imshow(
            np.where(counts > 0, counts, np.nan),
            cmap="Blues",
            norm=PowerNorm(0.5, vmin=0, vmax=2.6 * counts.max()),  # light enough for black numbers
            aspect="auto",
            extent=(0, 1, n - 0.5, -0.5),
        )
        for row, stage in enumerate(stages):
            for column, count in enumerate(stage.drawn):
                if count:
                    left.text(
                        (column + 0.5) / buckets, row, str(count), ha="center", va="center", fontsize=8, color=ON_LIGHT
                    )
            left.plot([stage.lower] * 2, [row - 0.5, row + 0.5], color=VERMILION, lw=2.5, solid_capstyle="butt")
        left.plot([], [], color=VERMILION, lw=2.5, label="lower end of the window (numbers: pairs drawn)")
        left.set_xlim(0, 1.005)
        left.set_xlabel("length ratio Len-R (tokens / initial tokens)")
        left.set_ylabel("stage")
        left.set_yticks(range(n))
        left.grid(visible=False)
        right.plot([stage.length_ratio for stage in stages], range(n), color=BLUE, marker="o", ms=5, lw=1.8)
        right.set_xlim(0, 1)
        right.set_xticks([0, 0.5, 1])
        right.set_xlabel("mean Len-R of the pairs")
        legend(left, loc="lower center", bbox_to_anchor=(0.5, 1.0))


def _sweep_line(above: Axes, below: Axes, line: Sequence[SweepPoint], label: str, index: int) -> None:
    """Draw a layer set in both panels; the markers of collapsed strengths are hollow."""
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
    above.plot(
        [], [], color=colour, marker=marker, lw=1.8, ms=6.5, label=f"layers {label}" if label else "steered layers"
    )


def _collapsed_spans(points: Sequence[SweepPoint]) -> list[tuple[float, float]]:
    """Intervals in which every layer set collapses; a strength covers half the way to its neighbours."""
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
