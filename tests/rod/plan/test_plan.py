"""The plan counts what a built model has, without storage, and the command tells it."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from peft import LoraConfig, get_peft_model
from transformers import DynamicCache

from datamodules.errors import InputError
from llm_modules.backbone.architecture import decoder_layers
from llm_modules.optim.muon import MuonAdamW
from llm_modules.optim.parameter_groups import named_groups
from rod.__main__ import main
from rod.plan.counting import build, bytes_of, cache_bytes, count_pass, state_bytes
from rod.plan.devices import DEVICES
from rod.plan.memory import Fit, choose, count_generation
from tests.architectures import ARCHITECTURES, CACHE
from tests.rod.test_recovery import fit_config


def lora() -> LoraConfig:
    return LoraConfig(r=3, target_modules="all-linear")


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_weights_and_adapters_have_the_bytes_of_the_built_ones(name: str) -> None:
    model = ARCHITECTURES[name]()
    planned = build(model.config)
    assert bytes_of(planned) == sum(p.numel() * 4 for p in model.parameters())
    assert {p.device.type for p in planned.parameters()} == {"meta"}
    adapted: Any = get_peft_model(model, lora())
    trained, total = adapted.get_nb_trainable_parameters()
    planned = build(model.config, peft=lora())
    if name != "qwen3_moe":  # its router is left out by the project
        assert (bytes_of(planned, trained=True), bytes_of(planned)) == (4 * trained, 4 * total)


@pytest.mark.parametrize("name", ["llama", "gemma2"])
def test_keys_and_values_have_the_bytes_of_a_cache(name: str) -> None:
    model = ARCHITECTURES[name]()
    cache = DynamicCache()
    with torch.no_grad():
        model(input_ids=torch.zeros((1, 5), dtype=torch.long), use_cache=True, **{CACHE: cache})
    layers: list[Any] = cache.layers
    held = sum(tensor.nbytes for layer in layers for tensor in (layer.keys, layer.values))
    assert 5 * cache_bytes(build(model.config)) == held


def test_a_family_that_looks_at_values_is_refused() -> None:
    model = build(ARCHITECTURES["llama"]().config)
    decoder_layers(model)[0].register_forward_hook(lambda _module, _args, out: out if out.sum().item() else None)
    with pytest.raises(InputError, match="models of type llama cannot be counted without weights"):
        count_pass(model, 1, 8)


@pytest.mark.parametrize("kind", [torch.optim.AdamW, MuonAdamW, torch.optim.SGD])
def test_the_state_of_an_optimizer_has_the_bytes_of_a_real_one(kind: Any) -> None:
    real, planned = (build_ for build_ in (ARCHITECTURES["llama"](), build(ARCHITECTURES["llama"]().config)))
    optimizer = kind(named_groups(real.named_parameters(), lambda _: ""), lr=0.1)
    for parameter in real.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    states = [value for state in optimizer.state.values() for value in state.values()]
    held = sum(value.nbytes for value in states if isinstance(value, torch.Tensor))
    assert state_bytes(kind(named_groups(planned.named_parameters(), lambda _: ""), lr=0.1)) == held


def test_operations_are_those_of_the_matrices_and_of_attention() -> None:
    model, length = build(ARCHITECTURES["llama"]().config), 16
    layers = model.model.layers
    weights = sum(p.numel() for name, p in layers.named_parameters() if "proj" in name)
    attention = 2 * 2 * length * length * 32 * 3  # two products, hidden 32, three layers
    counted = count_pass(model, 1, length)
    assert counted.forward == 2 * weights * length + attention
    assert counted.backward == 4 * weights * length + attention // 2 * 5
    adapted = count_pass(build(ARCHITECTURES["llama"]().config, peft=lora()), 1, length)
    assert adapted.backward < counted.backward, "frozen weights need no gradient"


def test_what_is_kept_grows_with_rows_and_length_and_shrinks_by_recomputing() -> None:
    model = build(ARCHITECTURES["llama"]().config)
    one, rows, longer = (count_pass(model, *size).saved for size in ((1, 16), (4, 16), (1, 64)))
    assert rows == pytest.approx(4 * one, rel=0.05)
    assert longer == pytest.approx(4 * one, rel=0.05)
    fit = Fit(ARCHITECTURES["llama"]().config, torch.optim.AdamW, 4, 64)
    plain, recomputed = fit.counted(), Fit(fit.config, fit.optimizer, 4, 64, recomputes=True).counted()
    assert recomputed.activations(4) < 0.6 * plain.activations(4)
    assert recomputed.operations() > plain.operations()


def test_the_strategy_is_the_first_that_fits() -> None:
    fit = Fit(ARCHITECTURES["llama"]().config, torch.optim.AdamW, 4, 64)
    counted = fit.counted()

    def need(strategy: Any) -> float:
        return counted.parts(strategy, 4).total / 0.9

    assert need("trainer/fsdp") < need("trainer/ddp")
    assert choose(fit, 4, need("trainer/ddp") + 1)[1:] == ("trainer/ddp", [])
    assert choose(fit, 4, need("trainer/ddp") - 1)[1:] == ("trainer/fsdp", [])
    assert choose(fit, 4, need("trainer/fsdp") - 1)[2] == ["--model.activation_checkpointing true"]
    memory = 2 * need("one device")
    rows = counted.most_rows("one device", 1, memory)
    totals = [counted.parts("one device", 1, n).total for n in (rows, rows + 1)]
    assert totals[0] <= 0.9 * memory < totals[1]


def test_generation_is_bound_by_bytes_and_slots_fit() -> None:
    found = count_generation(ARCHITECTURES["llama"]().config, "bfloat16", 32, 64)
    device = DEVICES["H100"]
    most = found.most_slots(device.memory)
    assert found.parts(most).total <= 0.9 * device.memory < found.parts(most + 1).total
    assert found.tokens_per_second(8, device.bandwidth, device.half) > found.tokens_per_second(1, 1e12, device.half)


def test_the_command_needs_no_weights(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = fit_config(tmp_path)
    settings = yaml.safe_load(config.read_text())
    settings["data"] = {"class_path": "InstructionData", "init_args": {"path": "none.jsonl", "batch_size": 4}}
    config.write_text(yaml.safe_dump(settings))
    for path in (tmp_path / "base").iterdir():
        if path.name != "config.json":
            path.unlink()
    assert main(["plan", "--config", str(config), "--device", "A100", "--devices", "2"]) == 0
    told = capsys.readouterr().out
    assert "fit of batches of 4 x 1,024 tokens on each device" in told
    assert "take: --config trainer/ddp" in told
    words = ["plan", "--config", "s3cot/3_sample", "--steer", "null", "--model.backbone", str(tmp_path / "base")]
    assert main([*words, "--device", "RTX4090"]) == 0
    single = capsys.readouterr().out
    assert "largest: model.generation.slots" in single
    assert main([*words, "--device", "RTX4090", "--trainer.precision", "bf16-true"]) == 0
    half = capsys.readouterr().out
    slots = [int(re.findall(r"slots ([\d,]+)", told)[-1].replace(",", "")) for told in (single, half)]
    assert slots[1] > 1.9 * slots[0], "keys and values of half the size"
    assert main(["plan", "--config", "mllr/1_probe_and_search", "--model.backbone", str(tmp_path / "base")]) == 0
    read = capsys.readouterr().out
    assert "reads prompts of 512 tokens, generates nothing" in read
    assert "the search keeps its pilot in the host's memory" in read
    assert "slots" not in read
    assert main(["plan", "--config", "mllr/1_probe_and_search", "--config", "mllr/controls/noise"]) == 0
    assert "pilot" not in capsys.readouterr().out
    (tmp_path / "one.yaml").write_text("trainer:\n  callbacks: RobustModulesWriter\n")  # no list
    assert main(["plan", "--config", "mllr/1_probe_and_search", "--config", str(tmp_path / "one.yaml")]) == 0
    assert main(["plan", "--config", str(config), "--devices", "0"]) == 2
    assert "--devices: must be more than 0, is 0" in capsys.readouterr().err
