"""``rod export-direction`` writes what was asked for, or says what is wrong with it."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from llm_modules.s3cot import Direction
from rod.__main__ import main


@pytest.fixture
def direction(tmp_path: Path) -> Path:
    path = tmp_path / "direction.safetensors"
    Direction(vectors=torch.arange(12.0).view(4, 3) + 1, model="m", anchor=1).save(path)
    return path


def export(direction: Path, output: Path, **options: str) -> int:
    words = {"format": "layers", "layers": "anchor:2", "alpha": "-0.5"} | options
    pairs = [word for key, value in words.items() for word in (f"--{key}", value)]
    return main(["export-direction", "--direction", str(direction), "--output", str(output), *pairs])


def test_exports_the_layers_asked_for(direction: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "vectors.safetensors"
    assert export(direction, output) == 0
    assert str(output) in capsys.readouterr().out
    tensors = load_file(output)
    assert set(tensors) == {"direction.1", "direction.2"}
    assert tensors["direction.1"].tolist() == [-2.0, -2.5, -3.0]


@pytest.mark.parametrize("format", ["lm-eval", "gguf"])
def test_the_other_formats(format: str, direction: Path, tmp_path: Path) -> None:
    assert export(direction, tmp_path / "out", format=format) == 0
    assert (tmp_path / "out").stat().st_size > 100


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"layers": "9"}, "the model has layers 0-3"),
        ({"layers": "some"}, "is not a set of layers"),
        ({"alpha": "nan"}, "alpha"),
        ({"alpha": "0"}, "--alpha"),
        ({"alpha": "strong"}, "alpha"),
        ({"format": "onnx"}, "format"),
        ({"format": "gguf", "layers": "all"}, "layer 0"),
    ],
)
def test_refusals(
    options: dict[str, str], says: str, direction: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert export(direction, tmp_path / "out", **options) == 2
    assert says in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_does_not_overwrite_unasked(direction: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "vectors.safetensors"
    output.write_text("precious")
    assert export(direction, output) == 2
    assert "exists" in capsys.readouterr().err
    assert output.read_text() == "precious"
    assert export(direction, output, overwrite="true") == 0
    assert load_file(output)
