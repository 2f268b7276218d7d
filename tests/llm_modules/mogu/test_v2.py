"""MoGUv2, reconstructed: probes choose layers and start routers; the backbone learns with them, near its base."""

from functools import partial
from pathlib import Path
from typing import Any

import lightning
import pytest
import torch
from lightning.pytorch.cli import OptimizerCallable
from peft import LoraConfig, PeftModel
from torch.utils.data import DataLoader

from datamodules.errors import InputError
from datamodules.mogu.batch import RouterBatch
from llm_modules.generation import GenerationSettings, Generator
from llm_modules.mogu.config import RouterConfig
from llm_modules.mogu.model import MoGUModel
from llm_modules.mogu.module import MoGU
from llm_modules.mogu.probes import (
    LayerProbe,
    capture_inputs,
    choose_probes,
    fit_probe,
    fit_probes,
    read_probes,
    save_probes,
    warm_start,
)
from llm_modules.mogu.serving import mix_first_tokens
from llm_modules.mogu.target import output_projections
from llm_modules.mogu.v2.joint import token_kl
from llm_modules.optim.learning_rates import LearningRates
from llm_modules.optim.muon import MuonAdamW
from llm_modules.optim.schedules import WarmupConstant
from tests.architectures import ARCHITECTURES, HIDDEN, LAYERS
from tests.callbacks.generation.sampling_run import trainer
from tests.llm_modules.mogu.parts import PROMPTS, batch, responders
from tests.llm_modules.mogu.test_module import adapters, quiet, router_batch
from tests.tiny import save_tiny


def separable(n: int = 200, features: int = 6, noise: float = 0.0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(n, features, generator=generator) * 3 + 5
    malicious = inputs[:, 1] - inputs[:, 2] > 0
    return inputs + noise * torch.randn(n, features, generator=generator), malicious


def test_a_probe_finds_the_features_that_decide_on_inputs_as_they_are() -> None:
    inputs, malicious = separable()
    weight, bias = fit_probe(inputs, malicious)
    assert (((inputs @ weight + bias) > 0) == malicious).float().mean() > 0.98
    assert set(weight.abs().topk(2).indices.tolist()) == {1, 2}
    with torch.inference_mode():  # as Lightning predicts
        again = fit_probe(inputs.clone(), malicious.clone(), counts=torch.ones(len(inputs)))
    torch.testing.assert_close(again, (weight, bias))
    with pytest.raises(InputError, match="one class of requests is missing"):
        fit_probe(inputs, torch.ones(len(inputs), dtype=torch.bool))


def test_the_layers_that_tell_best_are_chosen_in_their_order(tmp_path: Path) -> None:
    clear, malicious = separable()
    noise = torch.randn(len(clear), 6, generator=torch.Generator().manual_seed(1))
    inputs = torch.stack([noise, separable(noise=0.3)[0], noise.flip(0), clear], dim=1)
    probes = fit_probes([0, 1, 2, 3], inputs, malicious)
    assert [probe.layer for probe in choose_probes(probes, 2)] == [1, 3]
    assert probes[3].accuracy > 0.9 > 0.7 > probes[0].accuracy
    with pytest.raises(InputError, match="cannot choose 5 layers of 4"):
        choose_probes(probes, 5)
    save_probes(probes, tmp_path / "probes.safetensors")
    for kept, probe in zip(read_probes(tmp_path / "probes.safetensors", "model.probes"), probes, strict=True):
        assert torch.equal(kept.weight, probe.weight)
        assert (kept.layer, kept.accuracy) == (probe.layer, pytest.approx(probe.accuracy))
    (tmp_path / "broken").write_text("x")
    with pytest.raises(InputError, match="no probes can be read"):
        read_probes(tmp_path / "broken", "model.probes")


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_routers_start_as_their_probes_on_what_was_captured(name: str) -> None:
    """The gate of the captured token is the probe's verdict: what is captured is what the router reads."""
    model = ARCHITECTURES[name]()
    ids, mask = batch()
    positions = torch.tensor([3, 5, 8])
    projections = output_projections(model)
    inputs = capture_inputs(model, projections, ids, mask, positions)
    assert inputs.shape == (3, LAYERS, projections[0].in_features)
    generator = torch.Generator().manual_seed(0)
    probes = [
        LayerProbe(n, torch.randn(HIDDEN, generator=generator), torch.tensor([0.3]), 1.0, 0.0) for n in range(LAYERS)
    ]
    mogu = MoGUModel(model, *responders(model), RouterConfig(d_router=0, bias=True))
    warm_start(mogu, probes)
    with mogu.recording(forced=(1.0, 0.0)):
        pass
    first = mogu.gates(ids, mask)[0, torch.arange(3), positions]
    expected = torch.sigmoid(inputs[:, 0] @ probes[0].weight + 0.3)
    torch.testing.assert_close(first, torch.stack([1 - expected, expected], dim=-1), atol=1e-5, rtol=1e-4)
    with pytest.raises(InputError, match="no probe of layer 2"):
        warm_start(mogu, probes[:2])
    factored = MoGUModel(ARCHITECTURES[name](), *responders(model), RouterConfig(d_router=4))
    with pytest.raises(InputError, match="d_router: 0 and bias: true"):
        warm_start(factored, probes)


class Requests(lightning.LightningDataModule):
    """Two batches an epoch."""

    def train_dataloader(self) -> DataLoader[RouterBatch]:
        batches: Any = [router_batch(), router_batch(6)]
        return DataLoader(batches, batch_size=None)


def joint(tmp_path: Path, **options: Any) -> MoGU:
    base = save_tiny(tmp_path / "base", layers=2)
    options = {"backbone_peft": LoraConfig(r=2, target_modules=["q_proj", "v_proj"])} | options
    module = MoGU(**adapters(base, tmp_path), backbone=str(base), router=RouterConfig(d_router=0, bias=True), **options)
    lightning.seed_everything(0, verbose=False)
    module.configure_model()
    quiet(module)
    return module


def test_routers_and_the_backbones_adapter_are_trained_and_nothing_else(tmp_path: Path) -> None:
    module = joint(tmp_path)
    names = module.trainable_names()
    assert {name for name in names if ".routers." in name}
    assert all(".routers." in name or ".q_proj.lora_" in name or ".v_proj.lora_" in name for name in names)
    module.training_step(router_batch(), 0).backward()
    assert {name for name, p in module.named_parameters() if p.grad is not None} == names


def test_a_joint_training_that_was_interrupted_goes_on(tmp_path: Path) -> None:
    """Its groups are others than those of a module that learns as a whole, and are found again by name."""
    rates = partial(torch.optim.AdamW, lr=1e-2)
    whole = joint(tmp_path, optimizer=rates)
    fitted = trainer(tmp_path / "a", max_epochs=2)
    fitted.fit(whole, Requests())
    fitted.save_checkpoint(tmp_path / "whole.ckpt")
    first = joint(tmp_path, optimizer=rates)
    half = trainer(tmp_path / "b", max_epochs=1)
    half.fit(first, Requests())
    half.save_checkpoint(tmp_path / "half.ckpt")
    resumed = joint(tmp_path, optimizer=rates)
    trainer(tmp_path / "c", max_epochs=2).fit(resumed, Requests(), ckpt_path=tmp_path / "half.ckpt", weights_only=True)
    wanted = {name: p for name, p in whole.named_parameters() if name in whole.trainable_names()}
    found = dict(resumed.named_parameters())
    for name, parameter in wanted.items():
        torch.testing.assert_close(found[name], parameter)


@pytest.mark.parametrize("rates", [None, LearningRates(modules=["layers.1.*"], ratio=0.5)], ids=["alone", "modular"])
@pytest.mark.parametrize("optimizer", [partial(torch.optim.AdamW, lr=1e-2), partial(MuonAdamW, lr=1e-2, adamw_lr=1e-2)])
def test_the_backbone_learns_at_its_share_of_the_rate_under_any_optimiser(
    tmp_path: Path, optimizer: OptimizerCallable, rates: LearningRates | None
) -> None:
    """Folded routers are vectors, LoRA weights are matrices; modular rates divide the backbone, not the routers."""
    module = joint(tmp_path, optimizer=optimizer, backbone_rate=0.1, learning_rates=rates)
    module.schedule = partial(WarmupConstant, warmup=0.0)
    run = trainer(tmp_path, max_epochs=1)
    run.fit(module, Requests())
    found = {group["name"]: group["lr"] for group in run.optimizers[0].param_groups}
    backbone = {"backbone/matrices": 1e-3} if rates is None else {"robust/matrices": 1e-3, "rest/matrices": 5e-4}
    assert found == pytest.approx({"routers/vectors": 1e-2} | backbone)


def test_what_would_change_the_base_itself_is_refused(tmp_path: Path) -> None:
    for option in ({"modules_to_save": ["lm_head"]}, {"bias": "all"}):
        (name,) = option
        with pytest.raises(InputError, match=rf"model\.backbone_peft\.{name}: the base itself would be changed"):
            joint(tmp_path, backbone_peft=LoraConfig(r=2, target_modules=["q_proj"], **option))


def test_the_adapter_is_off_for_the_base_and_every_flag_is_as_before(tmp_path: Path) -> None:
    """PEFT turns requires_grad on for what it enables again; a base weight that was frozen stays frozen."""
    module = joint(tmp_path)
    assert isinstance(module.model, PeftModel)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if "lora_B" in name:
                parameter.normal_()
    module.eval()
    ids, mask = batch()
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(module.backbone)
    frozen = {name: p.requires_grad for name, p in module.named_parameters()}
    with torch.no_grad(), module.mogu.base():
        inside = module.language_model(input_ids=ids, attention_mask=mask).logits
    with torch.no_grad():
        assert torch.equal(inside, base(input_ids=ids, attention_mask=mask).logits)
        assert not torch.allclose(module.language_model(input_ids=ids, attention_mask=mask).logits, inside, atol=1e-3)
    assert {name: p.requires_grad for name, p in module.named_parameters()} == frozen
    lora = next(p for name, p in module.named_parameters() if "lora_A" in name)
    lora.requires_grad_(False)
    with module.mogu.base():
        pass
    assert not lora.requires_grad


def test_off_and_a_model_that_is_unloaded_are_the_base_bit_for_bit(tmp_path: Path) -> None:
    module = joint(tmp_path)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if "lora_B" in name:
                parameter.normal_()
    module.save(tmp_path / "mogu")
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(module.backbone)
    mogu = MoGUModel.from_pretrained(tmp_path / "mogu")
    settings = GenerationSettings(max_new_tokens=8)
    plain = Generator(base, settings, pad_id=0, eos_ids=[]).generate(PROMPTS)
    assert mogu.generate(PROMPTS, settings, mode="off", eos_ids=[]) == plain
    # After the hand-off the tuned backbone goes on.
    assert mogu.generate(PROMPTS, settings, mode="first_m", m=1, eos_ids=[]) != plain
    assert mogu.generate(PROMPTS, settings, mode="off", eos_ids=[]) == plain
    served: Any = mix_first_tokens(MoGUModel.from_pretrained(tmp_path / "mogu"), "off", 5)
    prompt = torch.tensor(PROMPTS[:1])
    said = served.generate(prompt, max_new_tokens=8, do_sample=False, eos_token_id=None, pad_token_id=0)
    assert said[0, prompt.shape[1] :].tolist() == list(plain[0].token_ids)
    ids, mask = batch()
    with torch.no_grad():
        wanted = base(input_ids=ids, attention_mask=mask).logits
        with mogu.base():
            assert torch.equal(mogu.model(input_ids=ids, attention_mask=mask).logits, wanted)
        assert torch.equal(mogu.unload()(input_ids=ids, attention_mask=mask).logits, wanted)
    assert not any("lora" in name for name, _ in mogu.model.named_parameters())


def test_the_divergence_is_that_of_the_definition_with_its_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(0)
    hidden, base = (torch.randn(7, 5, generator=generator) for _ in range(2))
    weight = torch.randn(11, 5, generator=generator)

    def head(states: torch.Tensor) -> torch.Tensor:
        return states @ weight.T

    hidden.requires_grad_(True)
    ours, theirs = (head(states).softmax(-1) for states in (hidden, base))
    expected = (theirs * (theirs.log() - ours.log())).sum(-1)
    (wanted,) = torch.autograd.grad(expected.square().sum(), hidden)
    for size in (2 * 8 * 11, 2**20):
        monkeypatch.setattr("llm_modules.loss.LOGITS_BYTES", size)
        found = token_kl(hidden, base, head, 11)
        torch.testing.assert_close(found, expected)
        (got,) = torch.autograd.grad(found.square().sum(), hidden)
        torch.testing.assert_close(got, wanted)
    assert token_kl(base, base, head, 11).abs().max() < 1e-6


def test_only_benign_requests_are_held_near_the_base(tmp_path: Path) -> None:
    module = joint(tmp_path)
    rows = router_batch()
    divergence = module.loss(rows).logged["kl"]
    assert (divergence[~rows.malicious] > 0).all(), "the mixture itself is not the base"
    assert (divergence[rows.malicious] == 0).all()


def test_a_backbone_adapter_on_a_mixture_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds a mixture"):
        joint(tmp_path, backbone_peft=LoraConfig(r=2, target_modules=["o_proj"]))


def test_the_backbones_adapter_is_saved_with_the_rest(tmp_path: Path) -> None:
    module = joint(tmp_path)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if "lora_B" in name:
                parameter.normal_()
    module.generation.max_new_tokens = 6
    prompts = [[5, 6, 7], [8, 9, 10, 11]]
    expected = module.generator.generate(prompts)
    module.save(tmp_path / "mogu")
    loaded = MoGUModel.from_pretrained(tmp_path / "mogu")
    eos = module.generator.eos_ids
    assert loaded.generate(prompts, module.generation, eos_ids=eos) == expected
    assert (tmp_path / "mogu/backbone/adapter_model.safetensors").is_file()
