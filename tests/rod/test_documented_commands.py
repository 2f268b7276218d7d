"""Commands in README, docs and the comments of configurations name verbs, configurations and keys that exist."""

from pathlib import Path

import pytest

from rod.__main__ import LIGHTNING, VERBS, main
from rod.shipped import CONFIGS, find
from tests.conftest import ROOT
from tests.rod.commands import commands, configs_of

README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "docs").glob("*.md")), *sorted(CONFIGS.rglob("*.yaml"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_verbs_and_configurations_exist(page: Path) -> None:
    for words in commands(page):
        assert words[0] in VERBS, words
        for name in configs_of(words):
            if name != "STAGE":
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
