"""The LightningModules: what is trained, on what, and that batching changes nothing."""

import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import lightning
import pytest
import torch
from peft import LoraConfig

from datamodules.batch import IGNORE_INDEX, PromptBatch, PromptRow, SupervisedBatch
from datamodules.errors import InputError
from datamodules.mogu.batch import ResponderBatch, RouterBatch
from datamodules.mogu.branching import branch
from datamodules.records.kinds import Question
from datamodules.training.packing import Example
from llm_modules.mogu import responder as responder_module
from llm_modules.mogu.config import Mode, RouterConfig
from llm_modules.mogu.module import MoGU
from llm_modules.mogu.responder import Responder
from llm_modules.optim.schedules import WarmupConstant
from tests.architectures import ARCHITECTURES
from tests.llm_modules.mogu.parts import adapters
from tests.tiny import save_tiny, tiny_tokenizer

PROMPT = 4


def rows(n: int, seed: int = 0) -> SupervisedBatch:
    """Right-padded rows of 6 to 12 tokens whose first four are the prompt."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(3, 120, (n, 12), generator=generator)
    labels, mask = ids.clone(), torch.ones_like(ids)
    labels[:, :PROMPT] = IGNORE_INDEX
    for row, length in enumerate(torch.randint(6, 13, (n,), generator=generator).tolist()):
        ids[row, length:], labels[row, length:], mask[row, length:] = 0, IGNORE_INDEX, 0
    return SupervisedBatch(ids, labels, mask)


def router_batch(n: int = 4) -> RouterBatch:
    return RouterBatch(rows(n), torch.arange(n) % 2 == 1, torch.full((n,), 2), torch.full((n,), 3))


def part(batch: SupervisedBatch, chosen: list[int]) -> SupervisedBatch:
    assert batch.attention_mask is not None
    return SupervisedBatch(batch.input_ids[chosen], batch.labels[chosen], batch.attention_mask[chosen])


def quiet(module: lightning.LightningModule) -> None:
    vars(module)["log"] = lambda *_args, **_options: None  # there is no Trainer


def mogu(tmp_path: Path, **options: Any) -> MoGU:
    base = save_tiny(tmp_path / "base", layers=2)
    module = MoGU(**adapters(base, tmp_path), backbone=str(base), router=RouterConfig(d_router=4), **options)
    lightning.seed_everything(0, verbose=False)
    module.configure_model()
    quiet(module)
    return module


def grads(module: torch.nn.Module) -> list[torch.Tensor]:
    found = [p.grad.clone() for p in module.parameters() if p.grad is not None]
    module.zero_grad()
    return found


def test_one_batch_is_its_rows_one_at_a_time_with_losses_added(tmp_path: Path) -> None:
    """The published loop: one request a pass, accumulated over the batch."""
    module, batch = mogu(tmp_path), router_batch()
    module.training_step(batch, 0).backward()
    together = grads(module)
    for row in range(4):
        one = RouterBatch(part(batch.rows, [row]), batch.malicious[[row]], batch.starts[[row]], batch.ends[[row]])
        (module.training_step(one, 0) / 4).backward()
    for a, b in zip(together, grads(module), strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-4)


def examples(batch: SupervisedBatch) -> list[Example]:
    assert batch.attention_mask is not None
    lengths = batch.attention_mask.sum(1).tolist()
    rows = zip(batch.input_ids.tolist(), batch.labels.tolist(), lengths, strict=True)
    return [Example(tuple(ids[:n]), tuple(labels[:n])) for ids, labels, n in rows]


def noted(function: Callable[..., Any], used: list[str]) -> Callable[..., Any]:
    """The function; each call adds its name to the list."""

    def call(*args: Any) -> Any:
        used.append(function.__name__)
        return function(*args)

    return call


@pytest.mark.parametrize("shared", [True, False])
def test_both_responses_in_one_batch_are_the_two_passes_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shared: bool
) -> None:
    base = save_tiny(tmp_path / "base", layers=2)
    used: list[str] = []
    for name in ("branch_losses", "row_losses"):
        monkeypatch.setattr(responder_module, name, noted(getattr(responder_module, name), used))
    if not shared:
        monkeypatch.setattr(responder_module, "takes_branches", lambda *_: False)
    module = Responder(str(base), peft=LoraConfig(r=2, init_lora_weights=False), cap=1e9)
    module.configure_model()
    quiet(module)
    module.eval()
    both = rows(6)
    both.input_ids[3:, :PROMPT] = both.input_ids[:3, :PROMPT]
    pairs = list(zip(examples(both)[:3], examples(both)[3:], strict=True))
    module.training_step(ResponderBatch(both, branch(pairs)), 0).backward()
    together = grads(module)
    assert used == ["branch_losses" if shared else "row_losses"]
    model: Any = module.model
    for item in range(3):
        wanted, unwanted = (
            model(input_ids=one.input_ids, attention_mask=one.attention_mask, labels=one.labels).loss
            for one in (part(both, [item]), part(both, [item + 3]))
        )
        (wanted / unwanted / 3).backward()
    found = grads(module)
    assert len(found) == 2 * 2
    for a, b in zip(together, found, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-3)


def test_uneven_batches_weigh_every_request_alike(tmp_path: Path) -> None:
    """Batches of three and one, as an epoch of four in batches of two on average: the mean of all four."""
    module, batch = mogu(tmp_path), router_batch()
    module.training_step(batch, 0).backward()
    whole = grads(module)
    for chosen in ([0, 1, 2], [3]):
        malicious, starts, ends = (t[chosen] for t in (batch.malicious, batch.starts, batch.ends))
        some = RouterBatch(part(batch.rows, chosen), malicious, starts, ends, mean_items=2.0)
        (module.training_step(some, 0) / 2).backward()
    for a, b in zip(whole, grads(module), strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-4)


def test_a_validation_step_hands_on_the_gates_of_its_own_pass(tmp_path: Path) -> None:
    module, batch = mogu(tmp_path), router_batch()
    passes = []
    module.language_model.get_decoder().register_forward_hook(lambda *_: passes.append(1))
    with torch.no_grad():
        outputs = module.validation_step(batch, 0)
        assert len(passes) == 1
        assert torch.equal(outputs["gates"], module.mogu.gates(batch.rows.input_ids, batch.rows.attention_mask))
        assert torch.equal(outputs["loss"], module.loss(batch).mean())


def test_only_routers_are_trained_and_saved(tmp_path: Path) -> None:
    module = mogu(tmp_path)
    assert all(".routers." in name for name in module.trainable_names())
    module.training_step(router_batch(), 0).backward()
    assert {name for name, p in module.named_parameters() if p.grad is not None} == module.trainable_names()


def test_activation_checkpointing_changes_no_gradient(tmp_path: Path) -> None:
    module = mogu(tmp_path, activation_checkpointing=True)
    module.train()
    module.training_step(router_batch(), 0).backward()
    found = grads(module)
    plain = mogu(tmp_path)
    plain.train()
    plain.training_step(router_batch(), 0).backward()
    for a, b in zip(found, grads(plain), strict=True):
        torch.testing.assert_close(a, b)


def test_re_entrant_checkpointing_is_an_error_and_not_a_silent_zero(tmp_path: Path) -> None:
    module = mogu(tmp_path)
    module.train()
    module.language_model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": True})
    with pytest.raises(InputError, match=r"gates of layers \[0, 1\] carry no gradient"):
        module.training_step(router_batch(), 0)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_routers_learn_to_tell_two_kinds_of_prompts_apart_in_every_family(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = tmp_path / "base"
    ARCHITECTURES[name]().save_pretrained(base)
    tiny_tokenizer().save_pretrained(tmp_path / "tokenizer")
    module = MoGU(**adapters(base, tmp_path), backbone=str(base), router=RouterConfig(d_router=8), penalty_mask="all")
    # The tokenizer is there for its end token alone: it has more words than these models have rows.
    monkeypatch.setattr("llm_modules.causal_lm.check_vocabulary", lambda *_: None)
    module.tokenizer_name = str(tmp_path / "tokenizer")
    lightning.seed_everything(0, verbose=False)
    module.configure_model()
    quiet(module)
    batch = router_batch(8)
    batch.rows.input_ids[batch.malicious, :PROMPT] = 7
    optimizer = torch.optim.AdamW(module.mogu.router_parameters(), lr=0.02)
    for _ in range(60):
        loss = module.training_step(batch, 0)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    gates = module.mogu.gates(batch.rows.input_ids, batch.rows.attention_mask)
    mask = batch.rows.attention_mask
    assert mask is not None
    per_row = (gates * mask[None, :, :, None]).sum(2).mean(0) / mask.sum(1, keepdim=True)
    glad, unwilling = per_row.unbind(-1)
    assert unwilling[batch.malicious].mean() - unwilling[~batch.malicious].mean() > 0.4
    assert glad[~batch.malicious].mean() - glad[batch.malicious].mean() > 0.4


def test_the_folder_of_a_run_is_measured_without_its_parts(tmp_path: Path) -> None:
    module = mogu(tmp_path)
    module.save(tmp_path / "mogu")
    loaded = MoGU(folder=str(tmp_path / "mogu"), backbone=module.backbone)
    loaded.configure_model()
    prompts = [[5, 6, 7], [8, 9, 10, 11]]
    module.generation.max_new_tokens = loaded.generation.max_new_tokens = 6
    assert loaded.generator.generate(prompts) == module.generator.generate(prompts)
    assert loaded.trainable_names()


def test_gates_are_shifted_in_tests_and_not_while_the_routers_learn(tmp_path: Path) -> None:
    module = mogu(tmp_path)
    module.save(tmp_path / "mogu")
    shifted = MoGU(folder=str(tmp_path / "mogu"), backbone=module.backbone, gate_shift=2.0)
    shifted.configure_model()
    ids = torch.tensor([[5, 6, 7]])
    glad, unwilling = (shifted.mogu.gates(ids) - module.mogu.gates(ids)).mean(dim=(0, 1, 2))
    assert glad < 0 < unwilling
    with pytest.raises(InputError, match="shift_gates: a finite number is expected, not nan"):
        shifted.mogu.shift_gates(float("nan"))
    shifted = MoGU(folder=str(tmp_path / "mogu"), backbone=module.backbone, gate_shift=2.0)
    trainer = lightning.Trainer(max_steps=1, logger=False, enable_checkpointing=False, enable_progress_bar=False)
    with pytest.raises(InputError, match=r"model\.gate_shift"):
        trainer.fit(shifted, [router_batch()])


def test_responders_of_another_base_and_wrong_settings_are_refused(tmp_path: Path) -> None:
    base = save_tiny(tmp_path / "base", layers=2)
    folders = adapters(base, tmp_path)
    settings = (tmp_path / "glad/adapter_config.json").read_text()
    (tmp_path / "glad/adapter_config.json").write_text(
        settings.replace('"base_model_name_or_path": null', '"base_model_name_or_path": "meta-llama/Llama-2-7b"')
    )
    with pytest.raises(InputError, match=r"model\.glad.*trained on 'meta-llama/Llama-2-7b'"):
        MoGU(**folders, backbone=str(base)).configure_model()
    MoGU(**folders, backbone=str(base), allow_other_base=True).configure_model()
    for options, message in (
        ({"m": -1}, r"model\.m: -1"),
        ({"gate_shift": float("inf")}, r"model\.gate_shift: a finite number is expected, not inf"),
        ({"gate_shift": None}, r"model\.gate_shift: a finite number is expected, not None"),
        ({"fit_by_layers": True}, r"model\.fit_by_layers: only folded routers with a bias"),
        (
            {"folder": "x", "glad": None, "unwilling": None, "fit_by_layers": True}
            | {"router": RouterConfig(d_router=0, bias=True)},
            r"model\.fit_by_layers: .* neither those of model\.folder",
        ),
        ({"penalty_weight": -2.0}, "penalty_weight"),
        ({"glad": None}, r"give model\.glad and model\.unwilling"),
        ({"folder": "x"}, r"model\.folder: it holds responders and routers; leave"),
        ({"peft": LoraConfig()}, r"model\.peft: .*set model\.backbone_peft"),
        ({"adapter": "x"}, r"model\.adapter: .*set model\.glad and model\.unwilling"),
    ):
        with pytest.raises(InputError, match=message):
            MoGU(**folders | options)
    with pytest.raises(InputError, match=r"model\.floor"):
        Responder(floor=0.0)


def test_routers_of_a_sharded_model_are_not_fitted_by_layers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folders = adapters(save_tiny(tmp_path / "base", layers=2), tmp_path)
    module = MoGU(**folders, backbone="not read", router=RouterConfig(d_router=0, bias=True), fit_by_layers=True)
    monkeypatch.setattr(MoGU, "device_mesh", "of two devices")
    with pytest.raises(InputError, match=r"model\.fit_by_layers: a sharded model .* use strategy auto or ddp"):
        module.configure_model()


def test_what_a_mogu_is_made_of_is_checked_before_the_backbone_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = mogu(tmp_path)
    module.save(tmp_path / "mogu")
    base, folders = module.backbone, {name: str(tmp_path / name) for name in ("glad", "unwilling")}
    other = save_tiny(tmp_path / "elsewhere/base", layers=2, seed=1)
    (tmp_path / "none.safetensors").touch()
    copy = shutil.copytree(base, tmp_path / "copy")
    MoGU(folder=str(tmp_path / "mogu"), backbone=str(copy)).configure_model()
    monkeypatch.setattr(
        "llm_modules.backbone.loading.load_model", lambda *_, **__: pytest.fail("loaded before the check")
    )
    for options, message in (
        (folders | {"glad": str(tmp_path / "absent")}, r"model\.glad: .*no PEFT folder"),
        (folders | {"unwilling": folders["glad"]}, r"model\.unwilling: .* is the glad responder, too"),
        (folders | {"probes": tmp_path / "none.safetensors"}, r"none\.safetensors"),
        ({"folder": str(tmp_path / "absent")}, r"has no mogu\.json"),
        ({"folder": str(tmp_path / "mogu"), "backbone": str(other)}, rf"model\.folder: .*trained on '{base}', not on"),
    ):
        with pytest.raises(InputError, match=message):
            MoGU(**{"backbone": base} | options).configure_model()


def test_modules_that_a_family_does_not_have_are_named_with_what_it_has(tmp_path: Path) -> None:
    base = save_tiny(tmp_path / "base", layers=2)
    names = r"linear modules of a layer are self_attn\.q_proj, .*mlp\.down_proj"
    with pytest.raises(InputError, match=rf"model\.peft: .*wo.*{names}"):
        Responder(str(base), peft=LoraConfig(target_modules=["wo"])).configure_model()
    with pytest.raises(InputError, match=rf"model\.backbone_peft: .*c_attn.*{names}"):
        mogu(tmp_path, backbone_peft=LoraConfig(target_modules=["c_attn"]))
    with pytest.raises(InputError, match=r"model\.layers: .*layer 7.*layers 0-1"):
        Responder(str(base), peft=LoraConfig(), layers=[7]).configure_model()


def test_a_responder_adapts_the_output_projections_unless_told_otherwise(tmp_path: Path) -> None:
    base = save_tiny(tmp_path / "base", layers=2)
    optimizer = partial(torch.optim.AdamW, lr=1e-3)
    module = Responder(str(base), peft=LoraConfig(r=2), optimizer=optimizer, schedule=WarmupConstant)
    module.configure_model()
    assert all(".o_proj." in name for name in module.trainable_names())
    other = Responder(str(base), peft=LoraConfig(r=2, target_modules=["q_proj"]))
    other.configure_model()
    assert all(".q_proj." in name for name in other.trainable_names())


def test_traces_of_another_mode_or_m_are_of_other_settings(tmp_path: Path) -> None:
    base = save_tiny(tmp_path / "base", layers=2)
    folders = adapters(base, tmp_path)
    modes: tuple[Mode, ...] = ("first_m", "always")
    settings = [MoGU(**folders, mode=mode, m=5).generation_identity() for mode in modes]
    settings.append(MoGU(**folders, m=3).generation_identity())
    settings.append(MoGU(**folders, m=5, gate_shift=1.0).generation_identity())
    assert settings[0]["glad"] == str((tmp_path / "glad").resolve())
    assert settings[0] != settings[1]
    assert settings[0] != settings[2]
    assert settings[0] != settings[3]


def test_completions_are_those_of_folded_routers_and_training_goes_on_after_them(tmp_path: Path) -> None:
    module = mogu(tmp_path)
    module.generation.max_new_tokens = 6
    prompts = PromptBatch(
        PromptRow(str(i), Question(str(i), ""), "plain", "", ids) for i, ids in enumerate([(5, 6, 7), (8, 9, 10, 11)])
    )
    assert module.complete(prompts) == module.generator.generate([row.token_ids for row in prompts.rows])
    module.training_step(router_batch(), 0).backward()
    assert all(p.grad is not None and p.grad.any() for p in module.mogu.router_parameters())
