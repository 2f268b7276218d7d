"""The folder that the miniature is trained from: a tokenizer and the shape of the model, without weights."""

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
"""Of the model, as in the ``config.json`` of a Llama checkpoint: 1.4 million parameters."""


def write_blank(folder: Path) -> None:
    """Write tokenizer files and ``config.json``; the same bytes every time.

    ``rod fit`` trains such a folder from scratch with ``model.random_weights: true``.
    """
    tokenizer = train_tokenizer()
    tokenizer.save_pretrained(folder)
    rows = -(-len(tokenizer) // 64) * 64  # a multiple of 64 is quicker to multiply with
    ids = {"bos_token_id": None, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    config = SHAPE | ids | {"vocab_size": rows}
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    import sys

    write_blank(Path(sys.argv[1]))
