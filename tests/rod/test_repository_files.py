"""Files beside the code say what is so."""

import json
import re
import tomllib

import pytest
import yaml

from rod.__main__ import VERBS
from tests.conftest import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def test_the_workflow_runs_what_continuous_integration_runs() -> None:
    workflow = yaml.safe_load((ROOT / ".github/workflows/test.yml").read_text(encoding="utf-8"))
    (job,) = workflow["jobs"].values()
    assert [step["run"] for step in job["steps"] if "run" in step] == [".ci/run"]
    assert "make test" in (ROOT / ".ci/run").read_text(encoding="utf-8")
    told = {entry.rpartition(" :: ")[2] for entry in PROJECT["classifiers"] if re.search(r":: \d+\.\d+$", entry)}
    assert set(job["strategy"]["matrix"]["python"]) == told


@pytest.mark.parametrize(("name", "commands"), [("docs", ["make docs"]), ("release", [".ci/run", "make dist"])])
def test_the_other_workflows_run_targets_that_exist(name: str, commands: list[str]) -> None:
    workflow = yaml.safe_load((ROOT / f".github/workflows/{name}.yml").read_text(encoding="utf-8"))
    assert [step["run"] for job in workflow["jobs"].values() for step in job["steps"] if "run" in step] == commands
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in (command.removeprefix("make ") for command in commands if command.startswith("make ")):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE)


def test_every_week_the_oldest_and_the_newest_versions_are_tested() -> None:
    workflow = yaml.safe_load((ROOT / ".github/workflows/versions.yml").read_text(encoding="utf-8"))
    assert "schedule" in workflow[True]  # YAML reads the key "on" so
    (job,) = workflow["jobs"].values()
    commands = [step["run"] for step in job["steps"] if "run" in step]
    assert commands == ["make test-${{ matrix.versions }}"]
    (targets,) = re.findall(
        r"^(test-oldest test-newest):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE
    )
    assert [f"test-{name}" for name in job["strategy"]["matrix"]["versions"]] == targets.split()


def test_issue_templates_ask_for_the_environment() -> None:
    templates = list((ROOT / ".github/ISSUE_TEMPLATE").glob("*.yml"))
    assert templates
    for path in templates:
        fields = yaml.safe_load(path.read_text(encoding="utf-8"))["body"]
        assert any("`rod env`" in field["attributes"]["label"] for field in fields), path
        for verb in re.findall(r"`rod ([\w-]+)", path.read_text(encoding="utf-8")):
            assert verb in VERBS


def test_the_container_runs_the_demo() -> None:
    lines = (ROOT / "Dockerfile").read_text(encoding="utf-8").splitlines()
    words = [json.loads(line.partition(" ")[2]) for line in lines if line.startswith(("ENTRYPOINT", "CMD"))]
    demo = re.search(r"^demo:.*\n\t\$\(BIN\)/(.*)$", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert demo
    assert " ".join([*words[0], *words[1]]) == demo[1]
    kept_out = (ROOT / ".dockerignore").read_text(encoding="utf-8").split()
    assert not {"configs", "README.md", "constraints.txt", "LICENSE"} & set(kept_out)


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
