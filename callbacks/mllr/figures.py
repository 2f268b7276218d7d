"""Figures of the search for robust modules: the map of sensitivities, and the sets that the search measured."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from callbacks.figure_style import BLUE_ON_LIGHT, GREEN, ON_DARK, ON_LIGHT, VERMILION, figure
from llm_modules.optim.module_names import TYPES, Module

_NUMBERS_UP_TO = 16
"""Layers up to which the cells hold their numbers."""


def plot_robustness(
    drops: Mapping[Module, float], robust: Collection[Module], path: Path, *, measure: str, model: str = ""
) -> None:
    """Mean drop of each module perturbed by itself, type x layer, as a PNG file; the robust set is outlined."""
    types = [kind for kind in TYPES if any(module.type == kind for module in drops)]
    layers = 1 + max(module.layer for module in drops)
    grid = np.full((len(types), layers), np.nan)
    for module, drop in drops.items():
        grid[types.index(module.type), module.layer] = drop
    with figure(path, 2.4 + 0.5 * max(layers, 8), 1.6 + 0.42 * len(types)) as (panel,):
        top = max(float(np.nanmax(grid)), 1e-6)
        panel.grid(visible=False)
        image = panel.imshow(grid, cmap="YlOrRd", vmin=0, vmax=top, aspect="auto")
        for module, drop in drops.items():
            at = (module.layer, types.index(module.type))
            if layers <= _NUMBERS_UP_TO:
                colour = ON_DARK if drop > 0.6 * top else ON_LIGHT
                panel.text(*at, f"{round(drop, 2) + 0.0:.2f}", ha="center", va="center", fontsize=8, color=colour)
            if module in robust:
                corner = (at[0] - 0.46, at[1] - 0.44)
                panel.add_patch(Rectangle(corner, 0.92, 0.88, fill=False, edgecolor=BLUE_ON_LIGHT, linewidth=1.8))
        panel.set_yticks(range(len(types)), types)
        panel.xaxis.set_major_locator(MaxNLocator(integer=True))
        panel.set_xlabel("decoder layer")
        panel.set_ylabel("module type")
        panel.set_title("outlined: robust together", loc="left")
        if model:
            panel.figure.suptitle("/".join(Path(model).parts[-2:]))
        panel.figure.colorbar(image, ax=panel, shrink=0.9, label=f"drop in {measure} when perturbed")


def plot_search(trace: Sequence[Mapping[str, Any]], tau: float, path: Path, *, measure: str) -> None:
    """Drops of the sets in ``Found.trace``, in order, as a PNG file; a line marks the allowed drop."""
    with figure(path, 2.4 + 0.34 * max(len(trace), 12), 4.4) as (panel,):
        for number, entry in enumerate(trace):
            colour = GREEN if entry["within"] else VERMILION
            hatch = "" if entry["within"] else "///"
            panel.bar(number, max(entry["drop"], 0.0), color=colour, width=0.7, hatch=hatch, edgecolor="white", lw=0)
            panel.text(number, max(entry["drop"], 0.0), f" {entry['modules']}", ha="center", va="bottom", fontsize=7)
        panel.grid(visible=False, axis="x")
        panel.axhline(tau, color="black", lw=1, ls="--")
        panel.text(1.005, tau, f"tau {tau:g}", va="center", fontsize=8, transform=panel.get_yaxis_transform())
        starts = [n for n, entry in enumerate(trace) if n == 0 or entry["step"] != trace[n - 1]["step"]]
        for start in starts:
            panel.axvline(start - 0.5, color="0.8", lw=0.8)
            panel.text(start - 0.4, 1.01, trace[start]["step"], transform=panel.get_xaxis_transform(), fontsize=9)
        names = [
            f"{entry['type']} {entry['from_layer']}+" if entry["step"] in ("order", "suffix") else "all"
            for entry in trace
        ]
        panel.set_xticks(range(len(trace)), names, rotation=90, fontsize=8)
        panel.set_ylabel(f"drop in {measure}")
        panel.set_xlabel("modules perturbed: type and first layer")
        panel.set_title("numbers: modules perturbed together; hatched: beyond tau", fontsize=9, loc="right", pad=16)
