"""However plain transformers cuts an answer into passes, its first tokens are the mixture's and no others."""

import copy
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    BitsAndBytesConfig,
    DynamicCache,
    StaticCache,
    pipeline,
)

from datamodules.errors import InputError
from llm_modules.generation import GenerationSettings
from llm_modules.mogu.config import Mode, RouterConfig
from llm_modules.mogu.model import MoGUModel
from llm_modules.mogu.serving import base_options, mix_first_tokens, prompt_length
from tests.architectures import ARCHITECTURES, CACHE
from tests.llm_modules.mogu.parts import PROMPTS, batch, responders, tiny_mogu
from tests.tiny import save_tiny, tiny_tokenizer

M, NEW = 3, 8
GREEDY: dict[str, Any] = {"max_new_tokens": NEW, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}


def served(name: str = "llama", mode: Mode = "first_m", m: int = M) -> Any:
    """A model of transformers that is a mixture in its first tokens."""
    return mix_first_tokens(tiny_mogu(name), mode, m)


def expected(name: str = "llama", mode: Mode = "keep_cache") -> list[list[int]]:
    """By the generator of the project, of a model that nothing else has touched."""
    settings = GenerationSettings(max_new_tokens=NEW)
    return [list(c.token_ids) for c in tiny_mogu(name).generate(PROMPTS, settings, mode=mode, m=M, eos_ids=[])]


def answers(model: Any, **options: Any) -> list[list[int]]:
    """Row by row."""
    found = []
    for prompt in PROMPTS:
        out = model.generate(torch.tensor([prompt]), **GREEDY | options)
        found.append(out[0, len(prompt) :].tolist())
    return found


def differs_by_mode(name: str = "llama") -> bool:
    """Whether a wrong phase would show at all."""
    return len({str(expected(name, mode)) for mode in ("keep_cache", "always", "off")}) == 3


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize(
    "options",
    [{}, {"use_cache": False}, {"prefill_chunk_size": 1}, {"prefill_chunk_size": 2}],
    ids=["cache", "no_cache", "chunks_of_1", "chunks_of_2"],
)
def test_the_first_tokens_are_mixed_with_a_cache_without_and_in_chunks(name: str, options: dict) -> None:
    assert differs_by_mode(name)
    assert answers(served(name), **options) == expected(name)


def by_hand(turns: list[list[int]], m: int) -> list[list[int]]:
    """Answers to the turns of a conversation, each turn read once; the phase is set pass by pass."""
    mogu = tiny_mogu()
    cache = DynamicCache(config=mogu.model.config)
    pending: list[int] = []
    found: list[list[int]] = []
    for turn in turns:
        pending = pending + turn
        answer: list[int] = []
        for number in range(NEW):
            with mogu.control.set(active=number < m), torch.no_grad():
                out = mogu.model(input_ids=torch.tensor([pending]), use_cache=True, **{CACHE: cache})
            pending = [int(out.logits[0, -1].argmax())]
            answer += pending
        found.append(answer)
    return found


@pytest.mark.parametrize("kind", ["dynamic", "static"])
@pytest.mark.parametrize("given", ["whole", "new"])
def test_a_second_turn_over_a_kept_cache_begins_a_new_answer(given: str, kind: str) -> None:
    turns = [PROMPTS[1], [20, 21, 22, 23]]
    model = served()
    cache = DynamicCache(config=model.config) if kind == "dynamic" else StaticCache(model.config, max_cache_len=100)
    first = model.generate(torch.tensor([turns[0]]), **{CACHE: cache}, **GREEDY)
    held = int(cache.get_seq_length())
    whole = torch.cat([first, torch.tensor([turns[1]])], dim=1)
    ids = whole if given == "whole" else whole[:, held:]
    second = model.generate(ids, attention_mask=torch.ones_like(whole), **{CACHE: cache}, **GREEDY)
    wanted = by_hand(turns, M)
    assert len({str(by_hand(turns, m)[1]) for m in (0, M, NEW)}) == 3
    assert [first[0, len(turns[0]) :].tolist(), second[0, ids.shape[1] :].tolist()] == wanted


def test_a_prompt_ends_behind_all_that_the_cache_holds() -> None:
    ids, cache = torch.ones(2, 4, dtype=torch.long), DynamicCache()
    assert prompt_length(ids, {}) == prompt_length(None, {"input_ids": ids}) == 4
    assert prompt_length(None, {"inputs_embeds": torch.ones(1, 7, 2)}) == 7
    assert prompt_length(None, {}) == 1
    cache.update(torch.ones(2, 1, 9, 1), torch.ones(2, 1, 9, 1), 0)
    for name in ("past_key_values", "cache"):  # transformers takes both
        assert prompt_length(ids, {name: cache, "attention_mask": torch.ones(2, 13)}) == 13
        assert prompt_length(ids, {name: cache}) == 13


@pytest.mark.parametrize("draft", ["lookup", "all_right", "all_wrong", "own_first_layers"])
def test_an_assistant_changes_no_token(draft: str) -> None:
    """One pass then gives mixed tokens and others, and what it has read too much is taken back."""
    assistant = served() if draft == "all_right" else ARCHITECTURES["llama"](seed=1)
    assistant.generation_config.assistant_confidence_threshold = 0.0
    options: dict = {"lookup": {"prompt_lookup_num_tokens": 3}, "own_first_layers": {"assistant_early_exit": 2}}
    model, passes = served(), []
    model.register_forward_hook(lambda *_: passes.append(1))
    assert answers(model, **options.get(draft, {"assistant_model": assistant})) == expected()
    assert (len(passes) == len(PROMPTS)) == (draft == "all_right")


@pytest.mark.parametrize("options", [{}, {"cache_implementation": "static"}, {"use_cache": False}])
def test_left_padded_rows_are_the_single_rows(options: dict) -> None:
    longest = max(map(len, PROMPTS))
    ids = torch.tensor([[0] * (longest - len(prompt)) + prompt for prompt in PROMPTS])
    out = served().generate(ids, attention_mask=(ids != 0).long(), **GREEDY | options)
    assert out[:, longest:].tolist() == expected()


def test_beams_are_mixed_as_rows_are() -> None:
    model = served()
    found = answers(model, num_beams=3)
    assert found == answers(model, num_beams=3, use_cache=False)
    assert found not in (answers(served(mode="always"), num_beams=3), answers(served(mode="off"), num_beams=3))
    assert answers(served(m=NEW), num_beams=3) == answers(served(mode="always"), num_beams=3)


def test_embeddings_in_place_of_tokens() -> None:
    model = served()
    for prompt, wanted in zip(PROMPTS, expected(), strict=True):
        embeds = model.get_input_embeddings()(torch.tensor([prompt]))
        assert model.generate(inputs_embeds=embeds, **GREEDY)[0].tolist() == wanted


@pytest.mark.parametrize("mode", ["always", "off", "glad", "unwilling"])
def test_the_other_modes(mode: Mode) -> None:
    assert answers(served(mode=mode)) == expected(mode=mode)


def test_a_pass_outside_of_generate_is_mixed_whole() -> None:
    ids, mask = batch()
    cases: dict[Mode, dict[str, Any]] = {"first_m": {}, "unwilling": {"forced": (0.0, 1.0)}, "off": {"active": False}}
    for mode, settings in cases.items():
        model, mogu = served(mode=mode), tiny_mogu()
        answers(model)  # leaves nothing behind
        with mogu.control.set(**settings), torch.no_grad():
            wanted = mogu.model(ids, attention_mask=mask).logits
            assert torch.equal(model(ids, attention_mask=mask).logits, wanted)
            kept = DynamicCache(config=model.config)
            parts = [model(part, use_cache=True, **{CACHE: kept}).logits for part in ids[:1].split(2, dim=1)]
        torch.testing.assert_close(torch.cat(parts, dim=1), wanted[:1], atol=1e-4, rtol=1e-4)


def test_a_failed_call_leaves_nothing_behind() -> None:
    model = served()

    def fail(*_: object) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        model.generate(torch.tensor([PROMPTS[0]]), stopping_criteria=[fail], **GREEDY)
    assert model.mogu.control.active
    assert model.mogu.control.rows is None
    assert answers(model) == expected()


def test_within_base_it_is_the_base_and_the_own_generator_has_all_modes() -> None:
    model = served()
    with model.mogu.base():
        assert answers(model) == expected(mode="off")
    done = model.mogu.generate(PROMPTS, GenerationSettings(max_new_tokens=NEW), mode="first_m", m=M, eos_ids=[])
    assert [list(c.token_ids) for c in done] == expected(mode="first_m")


def test_a_copy_switches_its_own_phases() -> None:
    model = served()
    twin = copy.deepcopy(model)
    assert twin.mogu.model is twin
    assert {id(m.control) for m in twin.mogu.mixtures.values()} == {id(twin.mogu.control)}
    assert twin.mogu.control is not model.mogu.control
    assert answers(twin) == expected() == answers(model)
    with pytest.raises(InputError, match="save_pretrained"):
        twin.save_pretrained("nowhere")


def test_threads_wait_for_each_other() -> None:
    model = served()
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda _: answers(model), range(6))) == [expected()] * 6


def test_what_cannot_be_is_refused() -> None:
    model = served()
    for refused in (model.merge, model.merge_and_unload):
        with pytest.raises(InputError, match="another weight for every token"):
            refused()
    with pytest.raises(InputError, match=r"save_pretrained: .*MoGU folder"):
        model.save_pretrained("nowhere")
    with pytest.raises(InputError, match="continuous batching"):
        model.generate_batch(PROMPTS)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A MoGU of a tiny Llama with a tokenizer."""
    path = tmp_path_factory.mktemp("served")
    base = save_tiny(path / "base")
    model = AutoModelForCausalLM.from_pretrained(base)
    torch.manual_seed(3)
    mogu = MoGUModel(model, *responders(model), RouterConfig(d_router=0))
    mogu.m = M
    for parameter in mogu.router_parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    mogu.save_pretrained(path / "mogu", base=str(base))
    tiny_tokenizer().save_pretrained(path / "mogu")
    return path / "mogu"


@pytest.mark.parametrize("name", ["dtype", "torch_dtype"])
@pytest.mark.parametrize("value", ["bfloat16", torch.bfloat16])
def test_the_type_of_the_weights_reaches_the_base(folder: Path, name: str, value: object) -> None:
    model: Any = AutoModelForCausalLM.from_pretrained(folder, **{name: value})
    assert model.dtype == torch.bfloat16
    settings = GenerationSettings(max_new_tokens=NEW)
    wanted = model.mogu.generate(PROMPTS, settings, mode="keep_cache", eos_ids=[])
    assert answers(model) == [list(c.token_ids) for c in wanted]


def test_options_reach_the_base(folder: Path) -> None:
    load = AutoModelForCausalLM.from_pretrained
    assert load(folder).config._attn_implementation == "sdpa"
    assert load(folder).dtype == torch.float32
    assert load(folder, attn_implementation="eager").config._attn_implementation == "eager"
    config = AutoConfig.from_pretrained(folder, attn_implementation="eager", dtype="bfloat16")
    model = load(folder, config=config)
    assert (model.config._attn_implementation, model.dtype) == ("eager", torch.bfloat16)
    assert answers(load(folder, device_map={"": "cpu"})) == answers(load(folder))
    with pytest.raises(InputError, match="device_map"):
        load(folder, device_map="somewhere")
    known = base_options({"quantization_config": 1, "adapter_kwargs": {"token": "t", "revision": None}, "config": None})
    assert known == {"quantization_config": 1, "token": "t", "dtype": "auto"}
    with pytest.raises((ImportError, InputError), match="bitsandbytes"):  # named whether or not it could be used
        load(folder, quantization_config=BitsAndBytesConfig(load_in_8bit=True))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"output_attentions": True}, "^output_attentions: a MoGU folder cannot be loaded"),
        ({"use_cache": False}, "^use_cache: "),
        ({"revision": "other"}, "^revision: "),
        ({"output_loading_info": True}, "^output_loading_info: "),
        ({"adapter_kwargs": {"subfolder": "x"}}, "^subfolder: "),
        ({"dtype": "float8"}, "^dtype: 'float8' is unknown; use one of auto, float32"),
    ],
)
def test_options_that_cannot_be_honoured_are_named(folder: Path, options: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        AutoModelForCausalLM.from_pretrained(folder, **options)


def test_a_pipeline_serves_it(folder: Path) -> None:
    serve: Any = pipeline("text-generation", model=str(folder), model_kwargs={"attn_implementation": "eager"})
    assert serve.model.config._attn_implementation == "eager"
    text, tokenizer = "Tell me", tiny_tokenizer()
    options = {"max_new_tokens": NEW, "do_sample": False, "eos_token_id": None, "return_full_text": False}
    found = serve(text, **options)[0]["generated_text"]
    prompt = tokenizer(text)["input_ids"]
    settings = GenerationSettings(max_new_tokens=NEW)
    done = serve.model.mogu.generate([prompt], settings, mode="keep_cache", eos_ids=[])
    assert found == tokenizer.decode(done[0].token_ids, skip_special_tokens=True)
