"""Backbones with weights of 4 or 8 bits; adapters on them stay in float32 (QLoRA, arXiv 2305.14314)."""

from typing import Literal

import torch
from transformers import BitsAndBytesConfig
from transformers.utils.quantization_config import QuantizationConfigMixin

Quantization = Literal["4bit", "8bit"] | QuantizationConfigMixin
"""``4bit`` (NF4 with double quantisation, computed in bfloat16: QLoRA, sec. 3), ``8bit`` (LLM.int8()), both by
bitsandbytes, or a configuration of transformers such as ``TorchAoConfig``."""


def quantization_config(quantization: Quantization) -> QuantizationConfigMixin:
    """The configuration that transformers takes."""
    if quantization == "4bit":
        return BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=torch.bfloat16,
        )
    return BitsAndBytesConfig(load_in_8bit=True) if quantization == "8bit" else quantization
