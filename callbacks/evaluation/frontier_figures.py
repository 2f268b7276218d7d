"""Figures of the frontier: accuracy against tokens, accuracy against the token budget."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, PercentFormatter

from callbacks.evaluation.budgets import BudgetAccuracy
from callbacks.evaluation.frontier import Point
from callbacks.figure_style import GREY, figure, hover, label_points, marker_style

_WIDE = 6.0
"""Ratio of the longest to the shortest mean length from which the axis of tokens is logarithmic."""
_LEGEND_ROWS = 24
_BANDS = 6
"""Conditions in a panel up to which lines have bands, and error bars their full strength."""
_COLUMNS = 3
"""Panels side by side, if there are several suites."""
Strengths = Mapping[str, tuple[str, float]]
"""Condition of a strength sweep -> its series and strength."""


def plot_frontier(
    points: Sequence[Point],
    base: str,
    path: Path,
    strengths: Strengths | None = None,
    places: Mapping[str, int] | None = None,
) -> None:
    """Accuracy (y) against mean tokens (x), a panel per suite, as PNG and SVG; the base is hollow.

    Bars are 95 % intervals, the dashed line is the Pareto front. Up and to the left is better. The strengths of a
    series share a colour, are joined by a line, and stand beside their points. ``places`` are the places of conditions
    in the palette, if other figures about them are beside this one; by default each has its own.
    """
    looks = _looks([point.condition for point in points], base, strengths or {}, places or {})
    suites = list(dict.fromkeys(point.suite for point in points))
    labels: dict[str, list[tuple[str, float, float, str]]] = {}
    with _panels(path, suites, looks.legend) as panels:
        for panel, suite in zip(panels, suites, strict=False):
            own = [point for point in points if point.suite == suite]
            front = sorted((p for p in own if p.on_front), key=lambda p: p.tokens)
            x, y = [p.tokens for p in front], [p.accuracy for p in front]
            panel.plot(x, y, color=GREY, lw=1.2, ls="--", zorder=1, drawstyle="steps-post")
            for series in dict.fromkeys(series for series, _ in looks.strengths.values()):
                labels.setdefault(suite, []).extend(_joined(panel, own, series, looks))
            for p in own:
                bars: dict[str, Any] = {
                    "xerr": [[max(0.0, p.tokens - p.tokens_low)], [max(0.0, p.tokens_high - p.tokens)]],
                    "yerr": [[max(0.0, p.accuracy - p.accuracy_low)], [max(0.0, p.accuracy_high - p.accuracy)]],
                    "elinewidth": 0.9 if len(own) <= _BANDS else 0.5,
                }
                style = looks.styles[p.condition] | {"ms": 8 if len(own) <= _BANDS else 6}
                marker = panel.errorbar(p.tokens, p.accuracy, capsize=2, **bars, **style)
                hover(marker, f"{p.condition}: {p.accuracy:.1%} right with {p.tokens:.1f} tokens, {p.suite}")
            _axes(panel, suite if len(suites) > 1 else "", [p.tokens for p in own], "mean tokens of an answer")
        _legend(panels, looks.legend | {"Pareto front": {"color": GREY, "ls": "--"}})
        for panel, suite in zip(panels, suites, strict=False):
            label_points(panel, labels.get(suite, ()), size=6.5)


def plot_budgets(
    rows: Mapping[tuple[str, str], Sequence[BudgetAccuracy]],
    base: str,
    path: Path,
    strengths: Strengths | None = None,
) -> None:
    """Accuracy (y) of runs cut off at a token budget (x), a panel per suite, as PNG and SVG; the base is hollow.

    Bands are 95 % intervals; they are left out where there are more than six conditions. The strengths of a series
    share a colour, the weaker ones paler. ``rows`` are by suite and condition.
    """
    looks = _looks([condition for _, condition in rows], base, strengths or {}, {}, ls="-", lw=1.4)
    suites = list(dict.fromkeys(suite for suite, _ in rows))
    with _panels(path, suites, looks.legend) as panels:
        for panel, suite in zip(panels, suites, strict=False):
            lines = {condition: own for (other, condition), own in rows.items() if other == suite and own}
            most = max((own[-1].budget for own in lines.values()), default=0)
            budgets: list[float] = []
            for condition, own in lines.items():
                if own[-1].budget < most:  # a budget that cuts nothing changes nothing
                    own = [*own, replace(own[-1], budget=most)]
                x, y = [row.budget for row in own], [row.accuracy for row in own]
                style = looks.styles[condition] | {"ms": 5, "mew": 1.2}
                panel.plot(x, y, alpha=looks.weight(condition), **style)
                if len(lines) <= _BANDS:
                    low, high = [row.low for row in own], [row.high for row in own]
                    panel.fill_between(x, low, high, color=style["color"], alpha=0.1, lw=0)
                budgets += x
            _axes(panel, suite if len(suites) > 1 else "", budgets, "token budget", budgets=True)
        _legend(panels, looks.legend)


@dataclass(frozen=True)
class _Looks:
    """How conditions are drawn, and what stands in the legend."""

    styles: dict[str, dict[str, Any]]
    legend: dict[str, dict[str, Any]]
    strengths: Strengths

    def weight(self, condition: str) -> float:
        """Opacity of a condition's line: the strongest of a series 1, the weakest 0.3."""
        if condition not in self.strengths:
            return 1.0
        series, strength = self.strengths[condition]
        of_series = sorted(abs(value) for other, value in self.strengths.values() if other == series)
        return 0.3 + 0.7 * (of_series.index(abs(strength)) + 1) / len(of_series)


def _looks(
    conditions: Sequence[str], base: str, strengths: Strengths, places: Mapping[str, int], **more: Any
) -> _Looks:
    colours = {strengths[name][0] if name in strengths else name: places.get(name) for name in conditions}
    legend = {
        entry: marker_style(i, colour=colour, hollow=entry == base) | more
        for i, (entry, colour) in enumerate(colours.items())
    }
    styles = {name: legend[strengths[name][0] if name in strengths else name] for name in dict.fromkeys(conditions)}
    if base in strengths and base in styles:
        styles[base] = styles[base] | {"mfc": "white"}
    known = {name: place for name, place in strengths.items() if name in styles}
    return _Looks(styles, legend, known)


def _joined(panel: Axes, points: Sequence[Point], series: str, looks: _Looks) -> list[tuple[str, float, float, str]]:
    """Join the points of a series in the order of their strengths; the strengths as labels of the points."""
    own = [(looks.strengths[p.condition][1], p) for p in points if looks.strengths.get(p.condition, ("",))[0] == series]
    own.sort(key=lambda pair: pair[0])
    if not own:
        return []
    colour = looks.styles[own[0][1].condition]["color"]
    panel.plot([p.tokens for _, p in own], [p.accuracy for _, p in own], color=colour, lw=0.9, alpha=0.6, zorder=1)
    return [(f"{strength:+g}", p.tokens, p.accuracy, colour) for strength, p in own]


def _panels(path: Path, suites: Sequence[str], legend: Mapping[str, object]) -> Any:
    """A figure with a panel per suite and room for the legend on the right."""
    columns = min(_COLUMNS, len(suites))
    rows = -(-len(suites) // columns)
    beside = -(-(len(legend) + 1) // _LEGEND_ROWS) * (0.6 + 0.075 * max(map(len, legend), default=0))
    height = max(4.2 if rows == 1 else 3.4 * rows, 0.22 * min(len(legend), _LEGEND_ROWS))
    width = (5.6 if columns == 1 else 4.2) * columns + beside
    return figure(path, width, height, rows=rows, columns=columns)


def _axes(panel: Axes, title: str, values: Sequence[float], label: str, budgets: bool = False) -> None:
    panel.set_title(title)
    panel.set_xlabel(label)
    panel.set_ylabel("accuracy")
    low, high = panel.get_ylim()
    panel.set_ylim(max(low, -0.03), min(high, 1 + 0.03 * (1 - max(low, 0.0))))
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


def _legend(panels: Sequence[Axes], entries: Mapping[str, dict[str, Any]]) -> None:
    """One legend for all panels, to the right of them; panels without a suite are hidden."""
    for panel in panels:
        panel.set_visible(panel.has_data())
    handles = [panels[0].plot([], [], label=name, **style)[0] for name, style in entries.items()]
    place: dict[str, Any] = {"loc": "outside right center", "ncols": -(-len(entries) // _LEGEND_ROWS)}
    look: dict[str, Any] = {"fontsize": 8, "markerscale": 0.8}
    panels[0].figure.legend(handles=handles, **place, **look)
