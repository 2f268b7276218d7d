"""``generate`` of transformers with the mixture for the first tokens of every answer."""

from copy import deepcopy
from threading import RLock
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from datamodules.errors import InputError
from llm_modules.mogu.config import FORCED, Mode, check_mode
from llm_modules.mogu.model import MoGUModel


def mix_first_tokens(mogu: MoGUModel, mode: Mode, m: int) -> PreTrainedModel:
    """Let the model's own ``generate`` mix the first tokens of every answer, and refuse what it cannot do.

    A pass outside of ``generate`` cannot know where an answer begins: it is mixed whole, unless the mode is ``off``.

    Returns:
        The model. ``mogu`` is its attribute; within ``mogu.base()`` it is the base.
    """
    served = Served(mogu, mode, m)
    mogu.control.active, mogu.control.forced = mode != "off", FORCED.get(mode)
    vars(mogu.model).update(
        mogu=mogu,
        generate=served.generate,
        prepare_inputs_for_generation=served.prepare_inputs,
        init_continuous_batching=served.refuse_continuous_batching,
        merge=mogu.merge,
        merge_and_unload=mogu.merge,
    )
    return mogu.model


class Served:
    """A served model's ``generate``: what of a pass is mixed follows from positions, however passes are cut.

    The token at position p gives answer token p + 1 less the prompt's length. It is mixed where that is less than m,
    so that the prompt is too. The prompt ends where the input of ``generate`` does, behind all that a cache holds. With
    a cache, without, in chunks, with an assistant or in beams (each is mixed as a row) it is the same.
    """

    def __init__(self, mogu: MoGUModel, mode: Mode, m: int) -> None:
        """Take a MoGU, ``mode`` and ``m`` as in its folder."""
        check_mode(mode, m)
        self.mogu, self.mode, self.m = mogu, mode, m
        self.end: int | None = None
        self.lock = RLock()

    def __deepcopy__(self, memo: dict[int, Any]) -> "Served":
        """Of a copied model, with a lock of its own."""
        return Served(deepcopy(self.mogu, memo), self.mode, self.m)

    def generate(self, inputs: Tensor | None = None, *args: Any, **options: Any) -> Any:
        """As of transformers; every call begins an answer. Threads wait for each other."""
        model: Any = self.mogu.model
        control = self.mogu.control
        with self.lock:
            if self.mode == "off":
                with self.mogu.base():
                    return type(model).generate(model, inputs, *args, **options)
            if self.mode not in ("first_m", "keep_cache") or not control.active:
                return type(model).generate(model, inputs, *args, **options)
            before, self.end = self.end, prompt_length(inputs, options) + self.m - 1
            try:
                with control.set(forced=control.forced, record=control.record):
                    return type(model).generate(model, inputs, *args, **options)
            finally:
                self.end = before

    def prepare_inputs(self, input_ids: Tensor, inputs_embeds: Tensor | None = None, **kwargs: Any) -> dict[str, Any]:
        """As of transformers, which asks for them before every pass and reads these names; sets what is mixed."""
        model: Any = self.mogu.model
        if inputs_embeds is not None:
            kwargs["inputs_embeds"] = inputs_embeds
        inputs: dict[str, Any] = type(model).prepare_inputs_for_generation(model, input_ids, **kwargs)
        if self.end is not None:
            embeds, cache = inputs.get("inputs_embeds"), inputs.get("past_key_values")
            tokens = inputs["input_ids"] if embeds is None else embeds
            mixed = self.end - (int(cache.get_seq_length()) if cache is not None else 0)
            control, seq = self.mogu.control, tokens.shape[1]
            control.active = mixed > 0
            control.rows = None if mixed >= seq else torch.arange(seq, device=tokens.device)[None] < mixed
        return inputs

    def refuse_continuous_batching(self, *_args: Any, **_options: Any) -> None:
        """Its passes hold pieces of many answers.

        Raises:
            InputError: Always.
        """
        raise InputError("generate: a MoGU cannot be served by continuous batching; call generate for a padded batch")


def prompt_length(inputs: Tensor | None, options: dict[str, Any]) -> int:
    """Tokens before the answer of a call of ``generate``, padding and what its cache holds among them."""
    cache, mask = options.get("past_key_values"), options.get("attention_mask")
    given = [t for t in (options.get("inputs_embeds"), inputs, options.get("input_ids")) if t is not None]
    length = given[0].shape[1] if given else 1  # without input, transformers begins with the token for that
    # With a cache, the mask is over all and the input may be all of it or only what is new.
    whole = max(length, mask.shape[1]) if mask is not None else length
    held = int(cache.get_seq_length()) if cache is not None else 0
    return whole if whole > held else held + length
