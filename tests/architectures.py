"""Tiny random models, one per architecture that the project supports: `ARCHITECTURES[name]()` builds one."""

from collections.abc import Callable
from functools import partial
from inspect import signature
from typing import Any

import torch
from transformers import AutoModelForCausalLM, LlamaModel, PreTrainedModel
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from llm_modules.generation.prefill import CACHES

HIDDEN = 32
LAYERS = 3
HEADS = 4
VOCAB = 128
MAX_POSITIONS = 256
"""Positions that the models with a learned table (GPT-2, OPT) have; the others name it as a limit as well."""
CACHE = next(name for name in CACHES if name in signature(LlamaModel.forward).parameters)
"""The argument by which models take their cache."""
SLIDING_WINDOW = 8
"""Narrow enough that a short test leaves it (Mistral, Gemma 2, Gemma 3)."""

_COMMON: dict[str, Any] = {
    "vocab_size": VOCAB,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
    # Wider than the usual 0.02, and untied except for Falcon: otherwise a random model repeats one token for ever.
    "initializer_range": 0.3,
    "tie_word_embeddings": False,
}
_SIZE: dict[str, Any] = {
    "hidden_size": HIDDEN,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "max_position_embeddings": MAX_POSITIONS,
}
_LLAMA = _SIZE | {"num_key_value_heads": 2, "intermediate_size": 64}
_GEMMA = _LLAMA | {"head_dim": 8, "query_pre_attn_scalar": 8, "sliding_window": SLIDING_WINDOW}
_FALCON = _SIZE | {"ffn_hidden_size": 64, "tie_word_embeddings": True}
_GPT2 = {"n_embd": HIDDEN, "n_layer": LAYERS, "n_head": HEADS, "n_inner": 64, "n_positions": MAX_POSITIONS}


def _build(model_type: str, options: dict[str, Any], seed: int = 0) -> PreTrainedModel:
    config = CONFIG_MAPPING[model_type](**(_COMMON | options))
    state = torch.random.get_rng_state()
    torch.manual_seed(seed)
    try:
        model = AutoModelForCausalLM.from_config(config)
    finally:
        torch.random.set_rng_state(state)
    return model.float().eval()


ARCHITECTURES: dict[str, Callable[..., PreTrainedModel]] = {
    "llama": partial(_build, "llama", _LLAMA),
    "mistral": partial(_build, "mistral", _LLAMA | {"head_dim": 8, "sliding_window": SLIDING_WINDOW}),
    "qwen2": partial(_build, "qwen2", _LLAMA),
    "qwen3": partial(_build, "qwen3", _LLAMA | {"head_dim": 8}),
    "gemma2": partial(_build, "gemma2", _GEMMA),
    "gemma3": partial(
        _build, "gemma3_text", _GEMMA | {"layer_types": ["sliding_attention", "sliding_attention", "full_attention"]}
    ),
    "phi3": partial(_build, "phi3", _LLAMA | {"original_max_position_embeddings": MAX_POSITIONS}),
    "falcon": partial(_build, "falcon", _FALCON),
    "falcon_alibi": partial(_build, "falcon", _FALCON | {"alibi": True}),
    "opt": partial(
        _build,
        "opt",
        _SIZE | {"ffn_dim": 64, "word_embed_proj_dim": HIDDEN, "init_std": _COMMON["initializer_range"]},
    ),
    "gpt_neox": partial(_build, "gpt_neox", _SIZE | {"intermediate_size": 64}),
    "gpt2": partial(_build, "gpt2", _GPT2),
    "qwen3_moe": partial(
        _build,
        "qwen3_moe",
        _LLAMA | {"head_dim": 8, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32},
    ),
}
