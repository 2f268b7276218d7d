"""Files are written as a whole or not at all."""

from pathlib import Path

import pytest

from datamodules.writing import filling, replacing


def test_an_error_while_writing_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file"
    with replacing(path) as file:
        file.write(b"old")

    def interrupted() -> None:
        with replacing(path) as file:
            file.write(b"half")
            raise OSError("no space")

    with pytest.raises(OSError, match="no space"):
        interrupted()
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in path.parent.iterdir()] == ["file"]


def test_an_error_while_a_folder_is_filled_leaves_no_empty_one(tmp_path: Path) -> None:
    def interrupted(folder: Path) -> None:
        with filling(folder) as new:
            (new / "half").touch()
            raise OSError("no space")

    (tmp_path / "theirs").mkdir()
    for name in ("theirs", "new"):
        with pytest.raises(OSError, match="no space"):
            interrupted(tmp_path / name)
    assert [path.name for path in tmp_path.rglob("*")] == ["theirs"]
