"""Training, checkpoints and generation of the module that all methods build on."""

import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import LambdaCallback, ModelCheckpoint
from peft import LoraConfig, PeftModel, PromptTuningConfig, get_peft_model
from transformers import AutoModelForCausalLM

from datamodules.batch import PromptBatch, PromptRow, SupervisedBatch
from datamodules.errors import InputError
from datamodules.records.kinds import Question
from llm_modules.causal_lm import CausalLM
from llm_modules.generation import GenerationSettings
from llm_modules.loss import Loss, row_losses
from llm_modules.mogu.module import MoGU
from llm_modules.optim.learning_rates import LearningRates
from llm_modules.optim.muon import MuonAdamW
from llm_modules.optim.schedules import WarmupConstant
from tests.families import tiny_model
from tests.supervised import RandomExamples, parameter_sum
from tests.tiny import save_tiny, tiny_tokenizer


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(save_tiny(tmp_path_factory.mktemp("tiny"), layers=2))


def lora(**options: Any) -> LoraConfig:
    return LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", **options)


def trainer(folder: Path, **options: Any) -> Trainer:
    defaults: dict[str, Any] = {
        "default_root_dir": folder,
        "accelerator": "cpu",
        "max_epochs": 1,
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "enable_checkpointing": False,
        "use_distributed_sampler": False,
        "reload_dataloaders_every_n_epochs": 1,
    }
    return Trainer(**(defaults | options))


def rows(module: CausalLM, texts: list[str]) -> PromptBatch:
    return PromptBatch(
        tuple(
            PromptRow(str(i), Question(str(i), text), "plain", text, tuple(module.tokenizer.encode(text)), seed=i)
            for i, text in enumerate(texts)
        )
    )


@pytest.mark.parametrize("adapter", [False, True], ids=["full", "lora"])
def test_training_lowers_the_loss_and_touches_only_what_is_trained(
    checkpoint: str, tmp_path: Path, adapter: bool
) -> None:
    module = CausalLM(checkpoint, peft=lora() if adapter else None, optimizer=lambda p: torch.optim.AdamW(p, lr=3e-3))
    module.configure_model()
    frozen = {n: p.clone() for n, p in module.named_parameters() if not p.requires_grad}
    seen: list[float] = []
    keep = LambdaCallback(
        on_train_batch_end=lambda trainer, *_: seen.append(trainer.callback_metrics["train/loss"].item())
    )
    run = trainer(tmp_path, max_epochs=8, callbacks=[keep])
    data = RandomExamples()
    run.validate(module, datamodule=data, verbose=False)
    before = run.callback_metrics["val/loss"].item()
    run.fit(module, datamodule=data)
    assert sum(seen[-6:]) < 0.9 * sum(seen[:6])
    assert run.callback_metrics["val/loss"].item() != before
    assert bool(frozen) == adapter
    for name, value in frozen.items():
        assert torch.equal(value, dict(module.named_parameters())[name]), name


def test_dropout_is_on_while_training(checkpoint: str) -> None:
    module = CausalLM(checkpoint, peft=lora(lora_dropout=0.5))
    module.configure_model()
    assert module.model is not None
    assert all(m.training for m in module.model.modules())


def test_a_checkpoint_holds_what_was_trained_and_resumes_to_the_same_weights(checkpoint: str, tmp_path: Path) -> None:
    def module() -> CausalLM:
        torch.manual_seed(0)
        return CausalLM(checkpoint, peft=lora(), optimizer=lambda p: torch.optim.AdamW(p, lr=1e-3))

    whole = module()
    trainer(tmp_path / "a", max_epochs=2).fit(whole, datamodule=RandomExamples())

    half = module()
    keep = ModelCheckpoint(tmp_path / "b", save_top_k=-1, filename="{step}", every_n_train_steps=4)
    run = trainer(tmp_path / "b", max_epochs=2, enable_checkpointing=True, callbacks=[keep])
    run.fit(half, datamodule=RandomExamples())
    path = tmp_path / "b" / "step=4.ckpt"
    saved = torch.load(path, weights_only=True)["state_dict"]
    assert set(saved) == half.trainable_names()
    assert all("lora_" in name for name in saved)

    resumed = module()
    trainer(tmp_path / "c", max_epochs=2).fit(resumed, datamodule=RandomExamples(), ckpt_path=path, weights_only=True)
    assert parameter_sum(resumed) == parameter_sum(whole)


def test_a_checkpoint_of_another_adapter_is_refused(checkpoint: str, tmp_path: Path) -> None:
    narrow = CausalLM(checkpoint, peft=LoraConfig(r=4, target_modules=["q_proj"]))
    run = trainer(tmp_path, max_steps=1)
    run.fit(narrow, datamodule=RandomExamples())
    run.save_checkpoint(tmp_path / "narrow.ckpt")
    with pytest.raises(InputError, match=r"missing.*model\.learning_rates\).*rod export"):
        trainer(tmp_path).fit(
            CausalLM(checkpoint, peft=lora()), datamodule=RandomExamples(), ckpt_path=tmp_path / "narrow.ckpt"
        )


def test_a_checkpoint_of_another_scale_or_base_is_not_taken_in_silence(checkpoint: str, tmp_path: Path) -> None:
    run = trainer(tmp_path, max_steps=1)
    run.fit(CausalLM(checkpoint, peft=lora()), datamodule=RandomExamples())
    run.save_checkpoint(tmp_path / "end.ckpt")
    scaled = CausalLM(checkpoint, peft=LoraConfig(r=4, lora_alpha=64, target_modules="all-linear"))
    with pytest.raises(InputError, match=r"trained with model\.peft\.lora_alpha 8, and the configuration says 64"):
        trainer(tmp_path).validate(scaled, datamodule=RandomExamples(), ckpt_path=tmp_path / "end.ckpt")
    other = str(save_tiny(tmp_path / "other", layers=2, seed=1))
    with pytest.warns(UserWarning, match="the checkpoint was trained on"):
        trainer(tmp_path).validate(
            CausalLM(other, peft=lora()), datamodule=RandomExamples(), ckpt_path=tmp_path / "end.ckpt"
        )


def test_eight_accumulated_batches_equal_one_of_eight_rows(checkpoint: str, tmp_path: Path) -> None:
    """Of different lengths: a mean over each batch would weigh the tokens of short rows more."""
    sums = []
    for size, accumulate in ((8, 1), (1, 8)):
        torch.manual_seed(0)
        module = CausalLM(checkpoint, optimizer=lambda p: torch.optim.SGD(p, lr=0.1))
        data = RandomExamples(8, batch_size=size)
        assert len({example.n_targets for example in data.train_examples(0)}) > 2
        trainer(tmp_path, accumulate_grad_batches=accumulate).fit(module, datamodule=data)
        sums.append(parameter_sum(module))
    assert sums[0] == pytest.approx(sums[1], rel=1e-6)


class RowLosses(CausalLM):
    """A method whose loss is one number a row, with values of its own to log."""

    rows_per_batch: float

    def loss(self, batch: SupervisedBatch) -> Loss:
        losses = row_losses(self.language_model.get_decoder(), self.head, batch)
        return Loss(losses, per_batch=self.rows_per_batch, logged={"twice": 2 * losses}, local={"first": losses[0]})


def test_a_method_overrides_the_loss_and_no_more(checkpoint: str, tmp_path: Path) -> None:
    """Every row of the epoch has the same weight, also in batches of 3, 3 and 2; what the method names is logged."""
    sums = []
    for size, accumulate in ((8, 1), (3, 3)):
        torch.manual_seed(0)
        module = RowLosses(checkpoint, optimizer=lambda p: torch.optim.SGD(p, lr=0.1))
        module.rows_per_batch = 8 / accumulate
        run = trainer(tmp_path, accumulate_grad_batches=accumulate)
        run.fit(module, datamodule=RandomExamples(8, batch_size=size))
        logged = {name: value.item() for name, value in run.callback_metrics.items()}
        assert logged.keys() == {f"{phase}/{name}" for phase in ("train", "val") for name in ("loss", "twice", "first")}
        assert logged["val/twice"] == pytest.approx(2 * logged["val/loss"])
        sums.append(parameter_sum(module))
    assert sums[0] == pytest.approx(sums[1], rel=1e-6)


class SlowHead(CausalLM):
    """A method whose head has a rate of its own."""

    def part_of(self) -> Callable[[torch.nn.Parameter], str]:
        """The head, and the rest."""
        inner, head = super().part_of(), {id(parameter) for parameter in self.head.parameters()}
        return lambda parameter: "head" if id(parameter) in head else inner(parameter)

    def rate_of_part(self, part: str) -> float:
        """A tenth for the head."""
        return 0.1 if part == "head" else 1.0


@pytest.mark.parametrize("rates", [None, LearningRates(modules=["layers.1.*"], ratio=0.5)], ids=["alone", "modular"])
def test_a_method_scales_the_rate_of_a_part_under_any_optimiser(
    checkpoint: str, tmp_path: Path, rates: LearningRates | None
) -> None:
    module = SlowHead(
        checkpoint,
        optimizer=partial(MuonAdamW, lr=1e-2, adamw_lr=1e-3),
        schedule=partial(WarmupConstant, warmup=0.0),
        learning_rates=rates,
    )
    run = trainer(tmp_path, max_steps=1)
    run.fit(module, datamodule=RandomExamples())
    found = {group["name"]: group["lr"] for group in run.optimizers[0].param_groups}
    if rates is None:
        expected = {"embeddings": 1e-3, "matrices": 1e-2, "vectors": 1e-3}
    else:
        expected = {"rest/embeddings": 5e-4, "rest/matrices": 5e-3, "rest/vectors": 5e-4, "robust/matrices": 1e-2}
    assert found == pytest.approx(expected | {"head/embeddings": 1e-4})


def test_activation_checkpointing_changes_no_gradient(checkpoint: str, tmp_path: Path) -> None:
    sums = []
    for active in (False, True):
        torch.manual_seed(0)
        module = CausalLM(checkpoint, peft=lora(), activation_checkpointing=active)
        trainer(tmp_path, max_steps=3).fit(module, datamodule=RandomExamples())
        sums.append(parameter_sum(module))
    assert sums[0] == pytest.approx(sums[1], rel=1e-9)


def test_generation_equals_transformers_own(checkpoint: str) -> None:
    module = CausalLM(checkpoint, generation=GenerationSettings(max_new_tokens=12, slots=2))
    module.configure_model()
    batch = rows(module, ["one", "a longer prompt", "x"])
    plain: Any = AutoModelForCausalLM.from_pretrained(checkpoint)
    for row, completion in zip(batch.rows, module.complete(batch), strict=True):
        ids = torch.tensor([row.token_ids])
        expected = plain.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=12, do_sample=False)
        assert list(completion.token_ids) == expected[0, ids.shape[1] :].tolist()


def test_an_adapter_folder_is_evaluated_and_trained_further(checkpoint: str, tmp_path: Path) -> None:
    first = CausalLM(checkpoint, peft=lora())
    trainer(tmp_path, max_steps=2).fit(first, datamodule=RandomExamples())
    assert isinstance(first.model, PeftModel)
    first.model.save_pretrained(str(tmp_path / "adapter"))
    again = CausalLM(checkpoint, adapter=str(tmp_path / "adapter"))
    again.configure_model()
    assert parameter_sum(again) == parameter_sum(first)
    assert again.trainable_names() == first.trainable_names()


def test_named_groups_reach_the_optimiser(checkpoint: str, tmp_path: Path) -> None:
    module = CausalLM(checkpoint)
    run = trainer(tmp_path, max_steps=1)
    run.fit(module, datamodule=RandomExamples())
    groups = run.optimizers[0].param_groups
    assert [group["name"] for group in groups] == ["embeddings", "matrices", "vectors"]
    assert groups[2]["weight_decay"] == 0.0
    assert groups[0]["weight_decay"] > 0.0
    counted = sum(p.numel() for group in groups for p in group["params"])
    assert counted == sum(p.numel() for p in module.parameters() if p.requires_grad)


class TestWrongInput:
    """Each is refused before weights are loaded or a step is made."""

    def test_no_such_folder(self) -> None:
        with pytest.raises(InputError, match="there is no folder"):
            CausalLM("/no/such/folder").configure_model()

    def test_a_folder_without_a_model(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match=r"config\.json"):
            CausalLM(str(tmp_path)).configure_model()

    def test_a_tokenizer_that_does_not_fit(self, checkpoint: str, shared_data: Path) -> None:
        with pytest.raises(InputError, match="knows ids below 259"):
            CausalLM(checkpoint, tokenizer=str(shared_data / "tokenizers/gpt2")).configure_model()

    def test_a_tokenizer_without_end_of_sequence(self, tmp_path: Path) -> None:
        folder = save_tiny(tmp_path, layers=2)
        module = CausalLM(str(folder))
        module.configure_model()
        module.tokenizer.eos_token = None
        module.tokenizer.chat_template = None
        module.language_model.generation_config.eos_token_id = None
        with pytest.raises(InputError, match="no end-of-sequence token"):
            module.complete(rows(module, ["a"]))

    def test_prompt_tuning(self, checkpoint: str) -> None:
        with pytest.raises(InputError, match="PromptTuningConfig"):
            CausalLM(checkpoint, peft=PromptTuningConfig(num_virtual_tokens=2)).configure_model()

    def test_a_folder_with_a_prompt(self, checkpoint: str, tmp_path: Path) -> None:
        config = PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2)
        get_peft_model(AutoModelForCausalLM.from_pretrained(checkpoint), config).save_pretrained(str(tmp_path))
        with pytest.raises(InputError, match=r"model\.adapter: .* prompt learning"):
            CausalLM(checkpoint, adapter=str(tmp_path)).configure_model()

    def test_adapter_and_peft(self) -> None:
        with pytest.raises(InputError, match="give one"):
            CausalLM(peft=lora(), adapter="folder")

    def test_an_adapter_of_another_model(self, checkpoint: str, tmp_path: Path) -> None:
        other = CausalLM(str(save_tiny(tmp_path / "other", layers=2, hidden=16)), peft=lora())
        other.configure_model()
        assert isinstance(other.model, PeftModel)
        other.model.save_pretrained(str(tmp_path / "adapter"))
        with pytest.raises(InputError, match=r"model\.adapter"):
            CausalLM(checkpoint, adapter=str(tmp_path / "adapter")).configure_model()


def test_a_family_without_a_cache_is_generated_by_transformers_and_said_once(tmp_path: Path) -> None:
    tiny_model("openai-gpt").save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    module = CausalLM(str(tmp_path))
    with pytest.warns(UserWarning, match="family 'openai-gpt' take no cache"):
        assert module.engine == "transformers"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert module.engine == "transformers"


def test_a_class_refuses_an_engine_that_cannot_generate_for_it_before_anything_is_loaded(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="MoGU cannot generate with transformers; use slots"):
        MoGU(folder="nowhere", generation=GenerationSettings(engine="transformers"))
    tiny_model("rwkv").save_pretrained(tmp_path)
    with pytest.raises(InputError, match="MoGU cannot generate with transformers, the engine of a model of the family"):
        _ = MoGU(folder="nowhere", backbone=str(tmp_path)).engine
