"""The folder that training of the miniature starts from: tokenizer and model configuration, without weights."""

import json
from pathlib import Path

from datamodules.world.tokenizer import train_tokenizer

SHAPE = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 128,
    "num_hidden_layers": 6,
    "intermediate_size": 384,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "hidden_act": "silu",
    "max_position_embeddings": 1024,
    "rms_norm_eps": 1e-6,
    "initializer_range": 0.02,
    "tie_word_embeddings": True,
    "dtype": "float32",
}
"""The ``config.json`` of the miniature, a Llama of 1.4 million parameters."""


def write_blank(folder: Path) -> None:
    """Write tokenizer files and ``config.json``, with the same bytes every time.

    With ``model.random_weights: true``, ``rod fit`` trains such a folder from scratch.
    """
    tokenizer = train_tokenizer()
    tokenizer.save_pretrained(folder)
    rows = -(-len(tokenizer) // 64) * 64  # multiples of 64 are faster
    ids = {"bos_token_id": None, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    config = SHAPE | ids | {"vocab_size": rows}
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
