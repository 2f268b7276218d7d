"""Commands in README, docs and the comments of configurations name verbs, configurations and keys that exist."""

import re
import shlex
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from rod.__main__ import LIGHTNING, VERBS, main
from rod.shipped import CONFIGS, find
from tests.conftest import ROOT

README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "docs").glob("*.md")), *sorted(CONFIGS.rglob("*.yaml"))]


def commands(page: Path) -> Iterator[list[str]]:
    """The words after ``rod`` of every command, with shell variables put in."""
    text = page.read_text().replace("\\\n#", "").replace("\\\n", "")
    variables = dict(re.findall(r'^(\w)="(.*)"$', text, re.MULTILINE))
    for line in re.findall(r"^(?:#? {3,}|)rod (.+)$", text, re.MULTILINE):
        for name, value in variables.items():
            line = line.replace(f"${name}", value)
        yield shlex.split(re.sub(r" (#|\(and|->).*", "", line))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_verbs_and_configurations_exist(page: Path) -> None:
    for words in commands(page):
        assert words[0] in VERBS, words
        named = [name for word, name in pairwise(words) if word == "--config"]
        for name in named:
            if not re.match(r"runs/|[A-Z]+$|\w+\.yaml$", name):  # written by a stage, any, the reader's own
                find(name)


@pytest.mark.slow
def test_keys_of_the_readme_exist(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Except in what an earlier command writes."""
    monkeypatch.chdir(ROOT)
    choice = "runs/s3cot/2_calibrate/choice.yaml"
    ours = [words for words in commands(README) if VERBS[words[0]] == LIGHTNING and choice not in words]
    assert len(ours) > 15
    for words in ours:
        with pytest.raises(SystemExit) as done:
            main([*words, "--print_config"])
        assert done.value.code == 0, words
        capsys.readouterr()
