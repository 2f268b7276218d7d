"""Checksums (SHA-256) of what is written, verified when it is read: a flipped bit gives no other numbers unsaid.

A folder has them in ``checksums.json``, a single file of tensors in its header (`llm_modules.backbone.tensor_files`).
Checkpoints are archives with checksums of their own (`llm_modules.backbone.checkpoint.check_checkpoint`). Files of
others without any are as good as their format.
"""

import hashlib
import json
import re
import zipfile
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from datamodules.errors import InputError
from datamodules.writing import replacing

CHECKSUMS = "checksums.json"
_READ = {".safetensors", ".json", ".jinja", ".model", ".txt"}
"""Suffixes of the files that are read again; a page for people may be edited."""
WEIGHTS_SUFFIXES = (".safetensors",)
_OF_A_MODEL = re.compile(r".*\.(safetensors|bin|pt|gguf|distcp)|(adapter_)?config\.json|\.metadata")
"""Names of the files of a folder without checksums that what it computes depends on."""
_BLOCK, _BLOCKS = 2**16, 256
"""Bytes of a block, and blocks, that the sample of a file consists of."""


def file_checksums(folder: Path, names: Iterable[str]) -> dict[str, str]:
    """The checksum of each file of a folder, by its name there; several files are read at once."""

    def checksum(name: str) -> str:
        with (folder / name).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    names = list(names)
    with ThreadPoolExecutor() as pool:
        return dict(zip(names, pool.map(checksum, names), strict=True))


def write_checksums(folder: Path, names: Iterable[str] = ()) -> None:
    """Write ``checksums.json`` of files of a folder, by default of all that a program reads; call it last."""
    found = (path.name for path in folder.iterdir() if path.suffix in _READ and path.name != CHECKSUMS)
    with replacing(folder / CHECKSUMS) as file:
        file.write((json.dumps(file_checksums(folder, sorted(names or found)), indent=2) + "\n").encode())


def check_folder(folder: Path | str, key: str, *, without: Iterable[str] = ()) -> None:
    """Check a folder against its ``checksums.json``, if it has one; files that end as ``without`` says are left out.

    InputError, with the option ``key`` that named the folder, if a file is missing or is not the one that was written.
    """
    path = Path(folder) / CHECKSUMS
    if not path.is_file():
        return
    try:
        sums = dict(json.loads(path.read_bytes()))
    except (ValueError, TypeError) as error:
        raise InputError(f"{key}: '{path}' is damaged ({error}); copy the folder again") from error
    left_out = set(without)
    check_files(Path(folder), {name: value for name, value in sums.items() if Path(name).suffix not in left_out}, key)


def check_files(folder: Path, sums: Mapping[str, str], key: str, remedy: str = "") -> None:
    """Raise ``InputError`` if a file is missing or has another checksum; ``remedy`` says what to do then."""
    for name in sums:
        if not (folder / name).is_file():
            raise InputError(f"{key}: '{folder}' has no {name}; the folder is not complete")
    found = file_checksums(folder, sums)
    remedy = remedy or f"copy the folder again, or delete its {CHECKSUMS} if you changed the file yourself"
    for name, value in sums.items():
        if found[name] != value:
            raise InputError(
                f"{key}: '{folder / name}' is not the file that was saved (its checksum differs); {remedy}"
            )


def fingerprint(path: Path) -> str:
    """A short hash of a folder or file of weights, to tell it from another one that has taken its place.

    It is made of the checksums of ``checksums.json`` or of a checkpoint's archive, and of the `sample` of other files.
    """
    digest = hashlib.blake2b(digest_size=8)
    sums = path / CHECKSUMS
    if sums.is_file():
        files = [sums]
    else:
        own = sorted(file for file in path.iterdir() if _OF_A_MODEL.fullmatch(file.name)) if path.is_dir() else [path]
        files = [file for file in own if file.is_file()]
    for file in files:
        digest.update(str(file.relative_to(path)).encode())
        if zipfile.is_zipfile(file):
            with zipfile.ZipFile(file) as archive:
                digest.update(str([(part.filename, part.CRC) for part in archive.infolist()]).encode())
        else:
            digest.update(sample(file).encode())
    return digest.hexdigest()


def sample(file: Path) -> str:
    """A short hash of a file's size and of evenly spaced blocks: of all of it, up to 16 MiB."""
    size = file.stat().st_size
    digest = hashlib.blake2b(str(size).encode(), digest_size=8)
    with file.open("rb") as opened:
        for place in range(0, size, max(_BLOCK, size // _BLOCKS)):
            opened.seek(place)
            digest.update(opened.read(_BLOCK))
    return digest.hexdigest()
