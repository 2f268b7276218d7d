import re
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from matplotlib import rcParams

from callbacks.figure_style import COLOURS, PAPER, figure, hover, label_points, legend, marker_style
from callbacks.mllr.figures import plot_robustness, plot_search
from callbacks.trainer_parts import log_figure, log_table
from llm_modules.optim.module_names import Module
from rod.report.svg import safe_svg


def luminance(colour: str) -> float:
    """Relative luminance of WCAG."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return float(np.dot([0.2126, 0.7152, 0.0722], linear))


def draw(path: Path) -> None:
    with figure(path, 4, 3) as (panel,):
        for index in range(3):
            panel.plot([index], [index], label=f"run {index}", **marker_style(index))
        legend(panel)


def test_a_figure_is_a_png_and_an_svg_and_the_same_numbers_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        draw(tmp_path / f"new/{name}.png")
    for suffix in (".png", ".svg"):
        first, second = ((tmp_path / f"new/{name}{suffix}").read_bytes() for name in ("a", "b"))
        assert first == second, suffix
    assert "<svg" in (tmp_path / "new/a.svg").read_text()


def test_what_a_marker_says_is_in_the_svg_file_and_stays_text(tmp_path: Path) -> None:
    said = ['a < b & "c"', "two"]
    with figure(tmp_path / "a.png", 4, 3) as (panel,):
        hover(panel.errorbar(1, 1, xerr=1), said[0])
        hover(panel.plot([2], [2], "o")[0], said[1])
    drawn = ElementTree.parse(tmp_path / "a.svg")
    namespace = "{http://www.w3.org/2000/svg}"
    groups = [group for group in drawn.iter(f"{namespace}g") if group.get("id", "").startswith("hover")]
    assert {group.get("id") for group in groups} == {"hover0", "hover1"}
    assert sorted(group.findtext(f"{namespace}title") or "" for group in groups) == said
    shown = ElementTree.fromstring(safe_svg((tmp_path / "a.svg").read_bytes()))
    assert sorted(title.text or "" for title in shown.iter(f"{namespace}title")) == said


def test_the_style_ends_with_the_figure(tmp_path: Path) -> None:
    before = dict(rcParams)
    with pytest.raises(ValueError, match="broken"), figure(tmp_path / "a.png", 4, 3):
        raise ValueError("broken")
    assert dict(rcParams) == before
    assert not (tmp_path / "a.png").exists(), "a figure that fails leaves no file"


def test_conditions_differ_without_colour() -> None:
    looks = [marker_style(index) for index in range(64)]
    assert len({(look["color"], look["marker"]) for look in looks}) == 64
    assert len({look["marker"] for look in looks[: len(COLOURS)]}) == len(COLOURS)


def test_conditions_that_share_a_colour_differ_in_their_markers() -> None:
    looks = [marker_style(index, colour=2) for index in range(8)]
    assert {look["color"] for look in looks} == {COLOURS[2]}
    assert len({look["marker"] for look in looks}) == 8


def test_texts_beside_points_cover_nothing_and_crowded_ones_are_left_out(tmp_path: Path) -> None:
    labels = [(f"text {number}", 0.5 + 0.001 * number, 0.5, COLOURS[0]) for number in range(30)]
    with figure(tmp_path / "a.svg", 4, 3) as (panel,):
        panel.set(xlim=(0, 1), ylim=(0, 1))
        label_points(panel, [*labels, ("far", 0.98, 0.98, COLOURS[0])])
        boxes = [text.get_window_extent() for text in panel.texts]
        told = [text.get_text() for text in panel.texts]
        frame = panel.bbox
        at = panel.transData.transform((0.5, 0.5))
    assert told[0] == "text 0"
    assert told[-1] == "far"
    assert 3 < len(told) < 20
    assert all(box.count_overlaps(boxes) == 1 for box in boxes), "itself"
    assert not any(box.contains(*at) for box in boxes)
    assert all(frame.x0 <= box.x0 and box.x1 <= frame.x1 and box.y1 <= frame.y1 for box in boxes)


@pytest.mark.parametrize("colour", COLOURS)
def test_colours_stand_out_from_paper(colour: str) -> None:
    assert (luminance(PAPER) + 0.05) / (luminance(colour) + 0.05) > 2, colour


def test_no_cell_of_the_heat_map_says_minus_zero(tmp_path: Path) -> None:
    texts: list[str] = []
    drops = {Module(0, "q"): -0.001, Module(1, "q"): 0.2}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("matplotlib.axes.Axes.text", lambda self, x, y, text, **_: texts.append(text))
        plot_robustness(drops, [], tmp_path / "map.png", measure="margin")
    assert texts == ["0.00", "0.20"]


def test_bars_beyond_tau_differ_without_colour(tmp_path: Path) -> None:
    entry = {"type": "q", "from_layer": 0, "step": "order", "modules": 1}
    plot_search([entry | {"drop": 0.1, "within": True}, entry | {"drop": 0.5, "within": False}], 0.3,
                tmp_path / "search.png", measure="margin")  # fmt: skip
    assert re.findall(r"<pattern", (tmp_path / "search.svg").read_text()), "bars beyond tau are hatched"


def test_tensorboard_takes_figures_and_tables(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    draw(tmp_path / "a.png")
    logger = TensorBoardLogger(tmp_path, name="")
    trainer = Trainer(logger=logger, default_root_dir=tmp_path, accelerator="cpu", enable_progress_bar=False)
    log_figure(trainer, "a", tmp_path / "a.png")
    log_table(trainer, "samples", ["question", "right"], [["a | b\nc", True]])
    logger.finalize("success")
    found = EventAccumulator(logger.log_dir)
    found.Reload()
    assert found.Tags()["images"] == ["a"]
    (text,) = found.Tensors("samples/text_summary")
    assert text.tensor_proto.string_val[0].decode().splitlines()[-1] == r"| a \| b c | True |"


def test_a_csv_logger_is_left_alone(tmp_path: Path) -> None:
    trainer = Trainer(default_root_dir=tmp_path, accelerator="cpu", logger=False, enable_progress_bar=False)
    log_figure(trainer, "a", tmp_path / "missing.png")
    log_table(trainer, "a", ["b"], [[1]])
