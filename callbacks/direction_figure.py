"""The direction's figure: how well the two kinds of prompts are told apart, by depth."""

from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from llm_modules.s3cot.direction import Direction

# Okabe and Ito's palette, told apart by colour-blind readers; each curve has a panel and a marker of its own besides.
_BLUE, _VERMILION, _GREEN = "#0072B2", "#D55E00", "#009E73"


def plot_direction(direction: Direction, path: Path) -> None:
    """Separation, mean cosine and its variance against the decoder layer, with the anchor marked, as a PNG file."""
    curves = [
        ("separation\n" + r"$\|\mathrm{mean}_{+} - \mathrm{mean}_{-}\|_2$", direction.separation, _BLUE, "o"),
        ("mean cosine of\nsingle differences", direction.cosine, _VERMILION, "s"),
        ("variance of\nthat cosine", direction.cosine_variance, _GREEN, "^"),
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
