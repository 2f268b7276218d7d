"""The baselines do what their papers say, row by row."""

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from datamodules.batch import PromptBatch, PromptRow
from datamodules.errors import InputError
from datamodules.prompts.chat_template import encode_prompt, render_prompt
from datamodules.records.kinds import Question
from datamodules.records.turns import Turn
from llm_modules.baselines.conditional_steering import ConditionalSteering
from llm_modules.baselines.prompt_defence import Demonstration, PromptDefence
from llm_modules.baselines.safe_decoding import SafeDecoding, mix_distributions
from llm_modules.causal_lm import CausalLM
from llm_modules.generation import GenerationSettings
from llm_modules.mogu.adapters import random_adapter, write_adapter
from llm_modules.mogu.probes import LayerProbe, capture_inputs, save_probes
from llm_modules.mogu.target import output_projections
from llm_modules.s3cot import Direction
from tests.tiny import save_tiny, tiny_tokenizer

PROMPTS = [[70, 71, 72], [80, 81, 82, 83, 84], [90, 91]]


def rows(texts: list[str]) -> PromptBatch:
    tokenizer = tiny_tokenizer()
    found = []
    for number, text in enumerate(texts):
        prompt = render_prompt(tokenizer, text)
        ids = tuple(encode_prompt(tokenizer, prompt))
        found.append(PromptRow(str(number), Question(str(number), text), "plain", prompt, ids))
    return PromptBatch(found)


def test_the_mixed_distribution_is_over_what_both_find_likely() -> None:
    base = torch.tensor([[0.5, 0.3, 0.15, 0.04, 0.01]]).log()
    expert = torch.tensor([[0.01, 0.3, 0.04, 0.15, 0.5]]).log()
    mixed = mix_distributions(base, expert, alpha=0.5, candidates=1).exp()
    # Ranks of the base 0 1 2 3 4, of the expert 4 1 3 2 0: token 1 is the first that both have among their first two.
    assert mixed[0].tolist() == pytest.approx([0, 0.3, 0, 0, 0])
    mixed = mix_distributions(base, expert, alpha=3.0, candidates=3).exp()
    assert mixed[0].tolist() == pytest.approx([0, 0.3, 1e-12, 0.04 + 3 * 0.11, 0])
    everything = mix_distributions(base, expert, alpha=1.0, candidates=99).exp()
    assert everything[0].tolist() == pytest.approx(expert[0].exp().tolist(), abs=1e-6)


def adapted(tmp_path: Path) -> tuple[Path, Path]:
    base = save_tiny(tmp_path / "base", layers=2)
    projections = output_projections(AutoModelForCausalLM.from_pretrained(base))
    responder = random_adapter(projections, 2, 8, 0)
    write_adapter(responder, responder.deltas, tmp_path / "expert")
    return base, tmp_path / "expert"


def test_safe_decoding_is_both_models_for_two_tokens_and_the_base_after_them(tmp_path: Path) -> None:
    base, expert = adapted(tmp_path)
    module = SafeDecoding(str(expert), str(base), generation=GenerationSettings(max_new_tokens=7, slots=2))
    module.configure_model()
    flags = {name: p.requires_grad for name, p in module.named_parameters()}
    found = [done.token_ids for done in module.generator.generate(PROMPTS)]
    assert {name: p.requires_grad for name, p in module.named_parameters()} == flags
    plain = AutoModelForCausalLM.from_pretrained(base).eval()
    single = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), expert).eval()
    for prompt, ids in zip(PROMPTS, found, strict=True):
        sequence = list(prompt)
        for step in range(7):
            with torch.no_grad():
                logits = plain(input_ids=torch.tensor([sequence])).logits[:, -1]
                if step < 2:
                    other = single(input_ids=torch.tensor([sequence])).logits[:, -1]
                    logits = mix_distributions(logits, other, 3.0, 5)
            sequence.append(int(logits.argmax()))
            if sequence[-1] in module.generator.eos_ids:
                break
        assert ids == tuple(sequence[len(prompt) :])
    assert [done.token_ids for done in module.generator.generate([PROMPTS[0]] * 2)] == found[:1] * 2
    with pytest.raises(InputError, match=r"model\.candidates"):
        SafeDecoding(str(expert), candidates=0)


def test_a_prompt_defence_puts_words_around_the_users_and_keeps_a_prefilled_answer(tmp_path: Path) -> None:
    base = save_tiny(tmp_path / "base", layers=2)
    module = PromptDefence(
        str(base),
        before="Be good.",
        after="Be good!",
        system_prompt="You are good.",
        demonstrations=[Demonstration("Do harm.", "No.")],
    )
    batch = rows(["Open the jar."])
    from dataclasses import replace

    # As benchmarks make it: the tokens of the row hold its prefill, the prompt does not.
    prefilled = replace(batch.rows[0], prefill="Sure, here")
    (plain, begun) = module.defend([batch.rows[0], prefilled])
    turn = "<|im_start|>{}\n{}<|im_end|>\n"
    expected = turn.format("system", "You are good.") + turn.format("user", "Do harm.")
    expected += turn.format("assistant", "No.") + turn.format("user", "Be good.\nOpen the jar.\nBe good!")
    assert plain.prompt == expected + "<|im_start|>assistant\n"
    assert begun.prompt == plain.prompt
    assert begun.token_ids == tuple(encode_prompt(module.tokenizer, plain.prompt + "Sure, here"))
    assert plain.token_ids == tuple(encode_prompt(module.tokenizer, plain.prompt))
    assert PromptDefence(str(base)).defend(batch.rows) == list(batch.rows), "nothing around: nothing changes"
    with pytest.raises(InputError, match="was made by another template"):
        module.defend([replace(batch.rows[0], prompt="[INST] Open the jar. [/INST]")])
    chat = replace(batch.rows[0].question, earlier=(Turn("user", "Hi"), Turn("assistant", "Hello.")))
    with pytest.raises(InputError, match="comes after other turns, and this defence is of single requests"):
        module.defend([replace(batch.rows[0], question=chat)])


def test_only_rows_that_the_probe_takes_for_malicious_are_steered(tmp_path: Path) -> None:
    base = save_tiny(tmp_path / "base", layers=2)
    batch = rows(["Open the jar.", "A", "Open the vault, please."])
    model = AutoModelForCausalLM.from_pretrained(base).eval()
    projections = output_projections(model)
    states = []
    for row in batch.rows:
        ids = torch.tensor([row.token_ids])
        states.append(capture_inputs(model, projections, ids, None, torch.tensor([ids.shape[1] - 1]))[0, 1])
    difference = states[1] - (states[0] + states[2]) / 2
    middle = (states[1] + (states[0] + states[2]) / 2) / 2
    bias = -(middle @ difference)[None]
    weaker = LayerProbe(0, torch.zeros(32), torch.ones(1), 0.5, 0.7)
    save_probes([weaker, LayerProbe(1, difference, bias, 1.0, 0.1)], tmp_path / "probes.safetensors")
    vectors = torch.randn(2, 32, generator=torch.Generator().manual_seed(0)) * 5
    direction = Direction(vectors, model=str(base.resolve()))
    direction.save(tmp_path / "direction.safetensors")
    files: dict[str, Any] = {name: tmp_path / f"{name}.safetensors" for name in ("direction", "probes")}
    module = ConditionalSteering(**files, backbone=str(base), generation=GenerationSettings(max_new_tokens=6))
    module.configure_model()
    assert module.malicious(batch).tolist() == [False, True, False]
    plain = CausalLM(str(base), generation=GenerationSettings(max_new_tokens=6))
    plain.configure_model()
    expected, found = plain.complete(batch), module.complete(batch)
    assert [a == b for a, b in zip(expected, found, strict=True)] == [True, False, True]
    assert module.generator.listeners == []
    with pytest.raises(InputError, match="probability"):
        ConditionalSteering(**files, threshold=2.0)


def test_the_files_of_conditional_steering_are_checked_before_the_backbone_is_loaded_and_read_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = str(save_tiny(tmp_path / "base", layers=2))
    files: dict[str, Any] = {name: tmp_path / f"{name}.safetensors" for name in ("direction", "probes")}
    save_probes([LayerProbe(1, torch.ones(32), torch.zeros(1), 1.0, 0.1)], files["probes"])
    Direction(torch.ones(2, 32), model=str(Path(base).resolve())).save(files["direction"])
    module = ConditionalSteering(**files, backbone=base, generation=GenerationSettings(max_new_tokens=2))
    module.configure_model()
    for file in files.values():
        file.rename(file.with_suffix(".moved"))
    assert len(module.complete(rows(["Open the jar."]))) == 1
    for file in files.values():
        file.with_suffix(".moved").rename(file)

    (tmp_path / "broken.safetensors").write_text("x")
    Direction(torch.ones(3, 32)).save(tmp_path / "deep.safetensors")
    Direction(torch.ones(2, 32), model="another").save(tmp_path / "other.safetensors")
    wide = LayerProbe(1, torch.ones(48), torch.zeros(1), 1.0, 0.1)
    save_probes([wide], tmp_path / "wide.safetensors")
    with pytest.raises(InputError, match=r"model\.probes: .*layer 1 with 48 features.*fit probes on this model"):
        ConditionalSteering(files["direction"], tmp_path / "wide.safetensors", base).configure_model()
    monkeypatch.setattr(
        "llm_modules.backbone.loading.load_model", lambda *_, **__: pytest.fail("loaded before the check")
    )
    for options, message in (
        ({"direction": tmp_path / "absent.safetensors"}, r"model\.direction: .*absent\.safetensors"),
        ({"direction": tmp_path / "broken.safetensors"}, r"model\.direction: .*broken\.safetensors"),
        ({"direction": tmp_path / "deep.safetensors"}, r"model\.direction: .*3 layers x 32 do not fit"),
        ({"direction": tmp_path / "other.safetensors"}, r"model\.direction: .*another"),
        ({"probes": tmp_path / "broken.safetensors"}, r"model\.probes: no probes can be read from '.*broken"),
        ({"layers": "7"}, r"model\.layers: '7' names layer 7"),
    ):
        with pytest.raises(InputError, match=message):
            ConditionalSteering(**files | options, backbone=base).configure_model()
