"""The two verbs of ML-LR that look at finished models."""

import csv
import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from rod.__main__ import main
from tests.tiny import save_tiny


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    for seed, name in enumerate(("tuned", "aligned", "base")):
        save_tiny(folder / name, layers=2, seed=seed)
    (folder / "requests.jsonl").write_text("".join(json.dumps({"prompt": f"do {i}"}) + "\n" for i in range(6)))
    return folder


def test_swapping_everything_gives_the_other_model_s_share(models: Path, tmp_path: Path) -> None:
    """Layers are all that two such models differ in but for embeddings and norms, which are made the same here."""
    aligned, tuned = (AutoModelForCausalLM.from_pretrained(models / name) for name in ("aligned", "tuned"))
    tuned.model.embed_tokens, tuned.model.norm, tuned.lm_head = (
        aligned.model.embed_tokens,
        aligned.model.norm,
        aligned.lm_head,
    )
    tuned.save_pretrained(tmp_path / "tuned")
    words = ["swap", "--tuned", tmp_path / "tuned", "--aligned", models / "aligned", "--output", tmp_path / "swap.csv"]
    words += ["--requests", models / "requests.jsonl", "--refusal", "[a-m]", "--max_new_tokens", 6]
    assert main([str(word) for word in words]) == 0
    with (tmp_path / "swap.csv").open() as file:
        rows = {row["swapped"]: row for row in csv.DictReader(file)}
    assert rows.keys() == {
        "nothing", "q", "k", "v", "o", "gate", "up", "down", "layer 0", "layer 1", "all modules",
    }  # fmt: skip
    nothing, everything = rows["nothing"], rows["all modules"]
    assert everything["refused_tuned_restored"] == nothing["refused_aligned_tuned"]
    assert everything["refused_aligned_tuned"] == nothing["refused_tuned_restored"]
    assert float(everything["relative_change"]) > 1
    assert main([str(word) for word in words]) == 2, "it does not overwrite"


def test_a_bad_pattern_is_one_line(models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["swap", "--tuned", models / "tuned", "--aligned", models / "aligned", "--output", tmp_path / "swap.csv"]
    assert main([*map(str, words), "--requests", str(models / "requests.jsonl"), "--refusal", "("]) == 2
    assert "--refusal: not a regular expression" in capsys.readouterr().err


def test_a_projected_model_is_written_beside_the_tuned_one(models: Path, tmp_path: Path) -> None:
    output = tmp_path / "projected"
    words = ["project", "--tuned", models / "tuned", "--aligned", models / "aligned", "--base", models / "base"]
    words += ["--output", output, "--threshold", 0.99]
    assert main([str(word) for word in words]) == 0
    before, after = (AutoModelForCausalLM.from_pretrained(path) for path in (models / "tuned", output))
    changed = {
        n for (n, a), b in zip(before.named_parameters(), after.parameters(), strict=True) if not torch.equal(a, b)
    }
    assert changed
    assert all("_proj" in name for name in changed)
    assert main([str(word) for word in words]) == 2, "it does not overwrite"


def test_a_model_is_not_written_over_an_adapter(
    models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Both would be loaded."""
    (tmp_path / "adapter_config.json").touch()
    folders = {"tuned": models / "tuned", "aligned": models / "aligned", "base": models / "base", "output": tmp_path}
    assert main(["project", *(f"--{name}={path}" for name, path in folders.items()), "--overwrite=true"]) == 2
    assert "holds an export in the format peft; name another folder" in capsys.readouterr().err
