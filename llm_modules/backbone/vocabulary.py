"""Special tokens of a model and its tokenizer, and whether the two belong together."""

import warnings

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from datamodules.errors import InputError
from datamodules.prompts.chat_template import turn_end_id
from llm_modules.backbone.architecture import embedding_rows


def end_ids(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, name: str) -> set[int]:
    """Ids that end a completion: those of the generation config and the tokenizer, and the one that ends a turn.

    Without the last one answers would run on into invented turns; a warning, with ``name``, tells where it was missing.
    """
    ids = _configured_end_ids(model, tokenizer)
    turn_end = turn_end_id(tokenizer)
    if turn_end is None or turn_end in ids:
        return ids
    warnings.warn(
        f"the chat template of '{name}' ends an assistant turn with {tokenizer.convert_ids_to_tokens(turn_end)!r}, "
        "which is no end token of the model; completions end there, too",
        stacklevel=2,
    )
    return ids | {turn_end}


def required_end_ids(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, name: str) -> set[int]:
    """As `end_ids`; raises ``InputError`` if there is none."""
    ids = end_ids(model, tokenizer, name)
    if not ids:
        raise InputError(f"model.tokenizer: '{name}' has no end-of-sequence token, so no completion would end")
    return ids


def padding_id(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> int:
    """The tokenizer's padding token, or an end-of-sequence token if it has none."""
    pad = tokenizer.pad_token_id
    return int(pad if pad is not None else min(_configured_end_ids(model, tokenizer), default=0))


def check_vocabulary(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, backbone: str, name: str) -> None:
    """Raise ``InputError``, with both names, if the model has no embedding for a token."""
    rows = embedding_rows(model)
    token, top = max(tokenizer.get_vocab().items(), key=lambda item: item[1])
    if top >= rows:
        raise InputError(
            f"model.tokenizer: '{name}' has token {token!r} with id {top}, and the model '{backbone}' knows ids below "
            f"{rows}; use the tokenizer that came with the checkpoint"
        )


def _configured_end_ids(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> set[int]:
    # The generation config may have more of them than the tokenizer (Llama 3, Qwen).
    configured = getattr(model.generation_config, "eos_token_id", None)
    ids = {*(configured if isinstance(configured, list) else [configured]), tokenizer.eos_token_id}
    return {int(token) for token in ids if token is not None}
