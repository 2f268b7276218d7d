"""Folders with a Llama of random weights and the miniature's tokenizer."""

from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from llm_modules.backbone.loading import MINIATURE

VOCABULARY = 8_000


def config(hidden: int, layers: int, intermediate: int) -> LlamaConfig:
    """Heads of about 64 to 128 numbers, as in Llamas."""
    heads = hidden // (64 if hidden < 1536 else 128)
    return LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=hidden,
        intermediate_size=intermediate,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        eos_token_id=1,
        pad_token_id=0,
    )


def write(folder: Path, shape: LlamaConfig, dtype: torch.dtype = torch.float32, shard: str = "50GB") -> int:
    """Write a model into files of at most ``shard``; return the bytes of its weights."""
    model = LlamaForCausalLM(shape)
    torch.nn.Module.to(model, dtype)
    model.save_pretrained(folder, max_shard_size=shard)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        if (MINIATURE / name).is_file():
            (folder / name).write_bytes((MINIATURE / name).read_bytes())
    return sum(weights.numel() * weights.element_size() for weights in model.parameters())
