"""The notebook of the tour runs from top to bottom, with fewer questions and steps."""

import json
import shlex
import sys
from pathlib import Path
from types import ModuleType

import pytest

from rod.__main__ import main
from tests.conftest import ROOT

NOTEBOOK = json.loads((ROOT / "docs/tour.ipynb").read_text(encoding="utf-8"))
FEWER = {
    "s3cot/1_direction": "--data.limit 4",
    "s3cot/2_calibrate": "--data.limit 8 --data.alphas [0.0,-0.75] --data.layer_sets ['2-3']",
    "s3cot/3_sample": "--data.limit 40",
    "s3cot/5_curriculum": "--data.val_limit 4 --data.items_per_stage 8 --trainer.max_epochs 2"
    " --data.lower_bounds [0.5,0.0]"
    " --trainer.log_every_n_steps 1",
    "s3cot/6_test": "--data.limit 4",
}
"""Stage -> what makes it short."""


class Image:
    """Stands in for that of IPython: the file has to be there."""

    def __init__(self, path: str) -> None:
        assert Path(path).read_bytes().startswith(b"\x89PNG")


def cells(kind: str) -> list[str]:
    return ["".join(cell["source"]) for cell in NOTEBOOK["cells"] if cell["cell_type"] == kind]


@pytest.mark.slow
def test_it_runs_from_top_to_bottom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    display = ModuleType("IPython.display")
    vars(display)["Image"] = Image
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    names: dict[str, object] = {}
    for source in cells("code"):
        if not source.startswith("!rod "):
            exec(compile(source, "cell", "exec"), names)
            continue
        words = shlex.split(source.removeprefix("!rod "))
        fewer = next((FEWER[word] for word in words if word in FEWER), "")
        assert main([*words, *fewer.split()]) == 0, source
    assert Path("report.html").stat().st_size > 10_000


def test_its_pictures_and_links_are_there() -> None:
    outputs = [output for cell in NOTEBOOK["cells"] for output in cell.get("outputs", ())]
    assert sum("image/png" in output.get("data", {}) for output in outputs) == sum("Image(" in c for c in cells("code"))
    assert not any(output["output_type"] == "error" for output in outputs)
    for text in cells("markdown"):
        for target in (part.partition(")")[0] for part in text.split("](")[1:]):
            assert (ROOT / "docs" / target).is_file(), target
