"""Figures of MoGU: gates by class and layer, gates over the tokens of a prompt, probes by layer."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from llm_modules.mogu.v2.probes import LayerProbe

# Okabe and Ito's palette, told apart by colour-blind readers; hatches and markers tell the gates apart besides.
_GLAD, _UNWILLING, _GREY = "#0072B2", "#D55E00", "0.55"
GATES = ("w_glad", "w_unwill")


def plot_gates(gates: Mapping[str, Tensor], layers: Sequence[int], path: Path) -> None:
    """Box plots of both gates for each class of prompts and each layer, as a PNG file.

    Args:
        gates: By class of prompts: (prompts, layers, 2), glad first.
        layers: Decoder layers.
        path: The file.
    """
    columns = 1 if len(gates) < 4 else 2
    rows = -(-len(gates) // columns)
    figure = _figure(1.0 + columns * max(5.4, 0.8 * len(layers)), 1.0 + 1.9 * rows)
    grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    panels = list(grid.T.ravel())  # the first classes one below the other, the others beside them
    for empty in panels[len(gates) :]:
        empty.set_axis_off()
    for panel, (name, values) in zip(panels, gates.items(), strict=False):
        for gate, colour in enumerate((_GLAD, _UNWILLING)):
            panel.boxplot(
                [values[:, index, gate].numpy() for index in range(len(layers))],
                positions=[index + (gate - 0.5) * 0.36 for index in range(len(layers))],
                widths=0.3,
                patch_artist=True,
                manage_ticks=False,
                boxprops={"facecolor": colour, "alpha": 0.55, "hatch": ("", "//")[gate]},
                medianprops={"color": "black"},
                flierprops={"markersize": 2, "markeredgecolor": colour},
                label=GATES[gate],
            )
        panel.set_title(f"{name} ({len(values)} prompts)", fontsize=9, loc="left")
        panel.set_ylim(-0.05, 1.05)
        panel.grid(axis="y", color="0.9", linewidth=0.8)
        panel.spines[["top", "right"]].set_visible(False)
    grid[0, -1].legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False, fontsize=8)
    for panel in grid[-1]:
        panel.set_xticks(range(len(layers)), [str(layer) for layer in layers])
        panel.set_xlabel("decoder layer")
    _save(figure, path)


def plot_tokens(prompts: Mapping[str, tuple[Sequence[str], Tensor]], path: Path) -> None:
    """Both gates over the tokens of some prompts, mean over the layers with their range, as a PNG file.

    Args:
        prompts: By name: tokens as text, and gates (tokens, layers, 2).
        path: The file.
    """
    longest = max(len(tokens) for tokens, _ in prompts.values())
    figure = _figure(max(6.4, 1.5 + 0.24 * longest), 2.6 * len(prompts))
    panels = figure.subplots(len(prompts), 1, sharey=True, squeeze=False)[:, 0]
    for panel, (name, (tokens, gates)) in zip(panels, prompts.items(), strict=True):
        where = range(len(tokens))
        for gate, (colour, marker) in enumerate(((_GLAD, "o"), (_UNWILLING, "s"))):
            values = gates[:, :, gate]
            panel.plot(where, values.mean(dim=1), color=colour, marker=marker, markersize=3, label=GATES[gate])
            panel.fill_between(where, values.amin(dim=1), values.amax(dim=1), color=colour, alpha=0.15, linewidth=0)
        panel.set_xticks(where, [_shown(token) for token in tokens], rotation=90, fontsize=7)
        panel.set_title(name, fontsize=9, loc="left")
        panel.set_ylim(-0.05, 1.05)
        panel.spines[["top", "right"]].set_visible(False)
    panels[0].legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False, fontsize=8)
    _save(figure, path)


def plot_probes(probes: Sequence[LayerProbe], chosen: Sequence[int], path: Path) -> None:
    """Held-out accuracy and cross-entropy of the probes by layer, the chosen layers filled, as a PNG file."""
    figure = _figure(6.4, 4.4)
    panels = figure.subplots(2, 1, sharex=True)
    layers = [probe.layer for probe in probes]
    for panel, label, values in (
        (panels[0], "accuracy", [probe.accuracy for probe in probes]),
        (panels[1], "cross-entropy (nats)", [probe.loss for probe in probes]),
    ):
        panel.plot(layers, values, color=_GREY, linewidth=1)
        for layer, value in zip(layers, values, strict=True):
            panel.plot(layer, value, marker="o", color=_GLAD, fillstyle="full" if layer in chosen else "none")
        panel.set_ylabel(label)
        panel.grid(axis="y", color="0.9", linewidth=0.8)
        panel.spines[["top", "right"]].set_visible(False)
    panels[1].set_xlabel("decoder layer (filled: chosen)")
    panels[1].xaxis.set_major_locator(MaxNLocator(integer=True))
    _save(figure, path)


def _shown(token: str) -> str:
    """White space made visible, and no sign that begins a formula."""
    return token.replace("\n", "\\n").replace("$", r"\$").strip() or "_"


def _figure(width: float, height: float) -> Figure:
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _save(figure: Figure, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150, metadata={"Software": None})
