"""Pictures for the page: figures of run folders, and the curves of a fit."""

import base64
import re
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

from callbacks.figure_style import BLUE, GREY, VERMILION, figure, legend
from rod.report.runs import Run
from rod.report.svg import safe_svg
from rod.report.tables import history

ABOUT = {
    "direction": "How far long and short answers lie apart in each decoder layer, and how well pairs agree on it.",
    "strength_sweep": "Length and accuracy of the answers at each steering strength. Shaded: the model collapses.",
    "stages": "How many pairs of each length every stage of the curriculum draws. Later stages draw shorter ones.",
    "gates": "How much the willing (w_glad) and the unwilling (w_unwill) adapter weigh at the last token of a prompt.",
    "gates_tokens": "Both gates over the tokens of a benign and of a malicious prompt.",
    "probes": "How well a probe in each layer tells malicious from benign requests. Filled: chosen.",
    "robustness": "How much refusals depend on each module: the drop when it is perturbed. Outlined: robust together.",
    "search": "The sets of modules that the search perturbed together. Hatched: more than the allowed drop.",
    "frontier": "Accuracy against mean tokens, with 95 % intervals. Up and to the left is better.",
    "budgets": "Accuracy if the answers were cut off at a token budget.",
    "accuracy_tokens": "Accuracy against mean tokens of an answer. Up and to the left is better.",
    "safety": "Attacks that succeed against harmless requests that are refused. Down and to the left is better.",
    "tradeoff_howto": "Accuracy on the second tuning task against refusals. Up and to the right is better.",
    "tradeoff_maths": "Accuracy on the tuning task against refusals. Up and to the right is better.",
    "swap": "Refusals after modules of the aligned model are put back.",
}
"""Stem of a figure's file -> what it shows."""
_MAX = 8 * 2**20
"""Bytes of a figure's file that are embedded."""
_WIDE = 610
"""Points of a figure's width from which it has a line of its own."""
_PROMPTS = {"gates_tokens"}
"""Figures with the words of prompts, malicious ones too."""


@dataclass(frozen=True)
class Picture:
    """A figure: an inline SVG or, in ``data``, a PNG file as a data URI; ``alt`` says what is to be seen.

    One that is ``harmful`` shows prompts that may be, and opens at a click.
    """

    alt: str
    caption: str
    svg: str = ""
    data: str = ""
    harmful: bool = False

    @property
    def wide(self) -> bool:
        """Whether the figure needs the width of the page for its letters to be read."""
        size = re.search(r'viewBox="[\d.]+ [\d.]+ ([\d.]+) ', self.svg)
        return size is not None and float(size[1]) > _WIDE


def pictures_of(run: Run) -> list[Picture]:
    """The figures in a run's folder, and the curves of a fit."""
    found = []
    if run.kind == "fit" and (curves := _history(run)):
        found.append(curves)
    known, stems = list(ABOUT), {path.stem for path in run.folder.iterdir() if path.suffix in (".png", ".svg")}
    names = {stem: stem.removeprefix("mllr_") for stem in stems}
    for stem in sorted(stems, key=lambda stem: (known.index(names[stem]) if names[stem] in ABOUT else 99, stem)):
        about = ABOUT.get(names[stem], f"The figure {stem}.")
        for path in (run.folder / f"{stem}.svg", run.folder / f"{stem}.png"):
            if path.is_file() and path.stat().st_size <= _MAX:
                made = picture(path, f"{run.name}: {about}", about)
                if made.svg or made.data:
                    found.append(replace(made, harmful=stem in _PROMPTS))
                    break
    return found


def picture(path: Path, alt: str, caption: str) -> Picture:
    """Embed a file: SVG as markup without anything active, anything else as a PNG image."""
    if path.suffix == ".svg":
        return Picture(alt, caption, svg=safe_svg(path.read_bytes()))
    data = base64.b64encode(path.read_bytes()).decode("ascii")
    return Picture(alt, caption, data=f"data:image/png;base64,{data}")


_UNITS = (
    (r"loss|ce|ce_\w+", "nats per token"),
    (r"\w*(accuracy|repetition|truncation)\w*|over_refusal\w*|refused\w*|complied\w*", "share"),
    (r"\w*tokens", "tokens"),
    (r"\w*aes", "score"),
    (r"(glad|unwilling)_on_\w+", "gate, 0 to 1"),
)
"""Last part of a metric's name -> its unit."""


def unit(key: str) -> str:
    """The unit of a metric that a fit logs; a value without one, such as a penalty, is a value."""
    name = key.rpartition("/")[2]
    return next((unit for pattern, unit in _UNITS if re.fullmatch(pattern, name)), "value")


def _history(run: Run) -> Picture | None:
    """Loss, and up to three numbers of the validation, against the step."""
    logged = history(run.folder)
    chosen = ["val/loss", "val/aes", "val/system1_accuracy", "val/system1_tokens"]
    chosen += [
        key for key in logged if key.startswith("val/") and key not in chosen and not key.endswith(("low", "high"))
    ]
    panels = [key for key in ("train/loss", *chosen) if len(logged.get(key, ())) > 1][:4]
    if not panels:
        return None
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "history.svg"
        columns = min(2, len(panels))
        rows = -(-len(panels) // columns)
        with figure(path, 8.4, 2.5 * rows, rows=rows, columns=columns) as axes:
            for axis in axes[len(panels) :]:
                axis.set_axis_off()
            for axis, key in zip(axes, panels, strict=False):
                steps, values = zip(*logged[key], strict=True)
                colour = BLUE if key.startswith("train/") else VERMILION
                axis.plot(steps, values, color=colour, lw=1.2, marker="" if len(steps) > 40 else "o", ms=3.5)
                if (start := dict(logged).get(key.replace("val/", "base/"))) and key.startswith("val/"):
                    axis.axhline(start[0][1], color=GREY, ls=":", label="before training")
                    legend(axis)
                axis.set_xlabel("optimiser step")
                axis.set_ylabel(f"{key} ({unit(key)})")
        alt = f"{run.name}: " + ", ".join(
            f"{key} from {logged[key][0][1]:.3g} to {logged[key][-1][1]:.3g}" for key in panels
        )
        return picture(path, alt, "What the training logged, against the optimiser step.")
