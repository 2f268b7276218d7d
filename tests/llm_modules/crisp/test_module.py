from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from peft import LoraConfig
from torch import Tensor
from torch.nn.functional import log_softmax

from datamodules.batch import IGNORE_INDEX, PromptBatch, PromptRow
from datamodules.crisp.batch import DistillationBatch
from datamodules.crisp.distillation_data import DistillationData
from datamodules.errors import InputError
from datamodules.records.kinds import Question
from llm_modules.crisp import CRISP
from llm_modules.generation import GenerationSettings
from tests.architectures import ARCHITECTURES
from tests.tiny import save_tiny

ANSWER_TOKENS = 12


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("tiny"), layers=2)


def module(backbone: Path, **options: Any) -> CRISP:
    settings = GenerationSettings(max_new_tokens=ANSWER_TOKENS, temperature=1.0)
    lora = LoraConfig(r=2, target_modules=["q_proj", "v_proj"])
    torch.manual_seed(0)
    crisp = CRISP(backbone=str(backbone), peft=lora, generation=settings, **options)
    crisp.configure_model()
    return crisp.train()


def moved(crisp: CRISP) -> CRISP:
    """The module with an adapter that does something."""
    for name, weights in crisp.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weights, std=0.5, generator=torch.Generator().manual_seed(len(name)))
    return crisp


def batch(student: tuple[tuple[int, ...], ...], teacher: tuple[tuple[int, ...], ...]) -> DistillationBatch:
    rows = [PromptRow(f"r{n}", Question(f"q{n}", "?"), "system2", "", ids, seed=n) for n, ids in enumerate(student)]
    return DistillationBatch(PromptBatch(rows), teacher)


PROMPTS = (5, 6, 7), (8, 9, 10, 11, 12), (13, 14)
OTHERS = (5, 6, 7, 40), (8, 9, 41), (13, 14, 42, 43)


def plain_divergence(crisp: CRISP, of: DistillationBatch, reverse: bool) -> Tensor:
    """The mean over all answer tokens, from whole logits, with the adapter taken off by scaling it to nothing."""
    answers = crisp.complete(of.student)
    student, teacher = of.with_answers([a.token_ids for a in answers], 0, torch.device("cpu"))
    model: Any = crisp.model
    logits = model(input_ids=student.input_ids, attention_mask=student.attention_mask).logits
    kept = {name: weights.detach().clone() for name, weights in crisp.named_parameters() if "lora_B" in name}
    with torch.no_grad():
        for name in kept:
            crisp.get_parameter(name).zero_()
        target = model(input_ids=teacher.input_ids, attention_mask=teacher.attention_mask).logits
        for name, weights in kept.items():
            crisp.get_parameter(name).copy_(weights)
    ours = log_softmax(logits[:, :-1][student.labels[:, 1:] != IGNORE_INDEX], dim=-1)
    theirs = log_softmax(target[:, :-1][teacher.labels[:, 1:] != IGNORE_INDEX], dim=-1)
    first, second = (ours, theirs) if reverse else (theirs, ours)
    return (first.exp() * (first - second)).sum(dim=-1).mean()


@pytest.mark.parametrize("divergence", ["reverse_kl", "forward_kl"])
def test_the_loss_is_the_divergence_at_the_answer_tokens(backbone: Path, divergence: Any) -> None:
    crisp = moved(module(backbone, divergence=divergence))
    found = crisp.loss(batch(PROMPTS, OTHERS)).mean()
    wanted = plain_divergence(crisp, batch(PROMPTS, OTHERS), divergence == "reverse_kl")
    assert found.item() == pytest.approx(wanted.item(), rel=1e-4)
    assert found.item() > 0.01


def test_an_untrained_model_has_nothing_to_learn_from_its_own_prompt(backbone: Path) -> None:
    crisp = module(backbone)
    assert abs(crisp.loss(batch(PROMPTS, PROMPTS)).mean().item()) < 1e-6
    assert crisp.loss(batch(PROMPTS, OTHERS)).mean().item() > 1e-3


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_architecture_distils(name: str, tmp_path: Path) -> None:
    ARCHITECTURES[name]().save_pretrained(tmp_path)
    settings = GenerationSettings(max_new_tokens=4)
    peft = LoraConfig(r=2, target_modules="all-linear")
    crisp = CRISP(backbone=str(tmp_path), peft=peft, generation=settings)
    tokenizer: Any = SimpleNamespace(chat_template=None, pad_token_id=0, eos_token_id=2, get_vocab=lambda: {"</s>": 2})
    crisp.tokenizer = tokenizer
    crisp.configure_model()
    loss = crisp.train().loss(batch(PROMPTS, OTHERS)).mean()
    loss.backward()
    trained = [weights for weights in crisp.parameters() if weights.requires_grad]
    assert loss.isfinite()
    assert any(weights.grad is not None and weights.grad.abs().sum() > 0 for weights in trained)


def test_the_gradient_reaches_the_adapter_alone_and_the_adapter_stays_on(backbone: Path) -> None:
    crisp = moved(module(backbone))
    crisp.loss(batch(PROMPTS, OTHERS)).mean().backward()
    assert {"lora_" in name for name, weights in crisp.named_parameters() if weights.grad is not None} == {True}
    model: Any = crisp.model
    assert model.training
    ids = torch.tensor([[5, 6, 7]])
    on = model(input_ids=ids).logits
    with model.disable_adapter():
        assert not torch.allclose(on, model(input_ids=ids).logits)


def test_after_a_refresh_the_teacher_is_the_student_of_that_step(backbone: Path) -> None:
    crisp = moved(module(backbone, teacher_refresh=1))
    before = crisp.loss(batch(PROMPTS, PROMPTS)).mean()
    assert before.item() > 1e-3  # the teacher is the model without its adapter
    crisp._trainer = Trainer(logger=False, enable_checkpointing=False, enable_progress_bar=False)
    crisp._trainer.fit_loop.epoch_loop.automatic_optimization.optim_progress.optimizer.step.total.completed = 1
    crisp.on_train_batch_start(None, 0)
    assert abs(crisp.loss(batch(PROMPTS, PROMPTS)).mean().item()) < 1e-6
    moved_on = {name: w.detach().clone() for name, w in crisp.named_parameters() if "lora_B" in name}
    with torch.no_grad():
        for name in moved_on:
            crisp.get_parameter(name).mul_(-1)
    assert crisp.loss(batch(PROMPTS, PROMPTS)).mean().item() > 1e-3  # and does not follow the student
    assert all(torch.equal(crisp.get_parameter(name), -weights) for name, weights in moved_on.items())


def test_a_model_without_an_adapter_is_refused_before_it_is_loaded() -> None:
    with pytest.raises(InputError, match=r"model\.peft: CRISP trains an adapter"):
        CRISP(backbone="nowhere")


def test_a_refresh_of_no_steps_is_refused(backbone: Path) -> None:
    with pytest.raises(InputError, match=r"model\.teacher_refresh: must be 1 or more, or null, is 0"):
        CRISP(peft=LoraConfig(), teacher_refresh=0)


class StopAt(Callback):
    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        if trainer.global_step == self.step:
            raise KeyboardInterrupt


def fit(backbone: Path, questions: Path, folder: Path, stop: int | None = None, resume: Path | None = None) -> CRISP:
    crisp = module(backbone, teacher_refresh=2)
    checkpoints = ModelCheckpoint(folder, filename="{step}", every_n_train_steps=1, save_top_k=-1)
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=2,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        reload_dataloaders_every_n_epochs=1,
        use_distributed_sampler=False,
        num_sanity_val_steps=0,
        callbacks=[checkpoints, *([StopAt(stop)] if stop else [])],
    )
    data = DistillationData(questions, batch_size=4)
    try:
        trainer.fit(crisp, data, ckpt_path=resume, weights_only=True)
    except (KeyboardInterrupt, SystemExit):
        assert stop is not None
    return crisp


@pytest.mark.slow
def test_an_interrupted_fit_goes_on_to_the_same_weights_teacher_included(backbone: Path, tmp_path: Path) -> None:
    questions = tmp_path / "questions.jsonl"
    questions.write_text("".join(f'{{"question": "What is {n} + 1?"}}\n' for n in range(12)))
    whole = fit(backbone, questions, tmp_path / "whole")
    fit(backbone, questions, tmp_path / "part", stop=5)
    part = fit(backbone, questions, tmp_path / "part", resume=tmp_path / "part" / "step=4.ckpt")
    for (name, weights), (_, again) in zip(whole.named_parameters(), part.named_parameters(), strict=True):
        assert torch.equal(weights, again), name
    assert whole._teacher.keys() == part._teacher.keys() != set()
    assert all(torch.equal(weights, part._teacher[name]) for name, weights in whole._teacher.items())
