"""The heat map of a model's modules: how far each one's perturbation drops the classifier."""

from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from llm_modules.mllr.names import TYPES, Module

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
