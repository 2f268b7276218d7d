"""Each shipped fragment makes a judge, without files, models or network."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from jsonargparse import ArgumentParser

from llm_modules.judges import Judge
from tests.conftest import ROOT

FRAGMENTS = sorted(path for path in (ROOT / "configs" / "judges").glob("*.yaml") if path.name != "train.yaml")


@pytest.mark.parametrize("path", FRAGMENTS, ids=lambda path: path.stem)
def test_fragments_make_judges(path: Path) -> None:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--judges", type=list[Judge])
    (asked,) = yaml.safe_load(path.read_text())["evaluate"]["judges+"]
    (judge,) = parser.instantiate_classes(parser.parse_object({"judges": [asked]})).judges
    assert type(judge).__name__ == asked["class_path"]
    assert judge.kind == ("refusal" if path.stem in ("phrases", "classifier") else "harm")
    assert judge.identity()["name"] == asked["init_args"]["name"]


def test_judges_are_imported_without_torch_and_transformers() -> None:
    code = (
        "import sys, llm_modules.judges; print([m for m in ('torch', 'transformers', 'lightning') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
