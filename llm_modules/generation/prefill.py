"""How a model reads prompts before they are decoded: as one padded batch, into a cache."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, get_args

import transformers
from torch import Tensor
from transformers import Cache, DynamicCache, PreTrainedModel
from transformers.cache_utils import (
    CacheLayerMixin,
    DynamicLayer,
    DynamicSlidingWindowLayer,
    LinearAttentionAndFullAttentionLayer,
    LinearAttentionAndSlidingWindowAttentionLayer,
    LinearAttentionCacheLayerMixin,
    LinearAttentionLayer,
)
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from datamodules.errors import InputError
from datamodules.padding import pad_prompts
from llm_modules.backbone.architecture import inner_decoder
from llm_modules.generation.slot_cache import SlotCache

CACHES = ("cache", "past_key_values", "cache_params")
"""The arguments by which models take a cache: the name since transformers 5.24, and those before it."""


def cache_of(model: PreTrainedModel) -> tuple[str, Callable[[], Cache]]:
    """The argument by which a model takes its cache, and a function that makes an empty one for prompts.

    Layers with a sliding window keep all columns: one that had dropped old columns could not take a new row. The
    model's mask still limits the window. InputError if the model is not decoder-only, or takes no `Cache`.
    """
    name, own = _taken(inner_decoder(model).forward)
    if model.config.is_encoder_decoder or not issubclass(own, Cache):
        raise InputError(
            f"{type(model).__name__} cannot generate in slots: it must be decoder-only and take a cache of "
            "transformers; set model.generation.engine: transformers"
        )
    if own not in (Cache, DynamicCache):
        return name, own

    def make() -> Cache:
        cache = DynamicCache(config=model.config)
        for index, layer in enumerate(cache.layers):
            if type(layer) is DynamicSlidingWindowLayer:
                cache.layers[index] = DynamicLayer()
            elif type(layer) is LinearAttentionAndSlidingWindowAttentionLayer:
                cache.layers[index] = LinearAttentionAndFullAttentionLayer(layer.number_of_states)
        if not SlotCache.holds(cache):
            return DynamicCache(config=model.config)
        return cache

    return name, make


def _taken(forward: Callable[..., object]) -> tuple[str, type]:
    """The argument by which a model's ``forward`` takes a cache, and its class; no name and ``object`` without one."""
    parameters = inspect.signature(forward).parameters
    for name in CACHES:
        if name in parameters:
            hints = get_args(parameters[name].annotation)
            return name, next((hint for hint in hints if isinstance(hint, type) and hint is not type(None)), Cache)
    return "", object


def cache_in(arguments: Mapping[str, Any]) -> Cache | None:
    """The cache among the arguments of a call of a model, under any of its names."""
    return next((arguments[name] for name in CACHES if arguments.get(name) is not None), None)


def takes_cache(forward: Callable[..., object]) -> bool:
    """Whether a model's ``forward`` takes a `Cache`, by its signature; xlstm has a class of its own, that is none."""
    return issubclass(_taken(forward)[1], Cache)


def takes_no_cache(family: str) -> bool:
    """Whether models of a family (``model_type``) take no `Cache`, by the signature of its class; no weights needed.

    False for families that transformers itself does not have: their class is known once the model is loaded.
    """
    cls = getattr(transformers, MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.get(family, ""), None)
    return cls is not None and not takes_cache(cls.forward)


def pads_prompts(model: PreTrainedModel) -> bool:
    """Whether prompts of several lengths can be read together: padding enters nothing that the model keeps."""
    try:
        cache = cache_of(model)[1]()
    except InputError:
        return False
    return SlotCache.holds(cache) and not has_states(cache)


def has_states(cache: Cache) -> bool:
    """Whether a cache holds more than columns; padding of a prompt may then change what it holds."""
    return any(isinstance(layer, LinearAttentionLayer) for layer in cache.layers)


def is_empty(cache: Cache) -> bool:
    """Whether a cache has seen no token yet, so that the coming pass reads prompts."""
    if any(isinstance(layer, CacheLayerMixin) for layer in cache.layers):
        return int(cache.get_seq_length()) == 0
    states = [layer for layer in cache.layers if isinstance(layer, LinearAttentionCacheLayerMixin)]
    return not any(any(layer.has_previous_state.values()) for layer in states)


def left_pad(prompts: Sequence[Sequence[int]], pad_id: int) -> tuple[Tensor, Tensor, Tensor]:
    """Pad prompts on the left; return token ids, mask (bool, true at tokens) and positions, each (prompts, seq)."""
    ids, mask = pad_prompts(prompts, pad_id, "left")
    return ids, mask.bool(), (mask.cumsum(dim=1) - 1).clamp(min=0)
