"""How a model reads prompts before they are decoded: as one padded batch, into a cache."""

import inspect
from collections.abc import Callable, Sequence
from typing import get_args

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

from datamodules.errors import InputError
from datamodules.padding import pad_prompts
from llm_modules.backbone.architecture import inner_decoder
from llm_modules.generation.slot_cache import SlotCache


def cache_of(model: PreTrainedModel) -> tuple[str, Callable[[], Cache]]:
    """The argument by which a model takes its cache, and a function that makes an empty one for prompts.

    Layers with a sliding window keep all columns: one that had dropped old columns could not take a new row. The
    model's mask still limits the window. InputError if the model is not decoder-only, or takes no `Cache`.
    """
    takes = inspect.signature(inner_decoder(model).forward).parameters
    name = next((name for name in ("past_key_values", "cache_params") if name in takes), "")
    hints = get_args(takes[name].annotation) if name else ()
    own = next((hint for hint in hints if isinstance(hint, type) and hint is not type(None)), Cache)
    if model.config.is_encoder_decoder or not name or not issubclass(own, Cache):
        raise InputError(
            f"{type(model).__name__} cannot generate here: it must be decoder-only and take a cache of transformers"
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
