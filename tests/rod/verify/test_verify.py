"""`rod verify`: right models pass, and each kind of fault fails the check that is about it."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedTokenizerBase

from llm_modules.backbone.loading import load_model, load_tokenizer
from llm_modules.s3cot import Steering
from rod.__main__ import main
from rod.verify import method_checks, model_checks, prompt_checks
from rod.verify.method_checks import METHOD_CHECKS
from rod.verify.model_checks import MODEL_CHECKS
from rod.verify.subject import Check, Result, Subject, attempt
from tests.families import tiny_model

USED = [
    *[
        "deepseek_v3",
        "falcon",
        "falcon_h1",
        "gemma",
        "gemma2",
        "gemma3_text",
        "gemma4_text",
        "glm4_moe",
        "gpt2",
        "gpt_neox",
    ],
    *["gpt_oss", "granite", "granitemoehybrid", "lfm2", "llama", "llama4_text", "mamba", "mistral", "mixtral"],
    *["nemotron_h", "olmo2", "phi3", "qwen2", "qwen3", "qwen3_5_text", "qwen3_moe", "qwen3_next", "smollm3"],
]
"""Families that most people bring."""


@pytest.mark.parametrize("family", USED)
def test_the_most_used_families_pass(family: str) -> None:
    subject = Subject(tiny_model(family))
    results = [attempt(check, subject) for check in (*MODEL_CHECKS, *METHOD_CHECKS)]
    assert [result for result in results if result.status == "fails"] == []


def test_the_miniature_passes_and_the_results_are_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "verify.json"
    output.write_text("old")
    (tmp_path / "old.json").hardlink_to(output)
    assert main(["verify", "miniature", "--output", str(output), "--overwrite", "true"]) == 0
    assert (tmp_path / "old.json").read_text() == "old", "the file is replaced, and not written over"
    shown = capsys.readouterr().out
    assert "42 places" in shown
    written = json.loads(output.read_text())
    assert written["family"] == "llama"
    assert {check["check"]: check["status"] for check in written["checks"]}["thinking switch"] == "does not apply"
    assert all(check["status"] != "fails" for check in written["checks"])
    assert main(["verify", "miniature", "--output", str(output)]) == 2
    assert "exists" in capsys.readouterr().err


def test_a_failure_is_named_in_the_status(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def broken(_subject: Subject) -> str:
        raise ValueError("no\nmore")

    monkeypatch.setattr(model_checks, "MODEL_CHECKS", (broken,))
    monkeypatch.setattr(method_checks, "METHOD_CHECKS", ())
    assert main(["verify", "miniature"]) == 2
    assert "miniature: 1 of 6 checks fail: broken" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("family", "check", "reason"),
    [
        ("hrm_text", model_checks.layers, "the decoder layers of HrmTextForCausalLM are not known"),
        ("modernbert-decoder", model_checks.output_head, "are not its output projection"),
        ("jetmoe", method_checks.mixture_off, "no decoder layer has an attention output projection"),
    ],
    ids=["layers", "head", "projection"],
)
def test_families_that_cannot_are_told(family: str, check: Check, reason: str) -> None:
    result = attempt(check, Subject(tiny_model(family)))
    assert (result.status, reason in result.found) == ("fails", True), result.found


class TestFaultsOfAModel:
    @pytest.fixture
    def subject(self) -> Subject:
        return Subject(load_model("miniature").eval(), load_tokenizer("miniature"))

    def test_a_phase_that_is_not_found(self, subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(Steering, "_reads_prompt", lambda *_: True)
        result = attempt(method_checks.steered_places, subject)
        assert (result.status, "'prompt' steers" in result.found) == ("fails", True)

    def test_rows_that_get_the_strengths_of_others(self, subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(
            Steering, "before_forward", lambda self, rows: self._take(self._setting_of_row[: len(rows)])
        )
        assert attempt(method_checks.steered_places, subject).status == "fails"
        assert attempt(method_checks.strength_of_zero, subject).status == "fails"

    def test_a_loss_that_counts_otherwise(self, subject: Subject) -> None:
        subject.model.lm_head.register_forward_hook(lambda _m, _a, output: output * (1 + 0.1 * (output.ndim == 3)))
        assert attempt(model_checks.loss, subject).status == "fails"

    def test_positions_that_a_row_of_a_batch_shares(self, subject: Subject) -> None:
        def shifted(_module: torch.nn.Module, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
            ids = kwargs["input_ids"]
            return args, kwargs | {"input_ids": (ids + len(ids) - 1) % 90}

        subject.model.register_forward_pre_hook(shifted, with_kwargs=True)
        assert attempt(model_checks.padding, subject).status == "fails"
        assert attempt(model_checks.generation, subject).status == "fails"

    def test_mixtures_that_stay(self, subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(method_checks.MoGUModel, "unload", lambda self: self.model)
        assert attempt(method_checks.mixture_off, subject).status == "fails"

    def test_weights_that_change(self, subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
        """Such as an adapter that cannot be taken off."""
        kept: Any = method_checks.load_adapter

        def spoilt(*words: object) -> object:
            loaded = kept(*words)
            subject.model.lm_head.weight.data.mul_(1.01)
            return loaded

        monkeypatch.setattr(method_checks, "load_adapter", spoilt)
        assert attempt(method_checks.adapter_saved_and_loaded, subject).status == "fails"


class TestPrompts:
    @pytest.fixture
    def tokenizer(self) -> PreTrainedTokenizerBase:
        return load_tokenizer("miniature")

    def test_the_arguments_that_a_run_will_have(self, tokenizer: PreTrainedTokenizerBase) -> None:
        tokenizer.chat_template = (
            "{% for m in messages %}{% if not hide %}{{ m.content }}{% endif %}<|im_end|>{% endfor %}"
        )
        assert self.statuses(tokenizer)["chat template"] == "passes"
        assert self.statuses(tokenizer, hide=True)["chat template"] == "fails"

    def found(self, tokenizer: PreTrainedTokenizerBase, template: str | None = None, **kwargs: Any) -> Iterator[Result]:
        subject = Subject(load_model("miniature").eval(), tokenizer, template, kwargs)
        return (attempt(check, subject) for check in prompt_checks.PROMPT_CHECKS)

    def statuses(
        self, tokenizer: PreTrainedTokenizerBase, template: str | None = None, **kwargs: Any
    ) -> dict[str, str]:
        return {result.check: result.status for result in self.found(tokenizer, template, **kwargs)}

    def test_a_template_that_drops_words(self, tokenizer: PreTrainedTokenizerBase) -> None:
        tokenizer.chat_template = "{% for m in messages %}{{ m.role }}{% endfor %}"
        assert self.statuses(tokenizer)["chat template"] == "fails"

    def test_a_template_without_system_turns(self, tokenizer: PreTrainedTokenizerBase) -> None:
        tokenizer.chat_template = (
            "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system') }}{% endif %}"
            "{{ m.content }}<|im_end|>{% endfor %}"
        )
        assert self.statuses(tokenizer)["system turn"] == "does not apply"

    def test_a_base_model(self, tokenizer: PreTrainedTokenizerBase) -> None:
        tokenizer.chat_template = None
        assert self.statuses(tokenizer)["chat template"] == "does not apply"
        assert self.statuses(tokenizer, "plain")["chat template"] == "passes"

    def test_a_turn_that_ends_with_no_end_token(self, tokenizer: PreTrainedTokenizerBase) -> None:
        tokenizer.eos_token = "<|im_start|>"
        model = load_model("miniature").eval()
        assert model.generation_config is not None
        model.generation_config.eos_token_id = None
        result = attempt(prompt_checks.tokenizer, Subject(model, tokenizer))
        assert (result.status, "no end token of the model" in result.found) == ("passes", True)

    @pytest.mark.parametrize(
        ("switch", "status"),
        [
            ("{% if enable_thinking %}<think>{% endif %}", "passes"),
            ("{% if enable_thinking %}{% endif %}", "fails"),
            ("{% if reasoning_effort == 'high' %}<think>{% endif %}", "passes"),
            ("{% if messages[0].thinking %}{% endif %}{{ reasoning_effort }}", "passes"),
            ("", "does not apply"),
        ],
    )
    def test_a_switch_of_thinking(
        self, tokenizer: PreTrainedTokenizerBase, switch: str, status: str, tmp_path: Path
    ) -> None:
        tokenizer.chat_template = "{% for m in messages %}{{ m.content }}<|im_end|>{% endfor %}" + switch
        assert self.statuses(tokenizer)["thinking switch"] == status
        file = tmp_path / "chat.jinja"
        file.write_text(tokenizer.chat_template)
        assert self.statuses(tokenizer, str(file))["thinking switch"] == status
