"""The first m tokens come from the mixture and the rest from the base model, for every row of a batch by itself."""

from typing import Any

import pytest
import torch
from torch import Tensor

from datamodules.errors import InputError
from llm_modules.generation import Completion, GenerationListener, GenerationSettings, Generator
from llm_modules.generation.prefill import cache_in
from llm_modules.mogu.config import Mode
from llm_modules.mogu.model import MoGUModel
from tests.architectures import ARCHITECTURES, CACHE
from tests.llm_modules.mogu.parts import PROMPTS, plain_copy, tiny_mogu

LONG = GenerationSettings(max_new_tokens=12)


def by_hand(mogu: MoGUModel, prompt: list[int], m: int, n: int, eos: set[int]) -> tuple[int, ...]:
    """The published way: no cache at all, one row, the whole sequence again for each token (greedy)."""
    ids = list(prompt)
    for step in range(n):
        with mogu.control.set(active=step < m), torch.no_grad():
            logits = mogu.model(input_ids=torch.tensor([ids]), use_cache=False).logits
        ids.append(int(logits[0, -1].argmax()))
        if ids[-1] in eos:
            break
    return tuple(ids[len(prompt) :])


def tokens(completions: list[Completion]) -> list[tuple[int, ...]]:
    return [done.token_ids for done in completions]


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_five_tokens_and_a_new_prefill_are_the_published_decoding(name: str) -> None:
    """Against the plain reading of the equations for the first five tokens and the bare base model after them."""
    mogu = tiny_mogu(name)
    plain, _ = plain_copy(name, mogu)
    base = ARCHITECTURES[name]()
    expected = []
    for prompt in PROMPTS:
        ids = list(prompt)
        for step in range(9):
            with torch.no_grad():
                logits = (plain if step < 5 else base)(input_ids=torch.tensor([ids]), use_cache=False).logits
            ids.append(int(logits[0, -1].argmax()))
        expected.append(tuple(ids[len(prompt) :]))
    mogu.fold()
    found = mogu.generate(PROMPTS, GenerationSettings(max_new_tokens=9, slots=2), m=5, eos_ids=[])
    assert tokens(found) == expected
    alone = Generator(base, GenerationSettings(max_new_tokens=9), pad_id=0, eos_ids=[]).generate(PROMPTS)
    assert tokens(found) != tokens(alone), "the mixture must show"


@pytest.mark.parametrize("mode", ["first_m", "keep_cache", "always"])
@pytest.mark.parametrize("name", ["llama", "mistral", "gpt2", "falcon_alibi"])
def test_rows_of_a_batch_are_the_rows_alone_whatever_phase_the_others_are_in(name: str, mode: Mode) -> None:
    """Two slots and budgets of one's own: rows enter and leave while their neighbours are mixed or not."""
    mogu = tiny_mogu(name)
    prompts = [*PROMPTS, *[p[::-1] for p in PROMPTS]]
    limits = [12, 3, 9, 1, 7, 12]
    engine = mogu.generator(GenerationSettings(slots=2), mode=mode, m=4, eos_ids=[])
    together = tokens(engine.generate(prompts, max_new_tokens=limits))
    alone = [tokens(engine.generate([p], max_new_tokens=[n]))[0] for p, n in zip(prompts, limits, strict=True)]
    assert together == alone
    assert [len(ids) for ids in together] == limits


@pytest.mark.parametrize("name", ["llama", "qwen3", "gpt_neox", "gpt2"])
def test_cached_equals_uncached(name: str) -> None:
    mogu = tiny_mogu(name)
    cases: tuple[tuple[int, Mode], ...] = ((4, "first_m"), (100, "always"), (0, "off"))
    for m, mode in cases:
        found = mogu.generate(PROMPTS, LONG, mode=mode, m=m, eos_ids=[])
        assert tokens(found) == [by_hand(mogu, prompt, m, 12, set()) for prompt in PROMPTS]


def test_keeping_the_cache_goes_on_from_what_the_mixture_has_computed() -> None:
    mogu = tiny_mogu()
    ids = torch.tensor([PROMPTS[0]])
    expected = []
    with torch.no_grad():
        out = mogu.model(input_ids=ids, use_cache=True)
        for step in range(1, 10):
            expected.append(int(out.logits[0, -1].argmax()))
            with mogu.control.set(active=step < 3):
                cache = {CACHE: cache_in(out)}
                out = mogu.model(input_ids=torch.tensor([[expected[-1]]]), use_cache=True, **cache)
    found = mogu.generate(PROMPTS[:1], GenerationSettings(max_new_tokens=9), mode="keep_cache", m=3, eos_ids=[])
    assert found[0].token_ids == tuple(expected)


def test_off_is_the_base_model_token_for_token() -> None:
    mogu = tiny_mogu()
    base = Generator(ARCHITECTURES["llama"](), LONG, pad_id=0, eos_ids=[]).generate(PROMPTS)
    assert mogu.generate(PROMPTS, LONG, mode="off", eos_ids=[]) == base


def test_an_end_of_sequence_among_the_first_tokens_ends_the_row() -> None:
    mogu = tiny_mogu()
    free = tokens(mogu.generate(PROMPTS, LONG, m=5, eos_ids=[]))
    several = [free[0][1], free[2][3]]
    for mode in ("first_m", "keep_cache"):
        found = mogu.generate(PROMPTS, LONG, mode=mode, m=5, eos_ids=several)
        for done, whole in zip(found[::2], free[::2], strict=True):
            end = next(i for i, token in enumerate(whole) if token in several)
            assert end < 5
            assert done == Completion(whole[: end + 1], "stop")


def test_sampling_is_a_function_of_the_rows_seed_through_the_hand_off() -> None:
    """The random numbers of a row go on where they were when it is prefilled anew."""
    mogu = tiny_mogu()
    settings = GenerationSettings(max_new_tokens=10, temperature=1.0, slots=2)
    together = mogu.generate(PROMPTS, settings, m=4, seeds=[7, 8, 9], eos_ids=[])
    alone = [
        mogu.generate([p], settings, m=4, seeds=[s], eos_ids=[])[0] for p, s in zip(PROMPTS, (7, 8, 9), strict=True)
    ]
    assert together == alone
    assert together[0] != mogu.generate([PROMPTS[0]], settings, m=4, seeds=[8], eos_ids=[])[0]
    always = mogu.generate(PROMPTS, settings, mode="always", seeds=[7, 8, 9], eos_ids=[])
    assert [done.token_ids[:4] for done in always] == [done.token_ids[:4] for done in together]


class Passes(GenerationListener):
    n = 0

    def before_forward(self, rows: torch.Tensor) -> None:
        self.n += 1


@pytest.mark.parametrize("mode", ["first_m", "keep_cache", "always", "off"])
def test_streamed_tokens_are_the_generated_ones_in_order(mode: Mode) -> None:
    mogu = tiny_mogu()
    engine = mogu.generator(GenerationSettings(max_new_tokens=9, slots=2), mode=mode, m=3, eos_ids=[])
    expected = tokens(engine.generate(PROMPTS))
    rows: dict[int, list[int]] = {row: [] for row in range(len(PROMPTS))}
    passes = Passes()
    engine.listeners.append(passes)
    for n, (row, token) in enumerate(engine.stream(PROMPTS)):
        assert n or passes.n == 1, "the first token comes before a second one is computed"
        rows[row].append(token)
    assert passes.n > 9
    assert [tuple(ids) for ids in rows.values()] == expected


def test_a_mode_that_does_not_exist_is_an_error() -> None:
    mogu = tiny_mogu()
    misspelt: Any = "alwasy"
    with pytest.raises(InputError, match=r"model\.mode: 'alwasy' is unknown; use one of first_m, keep_cache, always"):
        mogu.generate(PROMPTS, LONG, mode=misspelt)
    with pytest.raises(InputError, match=r"model\.m: -1 is not a number of tokens; use 1 or more"):
        mogu.generate(PROMPTS, LONG, m=-1)


@pytest.mark.parametrize("slots", [1, 3])
def test_gates_on_request_are_those_of_the_tokens_that_the_mixture_has_read(slots: int) -> None:
    mogu = tiny_mogu()
    settings = GenerationSettings(max_new_tokens=8, slots=slots)
    cases: tuple[tuple[Mode, int], ...] = (("keep_cache", 3), ("first_m", 3), ("always", 8))
    for mode, read in cases:
        found, gates = mogu.generate(PROMPTS, settings, mode=mode, m=3, gates=True, eos_ids=[])
        for row, (prompt, done) in enumerate(zip(PROMPTS, found, strict=True)):
            ids = [*prompt, *done.token_ids][: len(prompt) + read - 1]
            expected = mogu.gates(torch.tensor([ids]))[:, 0].transpose(0, 1)
            torch.testing.assert_close(gates[row], expected, atol=1e-4, rtol=1e-4)


def test_listeners_hear_each_row_once_and_every_pass() -> None:
    class Heard(GenerationListener):
        def __init__(self) -> None:
            self.passes: list[list[int]] = []
            self.finished: list[int] = []

        def before_forward(self, rows: Tensor) -> None:
            self.passes.append(rows.tolist())

        def row_finished(self, row: int, completion: Completion) -> None:
            self.finished.append(row)

    mogu = tiny_mogu()
    engine = mogu.generator(GenerationSettings(max_new_tokens=6), m=2, eos_ids=[])
    heard = Heard()
    engine.listeners.append(heard)
    engine.generate(PROMPTS)
    assert sorted(heard.finished) == [0, 1, 2]
    # Two mixed passes (a prefill, a token), a second prefill by the base, three tokens.
    assert len(heard.passes) == 6


def test_negative_or_pointless_m_is_an_error() -> None:
    mogu = tiny_mogu()
    with pytest.raises(InputError, match=r"model\.m: -1 is not a number of tokens"):
        mogu.generate(PROMPTS, LONG, m=-1, eos_ids=[])
    with pytest.raises(InputError, match=r"set model\.mode: off"):
        mogu.generate(PROMPTS, LONG, m=0, eos_ids=[])


@pytest.mark.parametrize("mode", ["first_m", "keep_cache", "always"])
def test_a_prompt_of_several_rows_is_read_once_and_gates_are_kept_for_each(mode: Mode) -> None:
    mogu = tiny_mogu()
    generator = mogu.generator(GenerationSettings(max_new_tokens=6, slots=3), mode=mode, m=2, eos_ids=[])
    once = generator.generate([PROMPTS[0]] * 3)
    assert once == generator.generate([PROMPTS[0]]) * 3
    generator.keep_gates = True
    assert generator.generate([PROMPTS[0]] * 3) == once
    assert torch.equal(generator.gates[0], generator.gates[2])
    assert len(generator.gates[0]) >= len(PROMPTS[0])
