"""MoGU folders for programs that only know transformers. Importing this module registers the auto classes.

::

    import llm_modules.mogu.serving
    model = AutoModelForCausalLM.from_pretrained("runs/mogu/mogu")
    model.generate(...)

``generate`` of transformers decodes all rows of a batch in step, so mode ``first_m`` works as ``keep_cache`` here;
`llm_modules.mogu.model.MoGUModel.generate` has all modes. Half of this module only finds out where an answer begins.
Without it every token would be mixed, which costs the miniature 6 points of maths (mode ``always`` .923,
``keep_cache`` .981 in docs/evidence/mogu.md).
"""

from copy import deepcopy
from pathlib import Path
from threading import RLock
from typing import Any, get_args

import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel

from datamodules.errors import InputError
from llm_modules.backbone.loading import DType
from llm_modules.generation.prefill import cache_in
from llm_modules.mogu.config import FORCED, Mode, check_mode
from llm_modules.mogu.folder import MODEL_TYPE
from llm_modules.mogu.model import MoGUModel

_FOR_BASE = {
    *("dtype", "attn_implementation", "quantization_config", "device_map", "trust_remote_code", "use_safetensors"),
    *("cache_dir", "force_download", "local_files_only", "proxies", "token"),
}


class MoGUConfig(PreTrainedConfig):
    """The content of a MoGU folder's ``config.json``: its type. Everything else is in ``mogu.json``."""

    model_type = MODEL_TYPE

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **options: Any) -> Any:
        """As in transformers, but no option counts as used: all of them are for the base."""
        if not options.pop("return_unused_kwargs", False):
            return super().from_dict(config_dict, **options)
        return super().from_dict(config_dict), options


class MoGUForCausalLM(PreTrainedModel):
    """The class that the auto classes find; ``from_pretrained`` returns the base model with the mixtures in it."""

    config_class = MoGUConfig

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *_args: Any, **options: Any) -> Any:
        """The base of a MoGU folder, whose answers begin with the mixture; ``options`` are for loading the base."""
        mogu = MoGUModel.from_pretrained(Path(pretrained_model_name_or_path), **base_options(options))
        return mix_first_tokens(mogu, mogu.mode, mogu.m)


def base_options(options: dict[str, Any]) -> dict[str, Any]:
    """The options of an auto class that are for the loader of the base; InputError if one cannot be honoured."""
    # A configuration that was loaded before has taken dtype and attention; the token is with an adapter's options.
    config, adapter = options.get("config"), options.get("adapter_kwargs") or {}
    given = {
        "dtype": options.get("torch_dtype") or getattr(config, "dtype", None),
        "attn_implementation": getattr(config, "_attn_implementation", None),
    }
    own = ("config", "adapter_kwargs", "torch_dtype", "name_or_path")
    for name, value in [*adapter.items(), *options.items()]:
        if value is not None and name not in own and not name.startswith("_"):
            given[name] = value
    if unknown := sorted(given.keys() - _FOR_BASE):
        raise InputError(
            f"{unknown[0]}: a MoGU folder cannot be loaded with this option, only with {', '.join(sorted(_FOR_BASE))}; "
            "load the base with it and give that to MoGUModel.from_pretrained(folder, base)"
        )
    given["dtype"] = str(given["dtype"] or "auto").removeprefix("torch.")
    if given["dtype"] not in get_args(DType):
        raise InputError(f"dtype: '{given['dtype']}' is unknown; use one of {', '.join(get_args(DType))}")
    return {name: value for name, value in given.items() if value is not None}


def mix_first_tokens(mogu: MoGUModel, mode: Mode, m: int) -> PreTrainedModel:
    """Make the model's own ``generate`` mix the first tokens of every answer; returns it with ``mogu`` as attribute.

    A pass outside of ``generate`` cannot know where an answer begins: it is mixed whole, unless the mode is ``off``.
    """
    served = _Served(mogu, mode, m)
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


class _Served:
    """``generate`` of a served model. Positions decide which tokens of a pass are mixed, however passes are cut.

    The token at position p gives answer token p + 1 - (length of the prompt), and is mixed if that number is below m:
    the whole prompt is. The prompt ends where the input of ``generate`` ends, after all that a cache holds. The rule
    is the same with a cache and without, in chunks, with an assistant, and in beams (each is a row).
    """

    def __init__(self, mogu: MoGUModel, mode: Mode, m: int) -> None:
        check_mode(mode, m)
        self.mogu, self.mode, self.m = mogu, mode, m
        self.end: int | None = None
        self.lock = RLock()

    def __deepcopy__(self, memo: dict[int, Any]) -> "_Served":
        """For a copied model, with a lock of its own."""
        return _Served(deepcopy(self.mogu, memo), self.mode, self.m)

    def generate(self, inputs: Tensor | None = None, *args: Any, **options: Any) -> Any:
        """As in transformers; every call begins an answer. Threads wait for each other."""
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
        """As in transformers, which calls it before every pass (with these names); sets the tokens to mix."""
        model: Any = self.mogu.model
        if inputs_embeds is not None:
            kwargs["inputs_embeds"] = inputs_embeds
        inputs: dict[str, Any] = type(model).prepare_inputs_for_generation(model, input_ids, **kwargs)
        if self.end is not None:
            embeds, cache = inputs.get("inputs_embeds"), cache_in(inputs)
            tokens = inputs["input_ids"] if embeds is None else embeds
            mixed = self.end - (int(cache.get_seq_length()) if cache is not None else 0)
            control, seq = self.mogu.control, tokens.shape[1]
            control.active = mixed > 0
            control.rows = None if mixed >= seq else torch.arange(seq, device=tokens.device)[None] < mixed
        return inputs

    def refuse_continuous_batching(self, *_args: Any, **_options: Any) -> None:
        """Refuse: one pass would hold pieces of many answers."""
        raise InputError("generate: a MoGU cannot be served by continuous batching; call generate for a padded batch")


def prompt_length(inputs: Tensor | None, options: dict[str, Any]) -> int:
    """Tokens before the answer of a call of ``generate``, including padding and the content of its cache."""
    cache, mask = cache_in(options), options.get("attention_mask")
    given = [t for t in (options.get("inputs_embeds"), inputs, options.get("input_ids")) if t is not None]
    length = given[0].shape[1] if given else 1  # without input, transformers begins with the token for that
    # With a cache, the mask covers all tokens; the input is all of them or only the new ones.
    whole = max(length, mask.shape[1]) if mask is not None else length
    held = int(cache.get_seq_length()) if cache is not None else 0
    return whole if whole > held else held + length


AutoConfig.register(MODEL_TYPE, MoGUConfig, exist_ok=True)
AutoModelForCausalLM.register(MoGUConfig, MoGUForCausalLM, exist_ok=True)
