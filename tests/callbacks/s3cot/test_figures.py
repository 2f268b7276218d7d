from pathlib import Path
from types import SimpleNamespace
from typing import Any

import matplotlib.image
import numpy as np
import pytest
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.loggers import CSVLogger

from callbacks.s3cot.figures import (
    SweepPoint,
    _collapsed_spans,
    plot_stages,
    plot_sweep,
)
from callbacks.s3cot.stages import StageFigure
from datamodules.errors import InputError
from datamodules.s3cot.curriculum_data import StageRow


def point(alpha: float, layer_set: str = "", collapsed: bool = False, chosen: bool = False) -> SweepPoint:
    return SweepPoint(layer_set, alpha, 1 + alpha, 0.9, 0.85, 0.95, collapsed, chosen)


def stage(index: int) -> StageRow:
    drawn = tuple(5 if bucket >= 9 - index else 0 for bucket in range(10))
    return StageRow(index, 0.9 - 0.1 * index, sum(drawn), sum(drawn), drawn, drawn, 0.95 - 0.05 * index, 100, 200)


def colours(path: Path) -> set[str]:
    """Colours that fill more than a few pixels."""
    pixels = (matplotlib.image.imread(path)[..., :3] * 255).round().astype(np.uint32)
    codes, counts = np.unique(pixels @ np.array([65536, 256, 1]), return_counts=True)
    return {f"#{code:06X}" for code, count in zip(codes, counts, strict=True) if count > 60}


def test_sweep_shows_every_layer_set_the_choice_and_the_collapse(tmp_path: Path) -> None:
    points = [point(0.0), point(-0.2, "a", chosen=True), point(-0.4, "a", True), point(-0.2, "b")]
    plot_sweep([*points, point(-0.4, "b", True)], tmp_path / "strength_sweep.png")
    plot_sweep([p for p in points if not p.collapsed and not p.chosen], tmp_path / "plain.png")
    blue, orange, star = "#0072B2", "#D55E00", "#F0E442"
    assert {blue, orange, star, "#EAEAEA"} <= colours(tmp_path / "strength_sweep.png")
    assert star not in colours(tmp_path / "plain.png")
    assert blue in colours(tmp_path / "plain.png")


def test_sweep_survives_unknown_numbers(tmp_path: Path) -> None:
    nan = float("nan")
    plot_sweep(
        [SweepPoint("", 0.0, 1, nan, nan, nan, False, False)], tmp_path / "strength_sweep.png", accuracy="agreement"
    )
    assert (tmp_path / "strength_sweep.png").is_file()


def test_only_where_every_layer_set_collapses_is_shaded() -> None:
    points = [point(0.0), point(-0.1, "a"), point(-0.2, "a", True), point(-0.3, "a", True), point(-0.2, "b", True)]
    assert _collapsed_spans(points) == [(pytest.approx(-0.35), pytest.approx(-0.15))]
    assert _collapsed_spans([*points, point(-0.3, "b")]) == [(pytest.approx(-0.25), pytest.approx(-0.15))]
    assert _collapsed_spans([point(0.0)]) == []


@pytest.mark.parametrize("n", [1, 10])
def test_stages(tmp_path: Path, n: int) -> None:
    plot_stages([stage(index) for index in range(n)], tmp_path / "new" / "stages.png")
    assert {"#0072B2", "#D55E00"} <= colours(tmp_path / "new" / "stages.png")


def test_stage_figure_of_a_fit(tmp_path: Path) -> None:
    class Images(CSVLogger):
        images: list[str]

        def log_image(self, key: str, images: list[str]) -> None:
            self.images = [key, *images]

    logger = Images(tmp_path)
    trainer: Any = Trainer(logger=logger, default_root_dir=tmp_path, accelerator="cpu", enable_progress_bar=False)
    trainer.datamodule = SimpleNamespace(stage_table=[stage(0), stage(1)])
    StageFigure().on_fit_start(trainer, LightningModule())
    assert (tmp_path / "stages.png").is_file()
    assert logger.images == ["stages", str(tmp_path / "stages.png")]
    trainer.datamodule = SimpleNamespace()
    with pytest.raises(InputError, match="StageFigure"):
        StageFigure().on_fit_start(trainer, LightningModule())
