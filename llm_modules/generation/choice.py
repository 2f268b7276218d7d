"""Which engine generates for a model."""

from collections.abc import Collection, Sequence

from lightning.pytorch.utilities import rank_zero_warn
from peft import PeftModel
from transformers import PreTrainedModel

from datamodules.errors import InputError
from llm_modules.generation.engine import GenerationEngine
from llm_modules.generation.generator import Generator
from llm_modules.generation.interface import ELSEWHERE, EngineName, GenerationSettings
from llm_modules.generation.prefill import takes_no_cache
from llm_modules.generation.transformers_engine import TransformersGenerator


def check_engine(engine: EngineName, able: Sequence[EngineName], owner: str, why: str = "") -> None:
    """Raise InputError if ``owner``, a LightningModule that the engines ``able`` can serve, is to use another one."""
    if engine not in able:
        names = " or ".join(able)
        raise InputError(
            f"model.generation.engine: {owner} cannot generate with {engine}"
            + (f", the engine of {why}; it needs a model for {names}" if why else f"; use {names}")
        )


def fitting_engine(family: str, able: Sequence[EngineName], owner: str) -> EngineName:
    """``slots``, or with a warning ``transformers`` for a family that takes no cache; InputError as `check_engine`."""
    if not takes_no_cache(family):
        return "slots"
    check_engine("transformers", able, owner, f"a model of the family '{family}', which takes no cache that slots hold")
    rank_zero_warn(
        f"models of the family '{family}' take no cache that slots could hold, so transformers generates; "
        "model.generation.engine: transformers says so without this warning"
    )
    return "transformers"


def make_engine(
    name: EngineName,
    model: PreTrainedModel | PeftModel,
    settings: GenerationSettings,
    *,
    pad_id: int,
    eos_ids: Collection[int],
    synced: bool,
) -> GenerationEngine:
    """The engine for a model of this process; arguments as in `Generator`.

    InputError if it takes no sharded model, or is one of `ELSEWHERE`.
    """
    if name in ELSEWHERE:
        raise InputError(
            f"model.generation.engine: {name} generates in predict, test and validate, with weights that are in files; "
            "use slots"
        )
    if name == "slots":
        return Generator(model, settings, pad_id=pad_id, eos_ids=eos_ids, synced=synced)
    if synced:
        raise InputError(
            "model.generation.engine: transformers does not generate with a sharded model; use slots, or the strategy "
            "ddp"
        )
    return TransformersGenerator(model, settings, pad_id=pad_id, eos_ids=eos_ids)
