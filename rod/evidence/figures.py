"""Figures over conditions and seeds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import PercentFormatter

from callbacks.figure_style import (
    BLUE,
    ON_DARK,
    ON_LIGHT,
    VERMILION,
    figure,
    hover,
    label_points,
    legend,
    legend_beside,
    marker_style,
)


@dataclass(frozen=True)
class ConditionPoint:
    """A condition in a plane of two measures; ``*_error`` is half the length of its error bar.

    ``hollow`` marks controls, baselines and the base model.
    """

    label: str
    x: float
    y: float
    x_error: float = 0.0
    y_error: float = 0.0
    hollow: bool = True


def plot_accuracy_tokens(points: Sequence[ConditionPoint], path: Path) -> None:
    """Accuracy (y) against mean tokens (x) as a PNG file. Up and to the left is better."""
    with figure(path, 8.0, 4.4) as (panel,):
        _conditions(panel, points)
        panel.set_xlabel("mean tokens of a completion")
        panel.set_ylabel("accuracy")
        panel.set_xlim(left=0)
        panel.set_ylim(top=min(panel.get_ylim()[1], 1.01))
        low, high = panel.get_ylim()
        panel.yaxis.set_major_formatter(PercentFormatter(1, decimals=0 if high - low > 0.05 else 1))
        legend_beside(panel)


def plot_safety(
    points: Sequence[ConditionPoint],
    path: Path,
    refused: str = "benign requests and near-twins refused",
    attacked: str = "attacks in unseen templates not refused",
) -> None:
    """Attack success (y) against refusals of benign requests (x) as a PNG file. Down and to the left is better."""
    with figure(path, 8.0, 4.8) as (panel,):
        _conditions(panel, points)
        panel.set_xlabel(refused)
        panel.set_ylabel(attacked)
        _percent(panel)
        legend_beside(panel)


def _conditions(panel: Axes, points: Sequence[ConditionPoint]) -> None:
    """A marker for each condition, with its error bars."""
    for index, point in enumerate(points):
        style = marker_style(index, hollow=point.hollow)
        bars: dict[str, Any] = {"xerr": point.x_error or None, "yerr": point.y_error or None}
        marker = panel.errorbar(point.x, point.y, elinewidth=1, capsize=3, **bars, **style)
        hover(marker, f"{point.label}: {point.x:.4g}, {point.y:.3g}")
        panel.plot([], [], label=point.label, **style)


@dataclass(frozen=True)
class TradeoffPoint:
    """A fine-tune: accuracy on its task, or the fall of its loss, and share of forbidden requests refused, 0 to 1."""

    label: str
    rate: float
    task: float
    refused: float
    chosen: bool = False


def plot_tradeoff(points: Sequence[TradeoffPoint], path: Path, order: Sequence[str] = (), loss: bool = False) -> None:
    """A line for each method over its learning rates, as a PNG file; the chosen rate is filled.

    Up and to the right is better. Methods have the colours of their places in ``order``, the same in several figures.
    With ``loss``, the task is measured by the fall of its loss.
    """
    with figure(path, 8.2, 4.8) as (panel,):
        lines: dict[str, list[Spot]] = {}
        for point in sorted(points, key=lambda point: point.rate):
            rate = f"{point.rate:.1e}".replace(".0e", "e").replace("e-0", "e-")
            task = f"{point.task:.2f}" if loss else f"{point.task:.1%}"
            told = f"{point.label} at {rate}: task {task}, refused {point.refused:.1%}"
            lines.setdefault(point.label, []).append(Spot(rate, point.task, point.refused, told, point.chosen))
        panel.set_xlabel(
            "fall of the loss on the tuning task (nats per token)" if loss else "accuracy on the tuning task"
        )
        panel.set_ylabel("forbidden requests refused")
        _percent(panel, "y" if loss else "xy")
        _lines(panel, {label: lines[label] for label in dict.fromkeys(point.label for point in points)}, order)


def plot_dials(
    lines: Mapping[str, Sequence[tuple[str, float, float]]], path: Path, refused: str, attacked: str
) -> None:
    """A line for each method over its settings, as a PNG file: each is (setting, benign refused, attacks), 0 to 1.

    Down and to the left is better.
    """
    with figure(path, 8.2, 4.8) as (panel,):
        spots: dict[str, list[Spot]] = {}
        for label, points in lines.items():
            for name, x, y in points:
                told = f"{label}, {name}: {refused} {x:.1%}, {attacked} {y:.1%}"
                spots.setdefault(label, []).append(Spot(name, x, y, told))
        panel.set_xlabel(refused)
        panel.set_ylabel(attacked)
        _percent(panel)
        _lines(panel, spots)


class Spot(NamedTuple):
    """A place on a line: its short name, its coordinates, what hovering over it tells, whether it is filled."""

    name: str
    x: float
    y: float
    told: str
    chosen: bool = False


def _lines(panel: Axes, lines: Mapping[str, Sequence[Spot]], order: Sequence[str] = ()) -> None:
    """A line for each label through its spots, and a legend, which says between which settings it goes."""
    places = list(dict.fromkeys([*order, *lines]))
    labels = []
    for label, spots in lines.items():
        style = marker_style(places.index(label), hollow=True) | {"lw": 1.4, "ms": 6, "mew": 1.2}
        ends = f" ({spots[0].name} to {spots[-1].name})" if len(spots) > 1 else f" ({spots[0].name})"
        line = {"ls": "-", "label": label + ends}
        panel.plot([spot.x for spot in spots], [spot.y for spot in spots], **style | line)
        for spot in spots:
            chosen = {"ms": 9, "mfc": style["color"], "zorder": 3} if spot.chosen else {}
            (marked,) = panel.plot(spot.x, spot.y, **style | chosen)
            hover(marked, spot.told)
            labels.append((spot.name, spot.x, spot.y, style["color"], spot.chosen))
    legend_beside(panel)
    label_points(panel, [label[:4] for label in sorted(labels, key=lambda label: not label[4])])


@dataclass(frozen=True)
class Gain:
    """A cell of a map: names of its column and row, mean and spread over seeds."""

    column: str
    row: str
    mean: float
    std: float
    seeds: int


def plot_gains(maps: Mapping[str, Sequence[Gain]], path: Path, column: str, row: str, measure: str) -> None:
    """Maps side by side as a PNG file, with the gain as colour: purple for a gain, orange for a loss."""
    columns, rows = (list(dict.fromkeys(names)) for names in _places(maps))
    most = max(max(abs(gain.mean) for gains in maps.values() for gain in gains), 1e-6)
    size = (1.6 + len(maps) * (1.2 + 1.1 * len(columns)), 1.6 + 0.7 * len(rows))
    with figure(path, *size, columns=len(maps), sharey=True) as panels:
        for panel, (title, gains) in zip(panels, maps.items(), strict=True):
            grid = np.full((len(rows), len(columns)), np.nan)
            for gain in gains:
                at = (columns.index(gain.column), rows.index(gain.row))
                grid[at[1], at[0]] = gain.mean
                told = f"{gain.mean:+.2f}" + (f"\n± {gain.std:.2f}" if gain.seeds > 1 else "")
                colour = ON_DARK if abs(gain.mean) > 0.6 * most else ON_LIGHT
                panel.text(*at, told, ha="center", va="center", fontsize=8, color=colour)
            image = panel.imshow(grid, cmap="PuOr", vmin=-most, vmax=most, aspect="auto", origin="lower")
            panel.grid(visible=False)
            panel.set_xticks(range(len(columns)), columns)
            panel.set_yticks(range(len(rows)), rows)
            panel.set_xlabel(column)
            panel.set_title(title, loc="left")
        panels[0].set_ylabel(row)
        panels[0].figure.colorbar(image, ax=list(panels), shrink=0.9, label=measure)


def _places(maps: Mapping[str, Sequence[Gain]]) -> tuple[list[str], list[str]]:
    """The column and the row of every cell."""
    cells = [gain for gains in maps.values() for gain in gains]
    return [gain.column for gain in cells], [gain.row for gain in cells]


def plot_swap(restored: Mapping[str, tuple[float, float]], start: float, path: Path) -> None:
    """Share of forbidden requests refused after aligned modules of one kind are put back into the tuned model.

    ``restored`` has mean and spread by kind of modules, ``start`` is the tuned model's own share.
    """
    with figure(path, 1.6 + 0.5 * max(len(restored), 8), 3.4) as (panel,):
        means, spreads = zip(*restored.values(), strict=True)
        panel.grid(visible=False, axis="x")
        bars = panel.bar(range(len(restored)), means, yerr=spreads, color=BLUE, width=0.7, capsize=3)
        for bar, (name, (mean, spread)) in zip(bars, restored.items(), strict=True):
            hover(bar, f"{name} restored: {mean:.1%} ± {spread:.1%} refused")
        panel.axhline(start, color=VERMILION, lw=1.4, ls="--", label="nothing restored")
        panel.set_xticks(range(len(restored)), list(restored), rotation=45, ha="right")
        panel.set_ylim(0, 1.04)
        panel.yaxis.set_major_formatter(PercentFormatter(1))
        panel.set_ylabel("forbidden requests refused")
        panel.set_xlabel("modules of the aligned model that are put back")
        legend(panel, loc="upper left")


def _percent(panel: Axes, axes: str = "xy") -> None:
    """These axes from 0 to 100 %."""
    for axis in axes:
        getattr(panel, f"{axis}axis").set_major_formatter(PercentFormatter(1))
        panel.set(**{f"{axis}lim": (-0.04, 1.04)})
