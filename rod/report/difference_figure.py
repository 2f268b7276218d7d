"""A figure of paired differences with their intervals."""

from collections.abc import Sequence
from pathlib import Path

from callbacks.evaluation.comparison import Comparison
from callbacks.evaluation.report import Cell
from callbacks.figure_style import GREY, figure, hover, legend, marker_style


def plot_differences(comparisons: Sequence[Comparison], names: Sequence[str], path: Path) -> None:
    """Differences from the first run: rates in percentage points, everything else in a panel of its own.

    A marker is filled if the 95 % interval does not hold 0. ``names`` are all runs, the first too, in the order that
    their colours and markers have in every figure about them.
    """
    units = {"tokens": "tokens", "nll": "nats per token"}
    panels = {"percentage points": [c for c in comparisons if c.metric not in units]}
    panels |= {unit: [c for c in comparisons if c.metric == metric] for metric, unit in units.items()}
    panels = {unit: own for unit, own in panels.items() if own}
    runs = list(dict.fromkeys(c.second for c in comparisons))
    lines = {unit: list(dict.fromkeys(_line(c) for c in own)) for unit, own in panels.items()}
    heights = [len(own) for own in lines.values()]
    row = 0.2 + 0.12 * len(runs)
    with figure(path, 8.4, 0.75 * len(panels) + row * sum(heights), rows=len(panels), height_ratios=heights) as axes:
        for panel, (unit, own) in zip(axes, panels.items(), strict=True):
            factor = 100 if unit == "percentage points" else 1
            for c in own:
                run = runs.index(c.second)
                y = lines[unit].index(_line(c)) + (run - (len(runs) - 1) / 2) * 0.7 / max(len(runs), 2)
                clear = c.low > 0 or c.high < 0
                x = factor * c.difference
                bars = [[max(0.0, x - factor * c.low)], [max(0.0, factor * c.high - x)]]
                style = marker_style(names.index(c.second), hollow=not clear) | {"ms": 6, "mew": 1.4}
                interval = f"{x:+.1f} ({factor * c.low:+.1f} to {factor * c.high:+.1f}) {unit}"
                hover(panel.errorbar(x, y, xerr=bars, capsize=2, **style), f"{c.second}, {_line(c)}: {interval}")
            panel.axvline(0, color=GREY, lw=1, zorder=1)
            panel.set_yticks(range(len(lines[unit])), lines[unit], fontsize=9)
            panel.set_ylim(len(lines[unit]) - 0.5, -0.5)
            panel.grid(visible=False, axis="y")
            panel.set_xlabel(f"difference ({unit})")
        for name in runs:
            axes[0].plot([], [], label=name, **marker_style(names.index(name)))
        if len(runs) > 1:
            legend(axes[0], loc="lower left", bbox_to_anchor=(0, 1.0), ncols=2)


def _line(comparison: Comparison) -> str:
    cell = Cell(comparison.suite, comparison.system, comparison.attack_template)
    return f"{cell}: {comparison.metric}"
