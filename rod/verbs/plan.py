"""``rod plan``: memory, speed and strategy of a run, before it starts."""

from typing import Any

from lightning.pytorch import LightningDataModule

from datamodules.errors import InputError
from datamodules.mllr.twin_data import TwinData
from datamodules.mogu.response_data import ResponderData
from datamodules.prompts.contrast_data import ContrastData
from datamodules.training.supervised import SupervisedData
from llm_modules.backbone.loading import read_config
from llm_modules.causal_lm import CausalLM
from llm_modules.mogu.module import MoGU
from rod import classes
from rod.config_files import listed
from rod.plan.devices import Device, DeviceName, device_of
from rod.plan.memory import USABLE, CountedFit, Fit, Generation, Parts, Strategy, choose, count_generation

classes.load()

_HALF = {"bfloat16", "float16"}
_MIXED = {"bf16-mixed", "16-mixed", "bf16", "16"}


def run(
    model: CausalLM,
    data: LightningDataModule | None = None,
    trainer: dict[str, Any] | None = None,
    steer: Any = None,
    evaluate: Any = None,
    seed_everything: Any = 0,
    device: DeviceName = "H100",
    devices: int = 1,
    length: int | None = None,
    tokens: float = 1e8,
    share: float = 0.4,
) -> None:
    """Count what a configuration needs on a device: memory by part, tokens per second, hours, what fits.

    Only ``config.json`` of the backbone is read. Sizes and operations are counted on torch's meta device; speed is
    what the device's ceilings allow, times ``share``. A training set gives the plan of a fit, pairs of prompts
    (a direction, a search for robust modules) that of reading them, any other data that of generation.

    Args:
        model: Of the configuration.
        data: Of the configuration.
        trainer: Of the configuration; its precision counts.
        steer: Of the configuration; ignored.
        evaluate: Of the configuration; ignored.
        seed_everything: Of the configuration; ignored.
        device: The kind of device. The CPU is this machine's, measured.
        devices: Their number.
        length: Tokens of a row in training, by default ``data.max_length`` or 1,024; of a prompt otherwise, by
            default 512.
        tokens: Tokens to train on, to read or to generate, for the hours.
        share: Share of the device's ceilings that is reached (ours).

    Raises:
        InputError: A number is out of range, or the model is one that is not planned.
    """
    for name, value in (("devices", devices), ("length", length), ("tokens", tokens), ("share", share)):
        if value is not None and not value > 0:
            raise InputError(f"--{name}: must be more than 0, is {value}")
    if share > 1:
        raise InputError(f"--share: must be at most 1, is {share:g}")
    if isinstance(model, MoGU):
        raise InputError("rod plan: the routers of MoGU are not planned; plan its responders, which take more memory")
    if model.quantization is not None:
        raise InputError("rod plan: model.quantization is not planned; leave it out to see the plan without")
    config = read_config(model.backbone, model.revision, model.trust_remote_code)
    ceilings = device_of(device)
    print(f"{model.model_id} on {devices} x {device} ({ceilings.memory / 1e9:,.0f} GB)")
    if isinstance(data, SupervisedData):
        fit = _fit(model, config, data, trainer or {}, length)
        counted, strategy, options = choose(fit, devices, ceilings.memory)
        _show_fit(counted, strategy, options, devices, ceilings, tokens, share)
    else:
        settings, reads = model.generation, isinstance(data, ContrastData)
        dtype = _dtype(model, trainer or {})
        found = count_generation(config, dtype, length or 512, 0 if reads else settings.max_new_tokens)
        rate = ceilings.half if dtype in _HALF or _is_mixed(trainer or {}) else ceilings.single
        if reads:
            _show_reading(found, devices, ceilings, rate, tokens, share)
        else:
            _show_generation(found, settings.slots, devices, ceilings, rate, tokens, share)
        if isinstance(data, TwinData) and _has_pilot(trainer or {}):
            print(f"the search keeps its pilot in the host's memory: {found.weights / 1e9:,.2f} GB more")


def _fit(model: CausalLM, config: Any, data: SupervisedData, trainer: dict[str, Any], length: int | None) -> Fit:
    length = length or data.max_length or min(1024, data.max_tokens or 1024)
    rows = data.batch_size or max(1, (data.max_tokens or length) // length)
    return Fit(
        config,
        model.optimizer,
        rows * (2 if isinstance(data, ResponderData) else 1),
        length,
        _dtype(model, trainer),
        _is_mixed(trainer),
        model.peft,
        model.activation_checkpointing,
    )


def _dtype(model: CausalLM, trainer: dict[str, Any]) -> str:
    """Type of the weights, as the trainer's precision makes it."""
    return {"bf16-true": "bfloat16", "16-true": "float16"}.get(str(trainer.get("precision")), model.weights_dtype)


def _is_mixed(trainer: dict[str, Any]) -> bool:
    return str(trainer.get("precision")) in _MIXED


def _show_fit(
    counted: CountedFit,
    strategy: Strategy,
    options: list[str],
    devices: int,
    ceilings: Device,
    tokens: float,
    share: float,
) -> None:
    fit = counted.fit
    parts = counted.parts(strategy, devices)
    print(
        f"fit of batches of {fit.rows:,} x {fit.length:,} tokens on each device, {counted.trained / 1e9:.3g} GB trained"
    )
    _show(parts, ceilings)
    if parts.total > USABLE * ceilings.memory:
        remedies = ["a smaller --data.batch_size", "more devices"]
        remedies += [] if fit.peft is not None else ["an adapter (--config model/lora)"]
        print(f"does not fit, with {' '.join([strategy, *options])}; take {', '.join(remedies)}")
    else:
        fragment = [] if strategy == "one device" else [f"--config {strategy}"]
        print(f"take: {' '.join([*fragment, *options]) or 'the configuration as it is'}")
    rows = counted.most_rows(strategy, devices, ceilings.memory)
    free = USABLE * ceilings.memory - parts.total + parts.activations
    print(
        f"largest batch: {rows:,} rows of {fit.length:,} tokens; "
        f"longest row: {max(0, int(fit.length * free / parts.activations)):,} tokens with {fit.rows:,} rows"
    )
    is_half = fit.mixed or fit.dtype in _HALF
    rate = share * (ceilings.half if is_half else ceilings.single)
    speed = devices * fit.length * rate / counted.operations()
    print(f"operations: {counted.operations() / fit.length / 1e9:.3g} G a token")
    _show_speed(speed, tokens, share)


def _has_pilot(trainer: dict[str, Any]) -> bool:
    callbacks = [one for one in listed(trainer.get("callbacks")) if isinstance(one, dict)]
    return any((callback.get("init_args") or {}).get("pilot") for callback in callbacks)


def _show_reading(found: Generation, devices: int, ceilings: Device, rate: float, tokens: float, share: float) -> None:
    print(f"reads prompts of {found.prompt:,} tokens, generates nothing")
    _show(found.parts(0), ceilings)
    if found.parts(0).total > USABLE * ceilings.memory:
        print("does not fit: take another device")
        return
    _show_speed(devices * share * rate / found.operations, tokens, share)


def _show_generation(
    found: Generation, slots: int, devices: int, ceilings: Device, rate: float, tokens: float, share: float
) -> None:
    print(f"generation in {slots:,} slots, prompts of {found.prompt:,} and up to {found.new:,} new tokens")
    _show(found.parts(slots), ceilings)
    most = found.most_slots(ceilings.memory)
    if most < 1:
        print("does not fit: take a sharded model (--config trainer/fsdp), fewer new tokens or another device")
        return
    print(f"largest: model.generation.slots {most:,}")
    speed = found.tokens_per_second(min(slots, most), share * ceilings.bandwidth, share * rate)
    _show_speed(devices * speed, tokens, share)


def _show(parts: Parts, ceilings: Device) -> None:
    for name, value in vars(parts).items():
        if value:
            print(f"  {name.replace('_', ' '):<16} {value / 1e9:10,.2f} GB")
    print(f"  {'total':<16} {parts.total / 1e9:10,.2f} GB of {USABLE * ceilings.memory / 1e9:,.2f} to plan with")


def _show_speed(speed: float, tokens: float, share: float) -> None:
    print(
        f"speed: {speed:,.0f} tokens/s, {tokens / speed / 3600:,.2g} hours for {tokens:,.0f} tokens, "
        f"if {share:.0%} of the ceilings are reached"
    )
