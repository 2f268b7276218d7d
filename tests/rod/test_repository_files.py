"""Files beside the code say what is so."""

import re
import tomllib

import yaml

from tests.conftest import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def test_the_workflow_runs_what_continuous_integration_runs() -> None:
    workflow = yaml.safe_load((ROOT / ".github/workflows/test.yml").read_text(encoding="utf-8"))
    (job,) = workflow["jobs"].values()
    assert [step["run"] for step in job["steps"] if "run" in step] == [".ci/run"]
    assert "make test" in (ROOT / ".ci/run").read_text(encoding="utf-8")
    told = {entry.rpartition(" :: ")[2] for entry in PROJECT["classifiers"] if re.search(r":: \d+\.\d+$", entry)}
    assert set(job["strategy"]["matrix"]["python"]) == told


def test_the_docs_workflow_runs_a_target_that_exists() -> None:
    workflow = yaml.safe_load((ROOT / ".github/workflows/docs.yml").read_text(encoding="utf-8"))
    (job,) = workflow["jobs"].values()
    (target,) = [step["run"].removeprefix("make ") for step in job["steps"] if "run" in step]
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)


def test_the_citation_is_of_this_version() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == PROJECT["version"]
    assert citation["license"] == PROJECT["license"]
    assert citation["abstract"] == PROJECT["description"]


def test_what_agents_are_told_exists() -> None:
    text = (ROOT / "AGENTS.md").read_text(encoding="utf-8")
    named = re.findall(r"\]\(([\w./]+)\)|`((?:tests|docs|configs)[\w./]*)`", text)
    for path in {one or other for one, other in named}:
        assert (ROOT / path).exists(), path
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"`make (\w+)`", text):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
