"""PEFT adapters: add, load and switch off."""

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError
from tempfile import TemporaryDirectory
from typing import Any, cast

import torch
from peft import PeftConfig, PeftModel, get_peft_model, get_peft_model_state_dict
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils import load_peft_weights
from safetensors import SafetensorError
from torch import nn
from transformers import PreTrainedModel

from datamodules.errors import InputError, first_line
from llm_modules.backbone.architecture import embedding_rows, linear_names
from llm_modules.backbone.checksums import check_folder
from llm_modules.backbone.loading import same_checkpoint
from llm_modules.backbone.modes import evaluation_mode, same_trainable

_STATE_SPACE = {"falcon_h1", "mamba", "mamba2", "falcon_mamba", "nemotron_h"}
"""Families whose state-space modules PEFT refuses to adapt."""
_TABLE = re.compile(
    r"((?P<input>embed_tokens|wte|word_embeddings|embed_in)|(?P<output>lm_head|embed_out))"
    r"\.((token_adapter\.)?(base_layer\.)?weight|(?P<change>lora_embedding_A|lora_B\.weight))$"
)
"""Embeddings and output heads among the tensors of an adapter, whole or as a change that has their number of rows."""
_OTHER_LINEAR = re.compile("Router|Grouped")
_MERGE = "the adapter cannot be merged, export it with --format peft"


def add_adapter(model: PreTrainedModel, config: PeftConfig, key: str) -> PeftModel:
    """Add a new adapter to a model, in place; all other weights are frozen. ``key`` is its option, for messages.

    InputError if the method does not adapt weights (prompt learning), or a target module does not exist.
    """
    if config.is_prompt_learning:
        kind = type(config).__name__
        raise InputError(
            f"{key}: {kind} works outside of the layers; use a method that adapts weights, such as LoraConfig"
        )
    config.task_type = "CAUSAL_LM"
    _leave_out(model, config)
    try:
        adapted = get_peft_model(model, config)
    except ValueError as error:
        raise InputError(
            f"{key}: {error} The linear modules of a layer are {', '.join(linear_names(model))}."
        ) from error
    assert isinstance(adapted, PeftModel)
    return adapted


def _leave_out(model: PreTrainedModel, config: PeftConfig) -> None:
    """Narrow ``all-linear`` to modules that an adapter can be put on.

    Routers of experts are linear modules that return more than a projection, grouped ones multiply parts of it.
    State-space kernels read the weight of their output projection and never call the module.
    """
    if getattr(config, "target_modules", None) != "all-linear" or getattr(config, "exclude_modules", None):
        return
    kinds = ((name.rpartition(".")[2], module) for name, module in model.named_modules())
    names = {n for n, m in kinds if isinstance(m, nn.Linear) and _OTHER_LINEAR.search(type(m).__name__)}
    if model.config.get_text_config().model_type in _STATE_SPACE:
        names |= {"out_proj", "conv1d"}
    if names:
        vars(config)["exclude_modules"] = names


def load_adapter(model: PreTrainedModel, folder: str, backbone: str) -> PeftModel:
    """Add the adapter of a PEFT folder to a model, named ``backbone``; warn if it was made for another.

    InputError if the adapter does not fit the model, or only a part of it does.
    """
    if not Path(folder).is_dir():
        raise InputError(f"model.adapter: there is no folder '{folder}'; give one with an adapter_config.json")
    check_folder(folder, "model.adapter")
    try:
        stored = load_peft_weights(folder, device="cpu")
        _make_room(model, stored, folder)
        adapted = PeftModel.from_pretrained(model, folder, is_trainable=True)
    except InputError:
        raise
    except (OSError, ValueError, TypeError, RuntimeError, SafetensorError, UnpicklingError, EOFError) as error:
        raise InputError(f"model.adapter: '{folder}' is damaged or does not fit '{backbone}': {error}") from error
    # Whether embeddings are saved with an adapter, PEFT decides by the base, where that was when it was saved.
    choices = [get_peft_model_state_dict(adapted, save_embedding_layers=choice) for choice in ("auto", True, False)]
    wanted = next((tensors for tensors in choices if tensors.keys() == stored.keys()), choices[0])
    missing, unused = sorted(wanted.keys() - stored.keys()), sorted(stored.keys() - wanted.keys())
    if missing:
        why = (
            f"it has {unused[0]}: it was made for a model whose modules have other names"
            if unused
            else "it was made for a smaller model, or saved in part"
        )
        raise InputError(
            f"model.adapter: '{folder}' lacks {len(missing)} of {len(wanted)} weights of an adapter for '{backbone}', "
            f"first {missing[0]}; {why}"
        )
    if unused:
        raise InputError(
            f"model.adapter: '{folder}' has {len(unused)} weights for which '{backbone}' has no place, "
            f"first {unused[0]}"
        )
    # PEFT renames tensors as transformers does for old checkpoints, and leaves those out that then have no place.
    for name, tensor in wanted.items():
        tensor.copy_(stored[name])
    base = adapted.active_peft_config.base_model_name_or_path
    if base and not same_checkpoint(base, backbone):
        warnings.warn(f"model.adapter: '{folder}' was made for '{base}', and is loaded on '{backbone}'", stacklevel=2)
    return adapted


def _make_room(model: PreTrainedModel, stored: dict[str, torch.Tensor], folder: str) -> None:
    """Give a model rows for the tokens that an adapter was trained with; InputError if it lacks their weights."""
    rows, whole = 0, set()
    for name, tensor in stored.items():
        if found := _TABLE.search(name):
            rows = max(rows, tensor.shape[1 if found["change"] == "lora_embedding_A" else 0])
            whole |= set() if found["change"] else {"input" if found["input"] else "output"}
    if rows <= embedding_rows(model):
        return
    # A table that is trained as a whole is a copy: the other one, which was tied to the table before, is not stored.
    copies = getattr(PeftConfig.from_pretrained(folder), "modules_to_save", None) or ()
    copied = any(name.rpartition(".")[2] in ("embed_tokens", "lm_head") for name in copies)
    one_is_enough = model.config.get_text_config().tie_word_embeddings and not copied
    if not whole or (not one_is_enough and len(whole) < 2):
        raise InputError(
            f"model.adapter: '{folder}' was trained on a model of {rows} tokens, and lacks the weights of those that "
            f"were added to {embedding_rows(model)}: merge it into that model, or save it there with both embed_tokens "
            "and lm_head in modules_to_save"
        )
    model.resize_token_embeddings(rows, mean_resizing=False)


def merge(adapted: PeftModel) -> PreTrainedModel:
    """The model with an adapter's changes in its weights; the adapted model cannot be used any more.

    A quantised model is dequantised, with a warning: merged weights of 4 bits would be others. InputError if no weights
    give what the adapted model computes, or PEFT merges it into another model.
    """
    if getattr(adapted.get_base_model(), "is_quantized", False):
        adapted = _dequantized(adapted)
    inner: Any = adapted.get_base_model()
    config = adapted.active_peft_config
    if getattr(config, "layer_replication", None):
        raise InputError(f"{_MERGE}: the adapter's layer_replication runs the same weights with several changes")
    tables = (inner.get_input_embeddings(), inner.get_output_embeddings())
    if inner.config.get_text_config().tie_word_embeddings and any(isinstance(t, BaseTunerLayer) for t in tables):
        raise InputError(f"{_MERGE}: the adapter changes the embeddings, which this model shares with its output head")
    ids = torch.arange(64, device=inner.device)[None] * 61 % embedding_rows(inner)
    with torch.no_grad(), evaluation_mode(inner):
        before = inner(input_ids=ids, use_cache=False).logits
        merged: Any = adapted.merge_and_unload()
        after = merged(input_ids=ids, use_cache=False).logits
    # Lower precision rounds the merged weights, which moves the logits by more than many an error would.
    if before.dtype == torch.float32 and not torch.allclose(
        before, after, rtol=0, atol=1e-3 * float(before.abs().max())
    ):
        moved = float((before - after).abs().max())
        raise InputError(f"{_MERGE}: logits of the merged model differ by up to {moved:.3g} from the adapted model's")
    return cast(PreTrainedModel, merged)


def _dequantized(adapted: PeftModel) -> PeftModel:
    """The same adapter on the base in floats; InputError if transformers cannot dequantise it."""
    warnings.warn("the merged model is written dequantised: it takes the memory of the weights in floats", stacklevel=2)
    with TemporaryDirectory() as folder:
        adapted.save_pretrained(folder)
        base: Any = adapted.unload()
        try:
            return PeftModel.from_pretrained(base.dequantize(), folder)
        except NotImplementedError as error:
            # Not ours: transformers raises it for kinds of weights that it cannot turn back, such as torchao's. There
            # is no other way to ask. The user is told to export the adapter alone.
            raise InputError(f"{_MERGE}: transformers cannot dequantise its base ({first_line(error)})") from error


@contextmanager
def without_adapter(adapted: PeftModel) -> Iterator[None]:
    """Switch the adapter off within a block; ``requires_grad``, which PEFT changes, is as before afterwards."""
    with same_trainable(adapted), adapted.disable_adapter():
        yield
