"""The search for robust modules in pictures: the map of how sensitive each one is, and the path of the search."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from llm_modules.optim.module_names import TYPES, Module

_OUTLINE = "#0072B2"
_NUMBERS_UP_TO = 16
"""Layers up to which the cells hold their numbers."""


def plot_robustness(
    drops: Mapping[Module, float], robust: Collection[Module], path: Path, *, measure: str, model: str = ""
) -> None:
    """Type x layer as a PNG file: dark cells are sensitive, outlined cells are the robust set.

    Args:
        drops: Mean drop of each module by itself.
        robust: What the search chose, jointly.
        path: PNG file.
        measure: What the drop is of.
        model: Name for the title.
    """
    types = [kind for kind in TYPES if any(module.type == kind for module in drops)]
    layers = 1 + max(module.layer for module in drops)
    grid = np.full((len(types), layers), np.nan)
    for module, drop in drops.items():
        grid[types.index(module.type), module.layer] = drop
    figure = Figure(figsize=(2.4 + 0.5 * max(layers, 8), 1.6 + 0.42 * len(types)), layout="constrained")
    FigureCanvasAgg(figure)
    panel = figure.subplots()
    top = max(float(np.nanmax(grid)), 1e-6)
    image = panel.imshow(grid, cmap="YlOrRd", vmin=0, vmax=top, aspect="auto")
    for module, drop in drops.items():
        at = (module.layer, types.index(module.type))
        if layers <= _NUMBERS_UP_TO:
            colour = "white" if drop > 0.6 * top else "black"
            panel.text(*at, f"{drop:.2f}", ha="center", va="center", fontsize=8, color=colour)
        if module in robust:
            corner = (at[0] - 0.46, at[1] - 0.44)
            panel.add_patch(Rectangle(corner, 0.92, 0.88, fill=False, edgecolor=_OUTLINE, linewidth=1.8))
    panel.set_yticks(range(len(types)), types)
    panel.xaxis.set_major_locator(MaxNLocator(integer=True))
    panel.set_xlabel("decoder layer")
    panel.set_title(f"drop in {measure} when perturbed; outlined: robust together", fontsize=10, loc="left")
    if model:
        figure.suptitle(Path(model).name, fontsize=10)
    figure.colorbar(image, ax=panel, shrink=0.9)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150, metadata={"Software": None})


def plot_search(trace: Sequence[Mapping[str, Any]], tau: float, path: Path, *, measure: str) -> None:
    """The probes of a search in their order as a PNG file: how far each set dropped, and what was allowed.

    Args:
        trace: ``Found.trace``.
        tau: The allowed drop.
        path: PNG file.
        measure: What the drop is of.
    """
    figure = Figure(figsize=(2.4 + 0.34 * max(len(trace), 12), 4.4), layout="constrained")
    FigureCanvasAgg(figure)
    panel = figure.subplots()
    for number, probe in enumerate(trace):
        colour = "#009E73" if probe["within"] else "#D55E00"
        panel.bar(number, max(probe["drop"], 0.0), color=colour, width=0.7)
        panel.text(number, max(probe["drop"], 0.0), f" {probe['modules']}", ha="center", va="bottom", fontsize=7)
    panel.axhline(tau, color="black", lw=1, ls="--")
    panel.text(-0.4, tau, f"tau {tau:g}", va="bottom", fontsize=8)
    starts = [n for n, probe in enumerate(trace) if n == 0 or probe["step"] != trace[n - 1]["step"]]
    for start in starts:
        panel.axvline(start - 0.5, color="0.8", lw=0.8)
        panel.text(start - 0.4, 1.01, trace[start]["step"], transform=panel.get_xaxis_transform(), fontsize=9)
    names = [
        f"{probe['type']} {probe['from_layer']}+" if probe["step"] in ("order", "suffix") else "all" for probe in trace
    ]
    panel.set_xticks(range(len(trace)), names, rotation=90, fontsize=8)
    panel.set_ylabel(f"drop in {measure}")
    panel.set_title("numbers: modules perturbed together; green: within tau", fontsize=9, loc="right", pad=16)
    panel.spines[["top", "right"]].set_visible(False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150, metadata={"Software": None})
