"""Figures of MoGU: gates by class and layer, gates over the tokens of a prompt, probes by layer."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from callbacks.figure_style import BLUE, GREY, INK, MARKERS, VERMILION, figure, legend_beside
from llm_modules.mogu.probes import LayerProbe

GATES = ("w_glad", "w_unwill")
_COLOURS = (BLUE, VERMILION)
_LINES = ("-", "--")


def plot_gates(gates: Mapping[str, Tensor], layers: Sequence[int], path: Path) -> None:
    """Box plots of both gates, (prompts, layers, 2) by class of prompts, for each decoder layer, as a PNG file."""
    columns = 1 if len(gates) < 4 else 2
    rows = -(-len(gates) // columns)
    wide, high = 1.0 + columns * max(5.4, 0.8 * len(layers)), 1.0 + 1.9 * rows
    with figure(path, wide, high, rows=rows, columns=columns, sharex=True, sharey=True) as panels:
        # The first classes stand one below the other, the others beside them.
        for number, panel in enumerate(panels.reshape(rows, columns).T.ravel()):
            if number >= len(gates):
                panel.set_axis_off()
                continue
            name, values = list(gates.items())[number]
            _boxes(panel, values, len(layers))
            panel.set_title(f"{name} ({len(values)} prompts)", fontsize=9, loc="left")
            panel.set_ylim(-0.05, 1.05)
            panel.set_ylabel("gate (0 to 1)" if number < rows else "")
            panel.grid(visible=False, axis="x")
            panel.set_xticks(range(len(layers)), [str(layer) for layer in layers])
            if (number + 1) % rows == 0 or number + 1 == len(gates):
                panel.tick_params(labelbottom=True)
                panel.set_xlabel("decoder layer")
        legend_beside(panels[columns - 1])


def plot_tokens(prompts: Mapping[str, tuple[Sequence[str], Tensor]], path: Path) -> None:
    """Both gates over the tokens of some prompts, mean over the layers with their range, as a PNG file.

    ``prompts`` holds by name the tokens as text, and the gates (tokens, layers, 2).
    """
    longest = max(len(tokens) for tokens, _ in prompts.values())
    size = max(6.4, 1.5 + 0.24 * longest), 2.6 * len(prompts)
    with figure(path, *size, rows=len(prompts), sharey=True) as panels:
        for panel, (name, (tokens, gates)) in zip(panels, prompts.items(), strict=True):
            where = range(len(tokens))
            for gate, colour in enumerate(_COLOURS):
                values = gates[:, :, gate]
                panel.plot(
                    where,
                    values.mean(dim=1),
                    color=colour,
                    ls=_LINES[gate],
                    marker=MARKERS[gate],
                    ms=3,
                    label=GATES[gate],
                )
                panel.fill_between(where, values.amin(dim=1), values.amax(dim=1), color=colour, alpha=0.15, lw=0)
            panel.set_xticks(where, [_shown(token) for token in tokens], rotation=90, fontsize=7)
            panel.set_title(name, fontsize=9, loc="left")
            panel.set_ylabel("gate (mean of layers)")
            panel.set_ylim(-0.05, 1.05)
            panel.grid(visible=False, axis="x")
        panels[-1].set_xlabel("tokens of the prompt; bands: lowest to highest layer")
        legend_beside(panels[0])


def plot_probes(probes: Sequence[LayerProbe], chosen: Sequence[int], path: Path) -> None:
    """Held-out accuracy and cross-entropy of the probes by layer, the chosen layers filled, as a PNG file."""
    layers = [probe.layer for probe in probes]
    with figure(path, 6.4, 4.4, rows=2, sharex=True) as (above, below):
        for panel, label, values in (
            (above, "accuracy", [probe.accuracy for probe in probes]),
            (below, "cross-entropy (nats)", [probe.loss for probe in probes]),
        ):
            panel.plot(layers, values, color=GREY, lw=1)
            for layer, value in zip(layers, values, strict=True):
                face = BLUE if layer in chosen else "white"
                panel.plot(layer, value, "o", color=BLUE, mfc=face)
            panel.set_ylabel(label)
        below.set_xlabel("decoder layer (filled: chosen)")
        below.xaxis.set_major_locator(MaxNLocator(integer=True))


def _boxes(panel: Axes, values: Tensor, layers: int) -> None:
    """Draw a box per layer and gate; hatches tell the gates apart besides their colours."""
    for gate, colour in enumerate(_COLOURS):
        panel.boxplot(
            [values[:, index, gate].numpy() for index in range(layers)],
            positions=[index + (gate - 0.5) * 0.36 for index in range(layers)],
            widths=0.3,
            patch_artist=True,
            manage_ticks=False,
            boxprops={"facecolor": colour, "alpha": 0.55, "hatch": ("", "//")[gate]},
            medianprops={"color": INK},
            flierprops={"markersize": 2, "markeredgecolor": colour},
            label=GATES[gate],
        )


def _shown(token: str) -> str:
    """White space made visible, and no sign that begins a formula."""
    return token.replace("\n", "\\n").replace("$", r"\$").strip() or "_"
