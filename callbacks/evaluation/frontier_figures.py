"""Figures of the frontier: accuracy against tokens, accuracy against the token budget."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, PercentFormatter

from callbacks.evaluation.budgets import BudgetAccuracy
from callbacks.evaluation.frontier import Point
from callbacks.figure_style import BLACK, GREY, figure, marker_style

_WIDE = 6.0
"""Ratio of the longest to the shortest mean length from which the axis of tokens is logarithmic."""
_LEGEND_ROWS = 24
_BANDS = 6
"""Conditions in a panel up to which lines have bands, and error bars their full strength."""
_COLUMNS = 3
"""Panels side by side, if there are several suites."""


def plot_frontier(points: Sequence[Point], base: str, path: Path) -> None:
    """Accuracy (y) against mean tokens (x), a panel per suite, as PNG and SVG; the base is hollow.

    Bars are 95 % intervals, the line is the Pareto front. Up and to the left is better.
    """
    names = list(dict.fromkeys(point.condition for point in points))
    styles = {name: marker_style(index, hollow=name == base) for index, name in enumerate(names)}
    suites = list(dict.fromkeys(point.suite for point in points))
    with _panels(path, suites, names) as panels:
        for panel, suite in zip(panels, suites, strict=False):
            own = [point for point in points if point.suite == suite]
            front = sorted((p for p in own if p.on_front), key=lambda p: p.tokens)
            panel.plot(
                [p.tokens for p in front],
                [p.accuracy for p in front],
                color=GREY,
                lw=1.2,
                ls="--",
                zorder=1,
                drawstyle="steps-post",
            )
            for p in own:
                bars: dict[str, Any] = {
                    "xerr": [[max(0.0, p.tokens - p.tokens_low)], [max(0.0, p.tokens_high - p.tokens)]],
                    "yerr": [[max(0.0, p.accuracy - p.accuracy_low)], [max(0.0, p.accuracy_high - p.accuracy)]],
                }
                panel.errorbar(
                    p.tokens,
                    p.accuracy,
                    elinewidth=0.9 if len(own) <= _BANDS else 0.5,
                    capsize=2,
                    **bars,
                    **styles[p.condition],
                )
            _axes(panel, suite if len(suites) > 1 else "", [p.tokens for p in own], "mean tokens of an answer")
        _legend(panels, [*((name, styles[name]) for name in names), ("Pareto front", {"color": GREY, "ls": "--"})])


def plot_budgets(rows: Mapping[tuple[str, str], Sequence[BudgetAccuracy]], base: str, path: Path) -> None:
    """Accuracy (y) of runs cut off at a token budget (x), a panel per suite, as PNG and SVG; the base is hollow.

    Bands are 95 % intervals; they are left out where there are more than six conditions.

    Args:
        rows: By suite and condition.
        base: The base condition.
        path: PNG file.
    """
    names = list(dict.fromkeys(condition for _, condition in rows))
    styles = {
        name: marker_style(index, hollow=name == base) | {"ls": "-", "lw": 1.4} for index, name in enumerate(names)
    }
    suites = list(dict.fromkeys(suite for suite, _ in rows))
    with _panels(path, suites, names) as panels:
        for panel, suite in zip(panels, suites, strict=False):
            budgets: list[float] = []
            crowd = sum(other == suite for other, _ in rows)
            most = max((row.budget for (other, _), own in rows.items() if other == suite for row in own), default=0)
            for (other, condition), own in rows.items():
                if other != suite:
                    continue
                if own and own[-1].budget < most:  # a budget that cuts nothing changes nothing
                    own = [*own, replace(own[-1], budget=most)]
                x, y = [row.budget for row in own], [row.accuracy for row in own]
                panel.plot(x, y, **(styles[condition] | {"ms": 5, "mew": 1.2}))
                if crowd <= _BANDS:
                    low, high = [row.low for row in own], [row.high for row in own]
                    panel.fill_between(x, low, high, color=styles[condition]["color"], alpha=0.1, lw=0)
                budgets += x
            _axes(panel, suite if len(suites) > 1 else "", budgets, "token budget", budgets=True)
        _legend(panels, [(name, styles[name]) for name in names])


def _panels(path: Path, suites: Sequence[str], names: Sequence[str]) -> Any:
    """A figure with a panel per suite and room for the legend on the right."""
    columns = min(_COLUMNS, len(suites))
    rows = -(-len(suites) // columns)
    legend_columns = -(-(len(names) + 1) // _LEGEND_ROWS)
    letters = max(map(len, names), default=0)
    width = (5.6 if columns == 1 else 4.2) * columns + legend_columns * (0.6 + 0.075 * letters)
    return figure(
        path,
        width,
        max(4.2 if rows == 1 else 3.4 * rows, 0.22 * min(len(names), _LEGEND_ROWS)),
        rows=rows,
        columns=columns,
        svg=True,
    )


def _axes(panel: Axes, title: str, values: Sequence[float], label: str, budgets: bool = False) -> None:
    panel.set_title(title, fontsize=10)
    panel.set_xlabel(label)
    panel.set_ylabel("accuracy")
    low, high = panel.get_ylim()
    panel.set_ylim(max(low, -0.03), min(high, 1.03))
    panel.yaxis.set_major_formatter(PercentFormatter(1, decimals=0 if high - low > 0.05 else 1))
    small, large = min(values, default=1.0), max(values, default=1.0)
    if budgets or (small > 0 and large / small > _WIDE):
        panel.set_xscale("log", base=2)
        panel.xaxis.set_major_locator(LogLocator(2, numticks=8))
        panel.xaxis.set_minor_formatter(NullFormatter())
    else:
        if small < large / 2:
            panel.set_xlim(left=0)
        panel.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    panel.xaxis.set_major_formatter(FuncFormatter(_short))


def _short(value: float, _: int) -> str:
    """A number of tokens for a tick: 512, 1k, 32k."""
    if value >= 1024 and value % 1024 == 0:
        return f"{value / 1024:.0f}k"
    return f"{value:,.0f}" if value >= 1 else f"{value:g}"


def _legend(panels: Sequence[Axes], entries: Sequence[tuple[str, dict[str, Any]]]) -> None:
    """One legend for all panels, to the right of them; panels without a suite are hidden."""
    for panel in panels:
        panel.set_visible(panel.has_data())
    drawn = panels[0].figure
    handles = [panels[0].plot([], [], label=name, **style)[0] for name, style in entries]
    drawn.legend(
        handles=handles,
        loc="outside right center",
        ncols=-(-len(entries) // _LEGEND_ROWS),
        frameon=False,
        fontsize=8,
        labelcolor=BLACK,
        markerscale=0.8,
    )
