import re
from pathlib import Path

import pytest

from rod.report.figures import pictures_of, unit
from rod.report.runs import find_runs
from tests.rod.report.runs import save_fit


@pytest.mark.parametrize(
    ("metric", "expected"),
    [
        ("train/loss", "nats per token"),
        ("val/ce_wanted", "nats per token"),
        ("val/ce_unwanted", "nats per token"),
        ("val/ce", "nats per token"),
        ("val/system1_accuracy", "share"),
        ("val/over_refusal_base", "share"),
        ("val/system2_tokens", "tokens"),
        ("val/aes", "score"),
        ("val/system1_aes", "score"),
        ("val/glad_on_benign", "gate, 0 to 1"),
        ("val/penalty", "value"),
    ],
)
def test_every_metric_of_a_fit_has_a_unit(metric: str, expected: str) -> None:
    assert unit(metric) == expected


def test_the_curves_of_a_fit_name_their_axes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names: list[str] = []
    monkeypatch.setattr("matplotlib.axes.Axes.set_ylabel", lambda self, text: names.append(text))
    run = find_runs([save_fit(tmp_path / "fit")])[0][0]
    curves = pictures_of(run)[0]
    assert names == ["train/loss (nats per token)", "val/loss (nats per token)"]
    assert re.search(r"train/loss from 2 to 0\.0\d+", curves.alt)


def test_figures_with_prompts_are_folded_and_wide_ones_have_a_line_of_their_own(tmp_path: Path) -> None:
    run = find_runs([save_fit(tmp_path / "fit")])[0][0]
    _, stages, tokens = pictures_of(run)
    assert (stages.harmful, stages.wide) == (False, False)
    assert (tokens.harmful, tokens.wide) == (True, True)
