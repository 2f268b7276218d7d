"""The specification of a workspace has a panel for every metric, figure and table that the stages log."""

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from callbacks.mllr.robust_modules import _FIGURES
from rod.__main__ import main
from tests.conftest import ROOT

LOGGED = {
    "s3cot": "base/aes base/system1_accuracy base/system2_tokens val/aes val/system1_aes val/system2_truncation "
    "val/system2_repetition lr-AdamW/matrices",
    "mllr": "safety/refused safety/over_refused grad_norm/robust/matrices lr-AdamW/rest/vectors train/tokens",
    "mogu": "train/glad_on_benign val/glad_on_malicious train/unwilling_on_benign train/penalty val/over_refusal "
    "val/over_refusal_base train/ce_unwanted val/ce_wanted val/loss",
}
TESTED = (
    "train/loss test/maths/system1/accuracy test/maths/system2/tokens test/forbidden/prefill/asr/refusal "
    "test/benign/compliance/refusal test/twins/refusal_rate/refusal test/maths/system1/aes test/task/truncation "
    "test/task/repetition test/first_token_ms"
)
"""Keys in the logs of the demo's runs."""


def panels(method: str, tmp_path: Path) -> list[dict[str, Any]]:
    pytest.importorskip("wandb_workspaces")
    path = tmp_path / "workspace.json"
    assert main(["dashboard", method, "--project", "mine", "--output", str(path)]) == 0
    made = json.loads(path.read_text())
    assert made["project"] == "mine"
    sections = made["spec"]["section"]["panel_bank_config"]["sections"]
    return [panel for section in sections for panel in section["panels"]]


@pytest.mark.parametrize("method", LOGGED)
def test_every_metric_is_in_one_panel(method: str, tmp_path: Path) -> None:
    patterns = [panel["config"].get("metric_regex") for panel in panels(method, tmp_path)]
    for key in f"{LOGGED[method]} {TESTED}".split():
        # A panel shows what its pattern is found in.
        found = [pattern for pattern in patterns if pattern and re.search(pattern, key)]
        assert len(found) == 1, (key, found)


def test_every_figure_and_table_is_in_a_panel(tmp_path: Path) -> None:
    source = "".join(path.read_text() for path in (ROOT / "callbacks").rglob("*.py"))
    logged = set(re.findall(r'log_(?:figure|samples)\(trainer, "([\w/]+)"', source)) | set(_FIGURES)
    media = {
        key
        for method in LOGGED
        for panel in panels(method, tmp_path / method)
        for key in panel["config"].get("mediaKeys") or panel["config"].get("media_keys") or ()
    }
    assert media == logged


def test_without_the_extra_one_line_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "wandb_workspaces.workspaces", None)
    assert main(["dashboard", "mogu"]) == 2
    assert "pip install 'lightning-rod[dashboard]'" in capsys.readouterr().err
