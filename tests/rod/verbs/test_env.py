from pathlib import Path

import pytest

from rod.__main__ import main
from rod.run_record import versions
from tests.rod.report.runs import save_config


def test_it_says_what_an_issue_needs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_config(tmp_path / "run", "fit", command="rod fit --config x")
    assert main(["env", str(tmp_path / "run")]) == 0
    told = capsys.readouterr().out
    for name, value in versions().items():
        assert f"{name:<15}{value}" in told
    assert "rod fit --config x" in told
    assert "seed_everything: 0" in told


def test_a_folder_that_is_no_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["env", str(tmp_path)]) == 2
    assert "has no config.yaml" in capsys.readouterr().err
