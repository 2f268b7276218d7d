"""The notebooks of the tutorials run from top to bottom, with fewer questions and steps."""

import json
import os
import shlex
import sys
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

from tests.conftest import ROOT

TUTORIALS = {path.stem: path for path in (ROOT / "docs/tutorials").glob("*.ipynb")}
FEWER = {
    "s3cot/1_direction": "--data.limit 4",
    "s3cot/2_calibrate": "--data.limit 8 --data.alphas [0.0,-0.75] --data.layer_sets ['2-3']",
    "s3cot/3_sample": "--data.limit 40",
    "s3cot/5_curriculum": "--data.val_limit 4 --data.items_per_stage 8 --trainer.max_epochs 2"
    " --data.lower_bounds [0.5,0.0]"
    " --trainer.log_every_n_steps 1",
    "s3cot/6_test": "--data.limit 4",
    "mllr/0_pilot": "--trainer.max_steps 4 --model.optimizer.lr 2e-3",
    "mllr/1_probe_and_search": "--data.limit 48 --trainer.callbacks.search.tau 0.9",
    "mllr/2_tune": "--trainer.max_steps 2",
    "mllr/3_test": "--data.limit 3",
    "mogu/0_answers": "--data.limit 40",
    "mogu/pairs": "--n_train 8 --n_val 4",
    "mogu/1_glad": "--trainer.max_epochs 1",
    "mogu/2_unwilling": "--trainer.max_epochs 1",
    "mogu/3_router": "--trainer.max_epochs 1",
    "mogu/4_test": "--data.limit 2",
}
"""Stage -> what makes it short."""


def cells(tutorial: str, kind: str) -> list[dict[str, Any]]:
    notebook = json.loads(TUTORIALS[tutorial].read_text(encoding="utf-8"))
    return [cell | {"source": "".join(cell["source"])} for cell in notebook["cells"] if cell["cell_type"] == kind]


@pytest.mark.slow
@pytest.mark.parametrize("tutorial", sorted(TUTORIALS))
def test_it_runs_from_top_to_bottom(tutorial: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a kernel of its own, with fewer questions and steps."""
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    notebook = nbformat.read(TUTORIALS[tutorial], as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "code" and cell.source.startswith("!rod "):
            command = cell.source.replace("\\\n", " ")
            fewer = next((FEWER[word] for word in shlex.split(command) if word in FEWER), "")
            cell.source = f"{command} {fewer}\nassert _exit_code == 0"
    NotebookClient(notebook, timeout=900, resources={"metadata": {"path": str(tmp_path)}}).execute()
    assert (tmp_path / "report.html").stat().st_size > 10_000


def test_there_is_one_for_each_method() -> None:
    assert set(TUTORIALS) == {"s3cot", "mllr", "mogu"}


@pytest.mark.parametrize("tutorial", sorted(TUTORIALS))
def test_its_pictures_and_links_are_there(tutorial: str) -> None:
    code = cells(tutorial, "code")
    outputs = [output for cell in code for output in cell["outputs"]]
    pictures = sum("Image(" in cell["source"] for cell in code)
    assert pictures
    assert sum("image/png" in output.get("data", {}) for output in outputs) == pictures
    assert not any(output["output_type"] == "error" for output in outputs)
    assert all(cell["outputs"] for cell in code)
    for cell in cells(tutorial, "markdown"):
        for target in (part.partition(")")[0] for part in cell["source"].split("](")[1:]):
            assert (TUTORIALS[tutorial].parent / target).is_file(), target
