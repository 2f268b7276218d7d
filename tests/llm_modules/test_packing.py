"""Packed documents are apart in some families, and the others are refused."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from llm_modules.packing import keeps_documents_apart
from rod.__main__ import main
from tests.architectures import ARCHITECTURES
from tests.tiny import save_tiny, tiny_tokenizer

TOGETHER = {"falcon", "falcon_alibi", "opt"}
"""Families whose packed documents see each other."""
STATES: dict[str, dict[str, Any]] = {
    "lfm2": {"layer_types": ["conv", "conv", "full_attention", "conv"]},
    "jamba": {"num_experts": 2, "use_mamba_kernels": False, "mamba_d_state": 8},
    "falcon_h1": {"mamba_d_ssm": 128, "mamba_n_heads": 8, "mamba_d_state": 16},
}
"""Small models with states, which leak little: in bfloat16 about as much as rounding changes elsewhere."""


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", sorted(ARCHITECTURES))
def test_families_that_keep_documents_apart(name: str, dtype: torch.dtype) -> None:
    model: torch.nn.Module = ARCHITECTURES[name]()
    assert keeps_documents_apart(model.to(dtype)) is (name not in TOGETHER)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", sorted(STATES))
def test_models_with_states_do_not(name: str, dtype: torch.dtype) -> None:
    size = {"hidden_size": 128, "num_hidden_layers": 4, "vocab_size": 500, "num_attention_heads": 4}
    options = size | {"num_key_value_heads": 2, "intermediate_size": 128} | STATES[name]
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(name, **options))
    assert not keeps_documents_apart(model.to(dtype))


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
