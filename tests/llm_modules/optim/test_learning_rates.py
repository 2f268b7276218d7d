"""Modular learning rates: who is in which group, at which rate, through schedules, freezing and resuming."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import LearningRateMonitor, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from peft import LoraConfig, get_peft_model
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR, LambdaLR, OneCycleLR

from datamodules.errors import InputError
from llm_modules.causal_lm import CausalLM
from llm_modules.optim.learning_rates import LearningRates, weights_by_module
from llm_modules.optim.module_names import Module, modules_of
from llm_modules.optim.muon import MuonAdamW
from llm_modules.optim.parameter_groups import arranged_by_name, named_groups
from llm_modules.optim.robust_modules import RobustModules
from llm_modules.optim.schedules import Multiplied, WarmupCosine
from tests.architectures import ARCHITECTURES, LAYERS
from tests.supervised import RandomExamples
from tests.tiny import save_tiny

DEEP = ["layers.1.*"]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(save_tiny(tmp_path_factory.mktemp("tiny"), layers=2))


def trainer(folder: Path, **options: Any) -> Trainer:
    defaults: dict[str, Any] = {
        "default_root_dir": folder,
        "accelerator": "cpu",
        "max_epochs": 1,
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "enable_checkpointing": False,
        "reload_dataloaders_every_n_epochs": 1,
    }
    return Trainer(**(defaults | options))


def lora() -> LoraConfig:
    return LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM")


def fit(module: CausalLM, folder: Path, **options: Any) -> Trainer:
    run = trainer(folder, **options)
    run.fit(module, datamodule=RandomExamples(n=12, batch_size=2), ckpt_path=options.pop("ckpt_path", None))
    return run


@pytest.mark.parametrize("adapter", [False, True], ids=["full", "lora"])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_trainable_parameter_is_in_exactly_one_group(name: str, adapter: bool) -> None:
    model: nn.Module = ARCHITECTURES[name]()
    if adapter:
        model = get_peft_model(model, lora())
    rates = LearningRates(modules=["layers.2.*"])
    groups = named_groups(model.named_parameters(), rates.parts(model, name).of)
    grouped = [id(p) for group in groups for p in group["params"]]
    assert len(grouped) == len(set(grouped))
    assert set(grouped) == {id(p) for p in model.parameters() if p.requires_grad}
    layers = {part: {layer_of(n) for g in groups if g["part"] == part for n in g["parameter_names"]} for part in PARTS}
    assert layers["robust"] == {2}
    assert layers["rest"] >= {0, 1}
    for group in groups:
        if group["kind"] == "vectors":
            assert group["weight_decay"] == 0, "no decay of norms and biases"


PARTS = ("robust", "rest")


def layer_of(name: str) -> int | None:
    return next((int(part) for part in name.split(".") if part.isdigit()), None)


@pytest.mark.parametrize("name", ["gpt2", "phi3", "gpt_neox", "falcon"])
def test_a_fused_projection_is_robust_only_with_all_of_its_types(name: str) -> None:
    model = ARCHITECTURES[name]()
    for patterns, expected in ((["layers.1.v"], "rest"), (["layers.1.q", "layers.1.k", "layers.1.v"], "robust")):
        parts = LearningRates(modules=patterns).parts(model, name)
        found = {n: parts.of(p) for n, p in model.named_parameters() if ".1." in n and ("qkv" in n or "query_key" in n)}
        found |= {n: parts.of(p) for n, p in model.named_parameters() if "h.1.attn.c_attn" in n}
        assert found
        assert set(found.values()) == {expected}


def schedules(optimizer: torch.optim.Optimizer) -> list[Any]:
    return [
        WarmupCosine(optimizer, 10),
        CosineAnnealingLR(optimizer, 10, eta_min=5e-4),
        OneCycleLR(optimizer, max_lr=1e-2, total_steps=12),
        LambdaLR(optimizer, lambda step: 0.9**step),
    ]


@pytest.mark.parametrize("which", range(4))
def test_no_schedule_erases_the_ratio(which: int) -> None:
    """A scalar minimum or maximum overwrites every group's rate: the factor is put on afterwards."""
    model = ARCHITECTURES["llama"]()
    rates = LearningRates(modules=DEEP, ratio=1e-4)
    groups = named_groups(model.named_parameters(), rates.parts(model, "").of)
    optimizer = torch.optim.AdamW(groups, lr=1e-3)
    plain = torch.optim.AdamW(ARCHITECTURES["llama"]().parameters(), lr=1e-3)
    schedule = Multiplied(schedules(optimizer)[which], lambda group, step: rates.lr_mult(group["part"], step, 10))
    alone = schedules(plain)[which]
    # Several schedules were made on each optimiser: start both from what the chosen one begins with.
    for _ in range(8):
        by_part = {group["part"]: group["lr"] for group in optimizer.param_groups}
        assert by_part["rest"] == pytest.approx(1e-4 * by_part["robust"], rel=1e-9)
        for each in (optimizer, plain):
            each.step()
        schedule.step()
        alone.step()
        assert optimizer.param_groups[0]["lr"] != 0
        robust = next(g["lr"] for g in optimizer.param_groups if g["part"] == "robust")
        assert robust == pytest.approx(plain.param_groups[0]["lr"], rel=1e-9), "the full rate is that of the schedule"


def test_muon_keeps_its_two_rates_and_the_ratio() -> None:
    model = ARCHITECTURES["llama"]()
    rates = LearningRates(modules=DEEP, ratio=0.1)
    optimizer = MuonAdamW(named_groups(model.named_parameters(), rates.parts(model, "").of), lr=0.02, adamw_lr=1e-3)
    Multiplied(LambdaLR(optimizer, lambda step: 1.0), lambda group, step: rates.lr_mult(group["part"], step, 10))
    found = {group["name"]: group["lr"] for group in optimizer.param_groups}
    assert found == pytest.approx(
        {
            "rest/embeddings": 1e-4,
            "rest/matrices": 2e-3,
            "rest/vectors": 1e-4,
            "robust/matrices": 2e-2,
        }
    )


@pytest.mark.parametrize("adapter", [False, True], ids=["full", "lora"])
def test_frozen_modules_have_no_gradient_and_no_state(checkpoint: str, tmp_path: Path, adapter: bool) -> None:
    module = CausalLM(
        checkpoint,
        peft=lora() if adapter else None,
        optimizer=lambda p: torch.optim.AdamW(p, lr=1e-2),
        learning_rates=LearningRates(modules=DEEP, policy="freeze"),
    )
    module.configure_model()
    before = {name: p.detach().clone() for name, p in module.named_parameters()}
    run = fit(module, tmp_path)
    (optimizer,) = run.optimizers
    with_state = {id(p) for p in optimizer.state}
    moved = set()
    for name, parameter in module.named_parameters():
        if layer_of(name) != 1 or parameter.ndim < 2:
            assert parameter.grad is None, name
            assert id(parameter) not in with_state, name
            assert torch.equal(parameter, before[name]), name
        elif not torch.equal(parameter, before[name]):
            moved.add(name)
    assert moved
    assert {group["part"] for group in optimizer.param_groups} == {"robust"}


def test_the_warm_up_of_swat_holds_the_rest_still_and_then_lets_it_go(
    checkpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rates = LearningRates(modules=DEEP, policy="warmup", warmup=0.5)
    module = CausalLM(checkpoint, optimizer=lambda p: torch.optim.AdamW(p, lr=1e-2), learning_rates=rates)
    module.configure_model()
    still: dict[str, list[bool]] = {"rest": [], "robust": []}
    values = {name: p.detach().clone() for name, p in module.named_parameters()}
    probes = {"rest": "model.model.layers.0.mlp.up_proj.weight", "robust": "model.model.layers.1.mlp.up_proj.weight"}

    def watch(*_: Any, **__: Any) -> None:
        for part, name in probes.items():
            now = module.get_parameter(name).detach()
            still[part].append(torch.equal(now, values[name]))
            values[name] = now.clone()

    monkeypatch.setattr(module, "on_train_batch_end", watch)
    fit(module, tmp_path)
    assert still["rest"] == [True] * 3 + [False] * 3
    assert still["robust"] == [False] * 6


def test_one_rate_needs_no_result_of_a_search(tmp_path: Path) -> None:
    absent = tmp_path / "robust_modules.yaml"
    assert LearningRates(absent, policy="uniform").result is None
    choices: list[dict[str, Any]] = [{}, {"policy": "uniform", "random_set": 0}, {"policy": "uniform", "invert": True}]
    for options in choices:
        with pytest.raises(InputError, match="no result of a search can be read"):
            LearningRates(absent, **options)


def test_uniform_is_training_with_one_rate(checkpoint: str, tmp_path: Path) -> None:
    weights = []
    for rates in (None, LearningRates(policy="uniform"), LearningRates(modules=DEEP, policy="uniform")):
        module = CausalLM(checkpoint, optimizer=lambda p: torch.optim.AdamW(p, lr=1e-2), learning_rates=rates)
        fit(module, tmp_path)
        weights.append({name: p.detach().clone() for name, p in module.named_parameters()})
    for name, value in weights[0].items():
        assert torch.equal(value, weights[1][name]), name
        assert torch.equal(value, weights[2][name]), name


def test_groups_are_logged_by_name_and_kept_in_the_checkpoint(checkpoint: str, tmp_path: Path) -> None:
    module = CausalLM(checkpoint, learning_rates=LearningRates(modules=DEEP, ratio=1e-2))
    callbacks = [ModelCheckpoint(tmp_path, filename="last"), LearningRateMonitor("step")]
    run = fit(
        module,
        tmp_path,
        callbacks=callbacks,
        enable_checkpointing=True,
        logger=CSVLogger(tmp_path),
        log_every_n_steps=1,
    )
    table = run.logged_metrics or run.callback_metrics
    assert table
    names = ["rest/embeddings", "rest/matrices", "rest/vectors", "robust/matrices"]
    header = next(tmp_path.rglob("metrics.csv")).read_text().splitlines()[0].split(",")
    assert {f"lr-AdamW/{name}" for name in names} <= set(header)
    stored = torch.load(tmp_path / "last.ckpt", weights_only=True)["parameter_groups"]
    assert [row["name"] for row in stored] == names
    assert sum(row["weights"] for row in stored) == sum(p.numel() for p in module.parameters())
    json.dumps(stored)


def test_a_resumed_run_ends_where_an_uninterrupted_one_does(checkpoint: str, tmp_path: Path) -> None:
    def make() -> CausalLM:
        rates = LearningRates(modules=DEEP, ratio=0.1)
        return CausalLM(checkpoint, optimizer=lambda p: torch.optim.AdamW(p, lr=1e-2), learning_rates=rates)

    keep = ModelCheckpoint(tmp_path, filename="{epoch}", save_top_k=-1)
    options = {"max_epochs": 2, "callbacks": [keep], "enable_checkpointing": True}
    whole, resumed = make(), make()
    fit(whole, tmp_path, **options)
    run = trainer(tmp_path / "again", **options)
    run.fit(
        resumed,
        datamodule=RandomExamples(n=12, batch_size=2),
        ckpt_path=tmp_path / "epoch=0.ckpt",
        weights_only=True,
    )
    for (name, one), (_, other) in zip(whole.named_parameters(), resumed.named_parameters(), strict=True):
        assert torch.equal(one, other), name


def test_state_is_restored_by_name_whatever_the_order_of_groups() -> None:
    def optimizer(reverse: bool) -> torch.optim.Optimizer:
        model = ARCHITECTURES["llama"]()
        rates = LearningRates(modules=DEEP, ratio=0.1)
        parameters = list(model.named_parameters())
        groups = named_groups(parameters[::-1] if reverse else parameters, rates.parts(model, "").of)
        return torch.optim.AdamW(groups, lr=1e-3)

    first, second = optimizer(False), optimizer(True)
    named = {n: p for g in first.param_groups for n, p in zip(g["parameter_names"], g["params"], strict=True)}
    for index, parameter in enumerate(named.values()):
        parameter.grad = torch.full_like(parameter, float(index + 1))
    schedules = [
        Multiplied(WarmupCosine(o, 10), lambda g, s: {"robust": 1.0, "rest": 0.1}[g["part"]]) for o in (first, second)
    ]
    first.step()
    schedules[0].step()
    assert [g["name"] for g in first.param_groups] != [g["name"] for g in second.param_groups]
    second.load_state_dict(arranged_by_name(first.state_dict(), second.param_groups))
    schedules[1].load_state_dict(schedules[0].state_dict())
    for group in second.param_groups:
        for name, parameter in zip(group["parameter_names"], group["params"], strict=True):
            torch.testing.assert_close(second.state[parameter]["exp_avg"], first.state[named[name]]["exp_avg"])
    rates = [{g["name"]: g["lr"] for g in o.param_groups} for o in (first, second)]
    assert rates[0] == rates[1]


def test_other_groups_than_those_of_the_checkpoint_are_refused(checkpoint: str, tmp_path: Path) -> None:
    keep = ModelCheckpoint(tmp_path, filename="last")
    module = CausalLM(checkpoint, learning_rates=LearningRates(modules=DEEP))
    fit(module, tmp_path, callbacks=[keep], enable_checkpointing=True)
    other = CausalLM(checkpoint, learning_rates=LearningRates(modules=["layers.0.*"]))
    with pytest.raises(InputError, match=r"no parameter group 'robust/matrices'.*learning_rates"):
        trainer(tmp_path).fit(other, datamodule=RandomExamples(), ckpt_path=tmp_path / "last.ckpt", weights_only=True)


def test_a_rate_that_vanishes_in_bf16_weights_is_refused_before_training(checkpoint: str, tmp_path: Path) -> None:
    def run(dtype: Any, **options: Any) -> None:
        module = CausalLM(
            checkpoint,
            dtype=dtype,
            optimizer=lambda p: torch.optim.AdamW(p, lr=1e-3),
            learning_rates=LearningRates(modules=DEEP, **options),
        )
        fit(module, tmp_path)

    with pytest.raises(InputError, match=r"vanishes in the bfloat16 weights of group 'rest/.*float32.*freeze"):
        run("bfloat16", ratio=1e-4)
    run("float32", ratio=1e-4)
    run("bfloat16", policy="freeze")


def test_norms_that_a_tiny_rate_leaves_as_they_are_are_named(checkpoint: str, tmp_path: Path) -> None:
    """The paper's factor at a usual rate is too small for weights of about 1 in float32; that is no reason to stop."""
    module = CausalLM(
        checkpoint,
        optimizer=lambda p: torch.optim.AdamW(p, lr=2e-4),
        learning_rates=LearningRates(modules=DEEP, ratio=1e-4),
    )
    with pytest.warns(UserWarning, match=r"vanishes in the float32 weights of group 'rest/vectors'.*stay as they are"):
        fit(module, tmp_path)


def result(tmp_path: Path, model: str, **options: Any) -> Path:
    content: dict[str, Any] = {
        "model": model,
        "revision": None,
        "layers": 2,
        "types": ("q", "k", "v", "o", "gate", "up", "down"),
        "robust": ("layers.1.q", "layers.1.down"),
        "tau": 0.1,
        "seeds": (0, 1, 2),
    }
    path = tmp_path / "robust_modules.yaml"
    RobustModules(**(content | options)).save(path)
    return path


def test_a_result_file_says_what_is_robust(checkpoint: str, tmp_path: Path) -> None:
    path = result(tmp_path, checkpoint)
    module = CausalLM(checkpoint, learning_rates=LearningRates(result=path))
    module.configure_model()
    robust = [name for g in module.parameter_groups() if g["part"] == "robust" for name in g["parameter_names"]]
    assert robust == [f"model.model.layers.1.{part}.weight" for part in ("self_attn.q_proj", "mlp.down_proj")]
    assert RobustModules.load(path).modules() == {Module(1, "q"), Module(1, "down")}


def test_bad_results_are_refused(checkpoint: str, tmp_path: Path) -> None:
    other = LearningRates(result=result(tmp_path, "someone/else"))
    with pytest.raises(InputError, match=r"found in 'someone/else', but the model is .*allow_other_model"):
        CausalLM(checkpoint, learning_rates=other)
    tolerant = LearningRates(result=result(tmp_path, "someone/else"), allow_other_model=True)
    CausalLM(checkpoint, learning_rates=tolerant).configure_model()
    with pytest.raises(InputError, match="found in a model of 5 layers"):
        CausalLM(
            checkpoint, learning_rates=LearningRates(result=result(tmp_path, checkpoint, layers=5))
        ).configure_model()
    with pytest.raises(InputError, match="no robust module"):
        CausalLM(
            checkpoint, learning_rates=LearningRates(result=result(tmp_path, checkpoint, robust=()))
        ).configure_model()
    with pytest.raises(InputError, match=r"layers\.1\.q stand twice"):
        LearningRates(result=result(tmp_path, checkpoint, robust=("layers.1.q", "layers.1.q")))
    with pytest.raises(InputError, match=r"names look like layers\.3\.q"):
        LearningRates(result=result(tmp_path, checkpoint, robust=("model.layers.1.q_proj",)))
    (tmp_path / "other.yaml").write_text("model: x\n")
    with pytest.raises(InputError, match="not the result of a search"):
        LearningRates(result=tmp_path / "other.yaml")
    with pytest.raises(InputError, match="no result of a search can be read"):
        LearningRates(result=tmp_path / "absent.yaml")


def test_bad_settings_are_refused(checkpoint: str) -> None:
    options: Any
    for options, message in (
        ({"ratio": 0.0, "modules": DEEP}, "policy 'freeze' does not train"),
        ({"ratio": 2.0, "modules": DEEP}, "above 0 and at most 1"),
        ({"warmup": -0.1, "modules": DEEP}, r"learning_rates\.warmup"),
        ({}, "needs the robust modules"),
    ):
        with pytest.raises(InputError, match=message):
            LearningRates(**options)
    for options, message in (
        ({"modules": ["layers.7.*"]}, r"'layers\.7\.\*' matches nothing"),
        ({"modules": ["layers.1.*"], "frozen": ["layers.1.q"]}, r"layers\.1\.q stand in two groups"),
        (
            {"modules": ["layers.1.*"], "frozen": ["layers.*.*", "embeddings"], "policy": "freeze"},
            "stand in two groups",
        ),
    ):
        with pytest.raises(InputError, match=message):
            CausalLM(checkpoint, learning_rates=LearningRates(**options)).configure_model()


def test_nothing_left_to_train_is_refused(checkpoint: str) -> None:
    peft = LoraConfig(r=2, target_modules=["q_proj"])
    rates = LearningRates(modules=["layers.*.down"], policy="freeze")
    with pytest.raises(InputError, match="nothing is left to train"):
        CausalLM(checkpoint, peft=peft, learning_rates=rates).configure_model()


def test_embeddings_can_be_frozen_and_norms_be_robust(checkpoint: str) -> None:
    rates = LearningRates(modules=DEEP, policy="freeze", others="robust", frozen=["embeddings"])
    module = CausalLM(checkpoint, learning_rates=rates)
    module.configure_model()
    trained = module.trainable_names()
    assert all(layer_of(name) == 1 or "norm" in name for name in trained)
    assert any("layers.0.input_layernorm" in name for name in trained)


def test_controls_inverse_and_random_sets() -> None:
    model = ARCHITECTURES["llama"]()
    all_modules = set(modules_of(model))
    robust = LearningRates(modules=["layers.2.*", "layers.1.down"]).robust(model, "")
    assert LearningRates(modules=["layers.2.*", "layers.1.down"], invert=True).robust(model, "") == all_modules - robust
    sizes = weights_by_module(model)
    draws = [
        LearningRates(modules=["layers.2.*", "layers.1.down"], random_set=seed).robust(model, "")
        for seed in (0, 0, 1, 2)
    ]
    assert draws[0] == draws[1]
    assert len({*draws[1:]}) == 3
    wanted = sum(sizes[module] for module in robust)
    for drawn in draws:
        assert abs(sum(sizes[module] for module in drawn) - wanted) <= min(sizes.values())
    assert LAYERS == 3
