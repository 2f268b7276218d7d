"""A MoGU folder for programs that know transformers only: importing this module is all that they need.

    import llm_modules.mogu.serving
    model = AutoModelForCausalLM.from_pretrained("runs/mogu/mogu")
    model.generate(...)

``generate`` of transformers decodes a batch in step, so that mode ``first_m`` works as ``keep_cache``;
`MoGUModel.generate` has all modes.
"""

from pathlib import Path
from typing import Any, get_args

from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel

from datamodules.errors import InputError
from llm_modules.backbone.loading import DType
from llm_modules.mogu.first_tokens import mix_first_tokens
from llm_modules.mogu.save import MODEL_TYPE, load_mogu

_FOR_BASE = {
    *("dtype", "attn_implementation", "quantization_config", "device_map", "trust_remote_code", "use_safetensors"),
    *("cache_dir", "force_download", "local_files_only", "proxies", "token"),
}


class MoGUConfig(PreTrainedConfig):
    """What ``config.json`` of a MoGU folder says: its type. Everything else is in ``mogu.json``."""

    model_type = MODEL_TYPE

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **options: Any) -> Any:
        """As usual, but whoever asks for the options that it has no use for gets all: they are for the base."""
        if not options.pop("return_unused_kwargs", False):
            return super().from_dict(config_dict, **options)
        return super().from_dict(config_dict), options


class MoGUForCausalLM(PreTrainedModel):
    """What the auto classes find; ``from_pretrained`` gives the base model with the mixtures in it."""

    config_class = MoGUConfig

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *_args: Any, **options: Any) -> Any:
        """The base model that the folder names, mixed for the first tokens of everything that it generates.

        Args:
            pretrained_model_name_or_path: A MoGU folder.
            options: How transformers is to load the base: ``dtype`` (also ``torch_dtype``), ``attn_implementation``,
                ``quantization_config``, ``device_map``, ``trust_remote_code``, where and how to download.

        Raises:
            InputError: The folder is broken, or it cannot be loaded with an option.
        """
        mogu, saved = load_mogu(Path(pretrained_model_name_or_path), **base_options(options))
        return mix_first_tokens(mogu, saved.mode, saved.m)


def base_options(options: dict[str, Any]) -> dict[str, Any]:
    """What of the options that an auto class hands over is for the loader of the base.

    Raises:
        InputError: One is not, or is no dtype.
    """
    # A configuration that was loaded before the model has taken two of them; the token is among those of an adapter.
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
        raise InputError(f"dtype: '{given['dtype']}' is none of {', '.join(get_args(DType))}")
    return {name: value for name, value in given.items() if value is not None}


AutoConfig.register(MODEL_TYPE, MoGUConfig, exist_ok=True)
AutoModelForCausalLM.register(MoGUConfig, MoGUForCausalLM, exist_ok=True)
