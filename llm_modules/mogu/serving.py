"""A MoGU folder for programs that know transformers only: importing this module is all that they need.

    import llm_modules.mogu.serving
    model = AutoModelForCausalLM.from_pretrained("runs/mogu/mogu")
    model.generate(...)

The base is loaded as it is, without remote code. ``generate`` of transformers decodes a batch in step and keeps its
cache, so that mode ``first_m`` works as ``keep_cache``; `MoGUModel.generate` has all modes.
"""

from pathlib import Path
from typing import Any

from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel

from llm_modules.mogu.config import FORCED, Mode, check_mode
from llm_modules.mogu.model import MoGUModel
from llm_modules.mogu.save import MODEL_TYPE, load_mogu


class MoGUConfig(PreTrainedConfig):
    """What ``config.json`` of a MoGU folder says: its type. Everything else is in ``mogu.json``."""

    model_type = MODEL_TYPE


class MoGUForCausalLM(PreTrainedModel):
    """What the auto classes find; ``from_pretrained`` gives the base model with the mixtures in it."""

    config_class = MoGUConfig

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *_args: Any, **options: Any) -> Any:
        """The base model that the folder names, mixed for the first tokens of everything that it generates.

        Args:
            pretrained_model_name_or_path: A MoGU folder.
            options: ``dtype`` and ``attn_implementation``; others are left to their defaults.
        """
        known = {key: options[key] for key in ("dtype", "attn_implementation") if options.get(key) is not None}
        if not isinstance(known.get("dtype", ""), str):
            known["dtype"] = str(known["dtype"]).removeprefix("torch.")
        mogu, saved = load_mogu(Path(pretrained_model_name_or_path), **known)
        return mix_first_tokens(mogu, saved.mode, saved.m)


def mix_first_tokens(mogu: MoGUModel, mode: Mode, m: int) -> PreTrainedModel:
    """Let the model itself tell its first tokens: a pass with an empty cache begins a new batch of completions.

    Returns:
        The model, whose ``generate`` then needs no help. ``mogu`` is its attribute.
    """
    check_mode(mode, m)
    passes = 0

    def before(_model: nn.Module, _args: Any, kwargs: dict[str, Any]) -> None:
        nonlocal passes
        cache = kwargs.get("past_key_values")
        passes = 0 if cache is None or cache.get_seq_length() == 0 else passes + 1
        mogu.control.active = mode != "off" and (mode not in ("first_m", "keep_cache") or passes < m)

    mogu.control.forced = FORCED.get(mode)
    model = mogu.model
    model.register_forward_pre_hook(before, with_kwargs=True)
    object.__setattr__(model, "mogu", mogu)
    return model


AutoConfig.register(MODEL_TYPE, MoGUConfig, exist_ok=True)
AutoModelForCausalLM.register(MoGUConfig, MoGUForCausalLM, exist_ok=True)
