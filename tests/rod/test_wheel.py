"""The wheel holds all that a run needs: a stage runs from it, outside of the repository."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

PACKAGES = ("callbacks", "configs", "datamodules", "llm_modules", "rod")


def call(*words: object, cwd: Path, path: Path | None = None) -> str:
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    environment |= {"PYTHONPATH": str(path)} if path else {}
    command = [sys.executable, "-m", *map(str, words)]
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout


def files(folder: Path) -> set[str]:
    """All files of the packages, without what Python caches."""
    found = [path for package in PACKAGES for path in (folder / package).rglob("*")]
    return {p.relative_to(folder).as_posix() for p in found if p.is_file() and "__pycache__" not in p.parts}


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the packages of a freshly built wheel."""
    source = tmp_path_factory.mktemp("source")
    for package in PACKAGES:
        shutil.copytree(ROOT / package, source / package, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copyfile(ROOT / name, source / name)
    wheels, target = tmp_path_factory.mktemp("wheels"), tmp_path_factory.mktemp("installed")
    offline = ["--no-deps", "--no-index", "--disable-pip-version-check"]
    call("pip", "wheel", *offline, "--no-build-isolation", "--wheel-dir", wheels, source, cwd=source)
    (wheel,) = wheels.glob("lightning_rod-*.whl")
    call("pip", "install", *offline, "--target", target, wheel, cwd=source)
    return target


@pytest.mark.slow
def test_every_file_of_the_packages_is_in_the_wheel(installed: Path) -> None:
    assert files(installed) == files(ROOT)


@pytest.mark.slow
def test_a_stage_runs_from_the_wheel_in_an_empty_folder(installed: Path, tmp_path: Path) -> None:
    sizes = ["--n_train", 20, "--n_dev", 5, "--n_test", 5]
    call("rod", "world", *sizes, cwd=tmp_path, path=installed)
    call("rod", "predict", "--config", "s3cot/1_direction", "--data.limit", 4, cwd=tmp_path, path=installed)
    assert (tmp_path / "runs/s3cot/1_direction/direction.safetensors").is_file()
    assert "s3cot/1_direction " in call("rod", "configs", cwd=tmp_path, path=installed)

    (tmp_path / "loaded.py").write_text(
        "import json, sys\n"
        "from rod import classes\n"
        "classes.load()\n"
        f"loaded = [m.__file__ for n, m in sys.modules.items() if n.partition('.')[0] in {PACKAGES} and m.__file__]\n"
        "print(json.dumps(loaded))\n"
    )
    loaded = json.loads(call("loaded", cwd=tmp_path, path=installed).splitlines()[-1])
    assert len(loaded) > 50
    assert all(Path(file).is_relative_to(installed) for file in loaded)
