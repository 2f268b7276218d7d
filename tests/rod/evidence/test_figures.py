"""Figures over conditions and seeds are written, with as many colours as conditions."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from rod.evidence.figures import ConditionPoint, plot_accuracy_tokens, plot_safety
from tests.callbacks.s3cot.test_figures import colours


@pytest.mark.parametrize("plot", [plot_accuracy_tokens, plot_safety])
def test_conditions_have_a_colour_each(plot: Callable[[Sequence[ConditionPoint], Path], None], tmp_path: Path) -> None:
    points = [ConditionPoint(f"condition {i}", 0.1 * i, 0.9, 0.1, 0.01, hollow=i % 2 == 1) for i in range(9)]
    plot(points, tmp_path / "plane.png")
    assert {"#0072B2", "#D55E00", "#009E73", "#CC79A7"} <= colours(tmp_path / "plane.png")
