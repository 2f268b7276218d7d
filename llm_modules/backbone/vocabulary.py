"""Special tokens of a model and its tokenizer, and whether the two belong together."""

from typing import cast

from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from datamodules.errors import InputError


def end_ids(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> set[int]:
    """Ids that end a completion; the generation config may have more of them than the tokenizer (Llama 3, Qwen)."""
    configured = getattr(model.generation_config, "eos_token_id", None)
    ids = {*(configured if isinstance(configured, list) else [configured]), tokenizer.eos_token_id}
    return {int(token) for token in ids if token is not None}


def required_end_ids(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, name: str) -> set[int]:
    """As `end_ids`; raises ``InputError``, with the ``name`` of the tokenizer, if there is none."""
    ids = end_ids(model, tokenizer)
    if not ids:
        raise InputError(f"model.tokenizer: '{name}' has no end-of-sequence token, so no completion would end")
    return ids


def padding_id(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> int:
    """The tokenizer's padding token, or an end-of-sequence token if it has none."""
    pad = tokenizer.pad_token_id
    return int(pad if pad is not None else min(end_ids(model, tokenizer), default=0))


def check_vocabulary(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, backbone: str, name: str) -> None:
    """Raise ``InputError``, with both names, if the model has no embedding for a token."""
    rows = cast(nn.Embedding, model.get_input_embeddings()).num_embeddings
    token, top = max(tokenizer.get_vocab().items(), key=lambda item: item[1])
    if top >= rows:
        raise InputError(
            f"model.tokenizer: '{name}' has token {token!r} with id {top}, and the model '{backbone}' knows ids below "
            f"{rows}; use the tokenizer that came with the checkpoint"
        )
