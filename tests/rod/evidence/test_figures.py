"""Figures over conditions and seeds are written, with as many colours as conditions."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from rod.evidence.figures import ConditionPoint, TradeoffPoint, plot_accuracy_tokens, plot_safety, plot_tradeoff
from tests.callbacks.s3cot.test_figures import colours


@pytest.mark.parametrize("plot", [plot_accuracy_tokens, plot_safety])
def test_conditions_have_a_colour_each(plot: Callable[[Sequence[ConditionPoint], Path], None], tmp_path: Path) -> None:
    points = [ConditionPoint(f"condition {i}", 0.1 * i, 0.9, 0.1, 0.01, hollow=i % 2 == 1) for i in range(9)]
    plot(points, tmp_path / "plane.png")
    assert {"#0072B2", "#D55E00", "#009E73", "#CC79A7"} <= colours(tmp_path / "plane.png")


def looks(path: Path) -> dict[str, str]:
    """Colour of each method in a figure of trade-offs."""
    found = re.findall(r"<title>(\w+) at .*?</title>.*?stroke: (#\w+)", path.read_text(), re.DOTALL)
    return dict(found)


def test_a_method_has_one_colour_of_its_own_in_the_figures_of_all_tasks(tmp_path: Path) -> None:
    methods = [f"method{i}" for i in range(8)]
    points = [TradeoffPoint(name, rate, 0.1 * i, rate, rate == 0.5) for i, name in enumerate(methods)
              for rate in (0.2, 0.5)]  # fmt: skip
    plot_tradeoff(points, tmp_path / "all.svg", methods)
    plot_tradeoff(points[-4:], tmp_path / "two.svg", methods)
    every, two = looks(tmp_path / "all.svg"), looks(tmp_path / "two.svg")
    assert len(set(every.values())) == 8
    assert two == {name: every[name] for name in methods[-2:]}
