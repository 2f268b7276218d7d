"""Packed documents are apart in some families, and the others are refused."""

from pathlib import Path
from typing import Any

import pytest

from llm_modules.packing import keeps_documents_apart
from rod.__main__ import main
from tests.architectures import ARCHITECTURES
from tests.tiny import save_tiny, tiny_tokenizer

APART = {"llama", "mistral", "qwen2", "gemma3", "phi3", "gpt2", "gpt_neox", "qwen3_moe"}
TOGETHER = {"falcon", "falcon_alibi", "opt"}


@pytest.mark.parametrize("name", sorted((APART | TOGETHER) & ARCHITECTURES.keys()))
def test_families_that_keep_documents_apart(name: str) -> None:
    assert keeps_documents_apart(ARCHITECTURES[name]()) is (name in APART)


def test_a_fit_on_packed_data_is_refused_where_documents_would_see_each_other(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "data.jsonl").write_text('{"prompt": "a", "response": "b"}\n' * 4)
    save_tiny(tmp_path / "llama", layers=1)
    other: Any = ARCHITECTURES["opt"]()
    other.resize_token_embeddings(len(tiny_tokenizer()))
    other.save_pretrained(tmp_path / "opt")
    words = ["fit", "--model", "CausalLM", "--data", "InstructionData", "--data.path", str(tmp_path / "data.jsonl")]
    words += ["--data.packing", "true", "--data.max_tokens", "64", "--trainer.max_steps", "1"]
    words += ["--trainer.accelerator", "cpu", "--model.tokenizer", str(tmp_path / "llama")]
    for name, status in (("llama", 0), ("opt", 2)):
        own = ["--model.backbone", str(tmp_path / name), "--trainer.default_root_dir", str(tmp_path / "run" / name)]
        assert main([*words, *own]) == status
    assert "data.packing: documents of a row would see each other in a model of type opt" in capsys.readouterr().err
