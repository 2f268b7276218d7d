"""Each shipped fragment makes a judge, without files, models or network."""

from pathlib import Path

import pytest
import yaml
from jsonargparse import ArgumentParser

import llm_modules.judges.classifier
import llm_modules.judges.local
import llm_modules.judges.phrases
import llm_modules.judges.server  # noqa: F401 - so that fragments can name classes without their modules
from llm_modules.judges.judge import Judge
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
