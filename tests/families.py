"""Tiny random models of any decoder-only family of transformers, by shrinking its default configuration."""

from typing import Any

import torch
from transformers import AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

HIDDEN = 32
VOCAB = 96

_SIZES = {
    HIDDEN: """
        hidden_size d_model n_embd n_embed dim dim_model word_embed_proj_dim embedding_dim lru_width
        attention_hidden_size
    """,
    48: """
        intermediate_size ffn_dim n_inner dff dim_ff intermediate_size_mlp ffn_hidden_size mlp_hidden_size
        block_ff_dim
    """,
    16: """
        moe_intermediate_size expert_ffn_hidden_size shared_expert_intermediate_size shared_intermediate_size
        moe_shared_expert_intermediate_size
    """,
    4: """
        num_attention_heads n_head n_heads num_heads attention_heads decoder_attention_heads num_experts
        num_local_experts n_routed_experts moe_num_experts qk_rope_head_dim qk_nope_head_dim
        linear_num_key_heads linear_num_value_heads linear_num_heads time_step_rank mamba_dt_rank
    """,
    2: """
        num_key_value_heads num_kv_heads num_experts_per_tok moe_topk moe_k index_n_heads altup_num_inputs
        n_mamba_heads eos_token_id
    """,
    8: """
        global_head_dim head_dim dim_head kv_channels attention_head_dim v_head_dim q_lora_rank kv_lora_rank
        state_size hidden_size_per_layer_input mamba_n_heads mamba_d_head mamba_d_state mamba_chunk_size
        mamba_num_heads mamba_head_dim ssm_state_size mamba_headdim chunk_size linear_key_head_dim
        linear_value_head_dim linear_head_dim sliding_window attention_window_size attention_chunk_size
        index_head_dim window_size laurel_rank rotary_dim qk_head_dim
    """,
    1: """
        n_group topk_group num_expert_group first_k_dense_replace n_shared_experts zero_expert_num
        mamba_n_groups n_groups mamba_ngroups bos_token_id
    """,
    VOCAB: """
        vocab_size vocab_size_per_layer_input
    """,
    128: """
        max_position_embeddings n_positions n_ctx max_seq_len max_sequence_length
    """,
    64: """
        mamba_d_ssm index_topk
    """,
    0: """
        num_kv_shared_layers pad_token_id
    """,
}
"""Size -> names of the configurations' fields that get it."""
_LAYERS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers", "decoder_layers", "layer_num")
_KINDS = ("layer_types", "layers_block_type")
_CAN_BE_NONE = ("pad_token_id", "bos_token_id", "eos_token_id", "head_dim", "intermediate_size", "num_key_value_heads")

_EXTRA: dict[str, dict[str, Any]] = {
    "bamba": {"attn_layer_indices": [1]},
    "dbrx": {
        "attn_config": {"kv_n_heads": 2, "rope_theta": 1e4, "clip_qkv": 8},
        "ffn_config": {"ffn_hidden_size": 48, "moe_num_experts": 4, "moe_top_k": 2},
    },
    "deepseek_v2": {"topk_method": "greedy", "n_group": None, "topk_group": None, "num_experts_per_tok": 2},
    "dots1": {"n_shared_experts": 1, "num_experts_per_tok": 2},
    "gpt_neo": {"attention_types": [[["global", "local"], 1], [["global"], 1]]},
    "granitemoehybrid": {"layer_types": ["linear_attention", "full_attention", "linear_attention"]},
    "jamba": {
        "attn_layer_period": 2,
        "attn_layer_offset": 1,
        "expert_layer_period": 2,
        "expert_layer_offset": 1,
        "use_mamba_kernels": False,
    },
    "lfm2": {"layer_types": ["conv", "full_attention", "conv"]},
    "lfm2_moe": {"layer_types": ["conv", "full_attention", "conv"], "num_dense_layers": 1},
    "mamba2": {"num_heads": 8, "head_dim": 8},
    "qwen4_exp_text": {
        "indexer_n_heads": 2,
        "indexer_kv_heads": 1,
        "indexer_head_dim": 8,
        "indexer_budget": 8,
        "indexer_compress_ratio": 2,
    },
    "xlstm": {"hidden_size": 128, "embedding_dim": 128},
    "zamba": {
        "layers_block_type": ["linear_attention", "hybrid", "hybrid"],
        "attention_hidden_size": 64,
        "attention_head_dim": 16,
    },
    "zamba2": {
        "layers_block_type": ["linear_attention", "hybrid", "hybrid"],
        "n_mamba_heads": 8,
        "attention_hidden_size": 64,
        "attention_head_dim": 16,
        "adapter_rank": 8,
    },
    "zaya": {"num_experts_per_tok": 1},
}
"""What shrinking by names does not give."""

_OTHERS = """
    bart bert bert-generation big_bird bigbird_pegasus blenderbot blenderbot-small blt camembert data2vec-text
    electra ernie megatron-bert marian mbart mvp pegasus plbart prophetnet reformer rembert roberta
    roberta-prelayernorm roc_bert roformer trocr whisper xlm xlm-roberta xlm-roberta-xl xlnet xmod
    cohere_compass_text dots3_note emu3 fuyu gemma3 gemma3n gemma4 gemma4_assistant gemma4_unified
    gemma4_unified_assistant git got_ocr2 llama4 mllama moshi moss_transcribe_diarize musicgen musicgen_melody
    phi4_multimodal qwen3_5 qwen3_5_moe qwen4_exp
"""
"""Families that transformers lists among causal language models and that are none of text alone: encoders, models older
than its caches; models of several media, whose text part is a family of its own."""


def families() -> list[str]:
    """All decoder-only families of text."""
    return [name for name in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES if name not in _OTHERS.split()]


def tiny_config(family: str) -> PreTrainedConfig:
    """A configuration with one decoder layer of each kind, at least three in all."""
    default = CONFIG_MAPPING[family]()
    known = default.to_dict()
    found: dict[str, Any] = {}
    for size, names in _SIZES.items():
        for name in names.split():
            there = known.get(name) is not None or name in default.attribute_map
            if there or (name in _CAN_BE_NONE and hasattr(default, name)):
                found[name] = size
    if "qk_rope_head_dim" in found and "head_dim" in found:
        found["head_dim"] = found["qk_rope_head_dim"]
    if "kv_lora_rank" in found and "num_key_value_heads" in found:
        found["num_key_value_heads"] = 4
    layers = 3
    for name in _KINDS:
        kinds = list(dict.fromkeys(getattr(default, name, None) or ()))
        if kinds and name in known:
            layers = max(layers, len(kinds))
            found[name] = (kinds * layers)[:layers]
    found |= {name: layers for name in _LAYERS if hasattr(default, name)}
    if mlp_kinds := known.get("mlp_layer_types"):
        found["mlp_layer_types"] = (list(dict.fromkeys(mlp_kinds)) * layers)[:layers]
    found |= _EXTRA.get(family, {})
    return CONFIG_MAPPING[family](**{name: value for name, value in found.items() if not _is_derived(default, name)})


def tiny_model(family: str, seed: int = 0) -> PreTrainedModel:
    """A random model in float32, in evaluation mode."""
    state = torch.random.get_rng_state()
    torch.manual_seed(seed)
    try:
        model = AutoModelForCausalLM.from_config(tiny_config(family), dtype=torch.float32)
    finally:
        torch.random.set_rng_state(state)
    return model.eval()


def _is_derived(config: PreTrainedConfig, name: str) -> bool:
    attribute = getattr(type(config), name, None)
    return isinstance(attribute, property) and attribute.fset is None
