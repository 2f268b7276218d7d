"""The generator against `model.generate`, row by row, whatever the batch looks like."""

import json
import os
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PromptTuningConfig, get_peft_model
from torch import Tensor, distributed
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from datamodules.errors import InputError
from llm_modules.generation import Completion, GenerationListener, GenerationSettings, Generator, decoding
from tests.architectures import ARCHITECTURES, MAX_POSITIONS, VOCAB
from tests.processes import Processes

EOS = (2, 5)


def ragged(n: int, low: int = 1, high: int = 20, seed: int = 0) -> list[list[int]]:
    draw = random.Random(seed)
    return [[draw.randrange(6, VOCAB) for _ in range(draw.randint(low, high))] for _ in range(n)]


def limits_of(n: int, low: int = 1, high: int = 40) -> list[int]:
    draw = random.Random(1)
    return [draw.randint(low, high) for _ in range(n)]


def alone(model: Any, prompt: Sequence[int], max_new_tokens: int, eos: Sequence[int] = EOS) -> list[int]:
    """What the library's own greedy decoding gives for the prompt in a batch of one."""
    ids = torch.tensor([prompt])
    out = model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=max_new_tokens,
        do_sample=False,
        eos_token_id=list(eos) or None,
        pad_token_id=0,
    )
    return out[0, len(prompt) :].tolist()


def texts(completions: list[Completion]) -> list[list[int]]:
    return [list(completion.token_ids) for completion in completions]


def make(name: str = "llama", eos: Sequence[int] = EOS, **settings: Any) -> Generator:
    return Generator(ARCHITECTURES[name](), GenerationSettings(**settings), pad_id=0, eos_ids=eos)


class Recorder(GenerationListener):
    def __init__(self) -> None:
        self.passes: list[list[int]] = []
        self.finished: list[tuple[int, Completion]] = []

    def before_forward(self, rows: Tensor) -> None:
        self.passes.append(rows.tolist())

    def row_finished(self, row: int, completion: Completion) -> None:
        self.finished.append((row, completion))


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_rows_of_a_refilled_batch_are_what_generate_gives_each_alone(name: str) -> None:
    prompts, limits = ragged(11), limits_of(11)
    generator = make(name, slots=4)
    completions = generator.generate(prompts, max_new_tokens=limits)
    assert texts(completions) == [alone(generator.model, *row) for row in zip(prompts, limits, strict=True)]
    for completion, limit in zip(completions, limits, strict=True):
        assert completion.finish_reason == ("stop" if completion.token_ids[-1] in EOS else "length")
        assert completion.n_tokens == limit or completion.finish_reason == "stop"


def test_prompts_of_very_different_length_and_a_cache_that_outgrows_its_room() -> None:
    prompts = ragged(4, 80, 90) + ragged(6, 1, 6) + ragged(3, 30, 40)
    limits = [3, 120, 40, 7, 90, 1, 2, 3, 20, 5, 30, 2, 80]
    generator = make("mistral", eos=(), slots=4)
    completions = generator.generate(prompts, max_new_tokens=limits)
    assert texts(completions) == [alone(generator.model, *row, ()) for row in zip(prompts, limits, strict=True)]


def test_prefill_in_parts_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    prompts, limits = ragged(17), limits_of(17)
    generator = make(slots=8)
    whole = generator.generate(prompts, max_new_tokens=limits)
    monkeypatch.setattr(decoding, "PREFILL_TOKENS", 25)
    recorder = Recorder()
    generator.listeners.append(recorder)
    assert generator.generate(prompts, max_new_tokens=limits) == whole
    assert len(recorder.passes[0]) == 1  # 20 tokens: a second prompt does not fit


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_prompt_of_several_rows_is_read_once_and_their_tokens_are_the_same(name: str) -> None:
    generator = make(name, eos=(), slots=6, temperature=1.0, max_new_tokens=5)
    prompts = [prompt for prompt in ragged(4, 4, 9) for _ in range(3)]
    computed = 0

    def count(_module: Any, _args: Any, kwargs: dict[str, Any]) -> None:
        nonlocal computed
        computed += kwargs["input_ids"].numel()

    generator.model.register_forward_pre_hook(count, with_kwargs=True)
    shared, n_shared = generator.generate(prompts, seeds=range(12)), computed
    generator.shares_prompts = False
    assert shared == generator.generate(prompts, seeds=range(12))
    assert len({completion.token_ids for completion in shared}) > 4, "each row draws its own tokens"
    decoded = 12 * 4  # the first of five tokens comes from the prompt
    longest = [max(map(len, prompts[start : start + 6])) for start in sorted(range(0, 12, 6), reverse=True)]
    assert n_shared <= decoded + sum(2 * (width - 1) + 6 for width in longest) < computed - n_shared


class Alike(Recorder):
    def reads_alike(self, row: int) -> None:
        """All rows."""


def test_rows_that_no_other_row_is_like_are_read_in_one_pass() -> None:
    recorder = Alike()
    generator = make(eos=(), slots=4, max_new_tokens=1)
    generator.listeners.append(recorder)
    prompts = ragged(3, 4, 9)
    generator.generate([*prompts, prompts[0]])  # one of four saves less than the second pass costs
    assert len(recorder.passes) == 1
    recorder.passes.clear()
    generator.generate([prompts[0]] * 4)
    assert recorder.passes == [[0], [0, 1, 2, 3]]
    recorder.passes.clear()
    generator.generate([[7]] * 4)  # nothing comes before the last token
    assert recorder.passes == [[0, 1, 2, 3]]


def test_a_listener_that_takes_part_in_passes_and_does_not_say_which_rows_are_alike_gets_each() -> None:
    generator = make(eos=(), slots=4, max_new_tokens=1)
    generator.listeners.append(recorder := Recorder())
    generator.generate([[7, 8, 9]] * 4)
    assert recorder.passes == [[0, 1, 2, 3]]


def test_a_listener_can_keep_rows_apart() -> None:
    class Apart(Recorder):
        def reads_alike(self, row: int) -> int:
            return row % 2

    generator = make(eos=(), slots=4, max_new_tokens=1)
    generator.listeners.append(recorder := Apart())
    generator.generate([[7, 8, 9]] * 4)
    assert recorder.passes == [[0, 1], [0, 1, 2, 3]]


def test_lora_counts() -> None:
    model = get_peft_model(ARCHITECTURES["llama"](), LoraConfig(target_modules="all-linear", r=4))
    for parameter in model.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.3)
    prompts = ragged(7)
    generator = Generator(model, GenerationSettings(max_new_tokens=12, slots=3), pad_id=0, eos_ids=EOS)
    completions = texts(generator.generate(prompts))
    assert completions == [alone(model, prompt, 12) for prompt in prompts]
    with model.disable_adapter():
        assert completions != texts(generator.generate(prompts))


@pytest.mark.parametrize("options", [{}, {"top_k": 20}, {"top_p": 0.9}, {"top_k": 40, "top_p": 0.8}])
def test_a_sampled_row_depends_on_nothing_but_itself(options: dict[str, Any]) -> None:
    prompts, limits, seeds = ragged(20), limits_of(20), list(range(100, 120))
    order = random.Random(2).sample(range(20), 20)
    generator = make(slots=3, temperature=1.2, **options)
    want = generator.generate(prompts, seeds, limits)
    assert len({completion.token_ids for completion in want}) > 12
    for slots in (1, 16):
        generator.settings = GenerationSettings(slots=slots, temperature=1.2, **options)
        shuffled = generator.generate(
            [prompts[i] for i in order], [seeds[i] for i in order], [limits[i] for i in order]
        )
        assert shuffled == [want[i] for i in order]
    assert generator.generate(prompts[:1], seeds[:1], limits[:1]) == want[:1]
    assert generator.generate(prompts[:1], [7], [40]) != generator.generate(prompts[:1], [8], [40])


def test_samples_of_a_prompt_follow_the_distribution_of_the_model() -> None:
    generator = make(eos=(), slots=500, temperature=1.0, max_new_tokens=1)
    prompt = ragged(1)[0]
    counts = torch.zeros(VOCAB)
    for completion in generator.generate([prompt] * 4000, range(4000)):
        counts[completion.token_ids[0]] += 1
    with torch.no_grad():
        probs = generator.model(torch.tensor([prompt])).logits[0, -1].softmax(-1)
    # The sampling error of a share p is sqrt(p (1 - p) / n) at one standard deviation.
    assert ((counts / 4000 - probs).abs() <= 5 * (probs * (1 - probs) / 4000).sqrt() + 1e-3).all()


@pytest.mark.parametrize("name", ["gpt2", "opt"])
def test_a_model_with_learned_positions_ends_at_the_last_of_them(name: str) -> None:
    generator = make(name, eos=(), slots=2)
    prompts = ragged(3, MAX_POSITIONS - 4, MAX_POSITIONS - 4)
    prompts[1] = prompts[1] + [9, 9, 9, 9]
    completions = generator.generate(prompts)
    # The token after the last position can still be predicted.
    assert [completion.n_tokens for completion in completions] == [5, 1, 5]
    assert {completion.finish_reason for completion in completions} == {"length"}
    assert texts(completions)[0] == alone(generator.model, prompts[0], 5, ())


def test_rotary_positions_have_no_end() -> None:
    generator = make("llama", eos=(), max_new_tokens=10)
    assert generator.generate(ragged(1, MAX_POSITIONS, MAX_POSITIONS))[0].n_tokens == 10


def test_wrong_input_is_named_before_anything_runs() -> None:
    generator = make(slots=2)
    recorder = Recorder()
    generator.listeners.append(recorder)
    with pytest.raises(InputError, match=r"Prompt 1 .* no tokens"):
        generator.generate([[3], []])
    with pytest.raises(InputError, match=rf"Prompt 2 .* {MAX_POSITIONS + 1} tokens"):
        generator.generate([[3], [4], [5] * (MAX_POSITIONS + 1)])
    with pytest.raises(InputError, match="Row 1 may generate 0"):
        generator.generate([[3], [4]], max_new_tokens=[1, 0])
    assert recorder.passes == []
    wrong: dict[str, Any] = {"max_new_tokens": 0, "temperature": -1, "top_p": 0, "top_k": -1, "slots": 0}
    for name, value in wrong.items():
        with pytest.raises(InputError, match=name):
            GenerationSettings(**{name: value})
    with pytest.raises(InputError, match="temperature"):
        GenerationSettings(temperature=float("nan"))
    tuned = get_peft_model(ARCHITECTURES["llama"](), PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2))
    with pytest.raises(InputError, match="PROMPT_TUNING"):
        Generator(tuned, GenerationSettings(), pad_id=0, eos_ids=())


def test_no_prompts_no_completions() -> None:
    assert make().generate([]) == []


def test_listeners_hear_the_rows_of_each_pass_and_each_row_as_it_finishes() -> None:
    prompts, limits = ragged(17), limits_of(17)
    generator = make(slots=5)
    recorder = Recorder()
    generator.listeners.append(recorder)
    batches: list[int] = []
    hook = generator.model.register_forward_pre_hook(
        lambda _module, _args, inputs: batches.append(len(inputs["input_ids"])), with_kwargs=True
    )
    completions = generator.generate(prompts, max_new_tokens=limits)
    hook.remove()
    assert [len(rows) for rows in recorder.passes] == batches
    # Each row is computed exactly once for each of its tokens: nothing idles, nothing is computed twice.
    computed = [sum(rows.count(row) for rows in recorder.passes) for row in range(17)]
    assert computed == [completion.n_tokens for completion in completions]
    assert sorted(row for row, _ in recorder.finished) == list(range(17))
    assert all(completions[row] == completion for row, completion in recorder.finished)
    assert [row for row, _ in recorder.finished] != list(range(17))  # as they finish, not at the end


def test_row_finished_comes_before_the_next_pass() -> None:
    class Order(GenerationListener):
        def __init__(self) -> None:
            self.left = dict.fromkeys(range(17), 0)

        def before_forward(self, rows: Tensor) -> None:
            for row in rows.tolist():
                self.left[row] += 1
                assert row not in done

        def row_finished(self, row: int, completion: Completion) -> None:
            done.add(row)
            assert self.left[row] == completion.n_tokens

    done: set[int] = set()
    generator = make(slots=5)
    generator.listeners.append(Order())
    generator.generate(ragged(17), max_new_tokens=limits_of(17))
    assert len(done) == 17


def test_an_exception_of_a_listener_leaves_the_generator_usable() -> None:
    class Full(GenerationListener):
        def row_finished(self, row: int, completion: Completion) -> None:
            raise OSError("disk full")

    generator = make(slots=3, max_new_tokens=6)
    generator.model.train()
    want = generator.generate(ragged(7))
    generator.listeners.append(Full())
    with pytest.raises(OSError, match="disk full"):
        generator.generate(ragged(7))
    assert generator.model.training
    generator.listeners.clear()
    assert generator.generate(ragged(7)) == want


def test_generates_in_evaluation_mode_without_gradients_and_restores_every_module() -> None:
    class Modes(GenerationListener):
        def before_forward(self, rows: Tensor) -> None:
            assert not torch.is_grad_enabled()
            assert not any(module.training for module in model.modules())

    model = get_peft_model(ARCHITECTURES["llama"](), LoraConfig(target_modules="all-linear", lora_dropout=0.5))
    model.train()
    model.get_submodule("base_model.model.model.layers.1").eval()
    before = {name: module.training for name, module in model.named_modules()}
    generator = Generator(model, GenerationSettings(max_new_tokens=3), pad_id=0, eos_ids=())
    generator.listeners.append(Modes())
    generator.generate(ragged(2))
    assert {name: module.training for name, module in model.named_modules()} == before
    loss = model(torch.tensor([[3, 4, 5]]), labels=torch.tensor([[3, 4, 5]])).loss
    loss.backward()  # nothing of the generation is left that would forbid it


def test_logits_of_prompts_are_not_materialised() -> None:
    generator = make(slots=4, max_new_tokens=2, eos=())
    shapes: list[tuple[int, ...]] = []
    head = generator.model.get_output_embeddings()
    hook = head.register_forward_hook(lambda _module, _args, out: shapes.append(tuple(out.shape)))
    generator.generate(ragged(4, 10, 10))
    hook.remove()
    assert shapes == [(4, 1, VOCAB)] * 2


class ShortOfMemory(GenerationListener):
    """Has memory for passes of a few rows, and runs out at the next larger one after some passes."""

    def __init__(self, rows: int, after: int = 0) -> None:
        self.rows, self.after, self.passes = rows, after, 0
        self.finished: list[int] = []

    def before_forward(self, rows: Tensor) -> None:
        self.passes += 1
        if len(rows) > self.rows and self.passes > self.after:
            raise torch.OutOfMemoryError("CUDA out of memory")

    def row_finished(self, row: int, completion: Completion) -> None:
        self.finished.append(row)


@pytest.mark.parametrize("after", [0, 12])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_out_of_memory_halves_the_slots_and_loses_no_row(after: int, temperature: float) -> None:
    prompts, limits = ragged(12), limits_of(12)
    whole = make(slots=8, temperature=temperature).generate(prompts, max_new_tokens=limits)
    short, memory = make(slots=8, temperature=temperature), ShortOfMemory(2, after)
    short.listeners.append(memory)
    with pytest.warns(UserWarning, match=r"ran out of memory with 4 rows; going on with generation.slots 2"):
        found = short.generate(prompts, max_new_tokens=limits)
    assert texts(found) == texts(whole)
    assert sorted(memory.finished) == list(range(12))
    assert short.settings.slots == 2, "the next call would run out of memory again"


def test_a_stream_yields_no_token_twice_after_a_lack_of_memory() -> None:
    prompts = ragged(6)
    whole = make(slots=4, max_new_tokens=9).generate(prompts)
    short = make(slots=4, max_new_tokens=9)
    short.listeners.append(ShortOfMemory(2, after=5))
    streamed: dict[int, list[int]] = {row: [] for row in range(6)}
    with pytest.warns(UserWarning, match="ran out of memory"):
        tokens = list(short.stream(prompts))
    for row, token in tokens:
        streamed[row].append(token)
    assert list(streamed.values()) == texts(whole)


def test_a_row_that_does_not_fit_alone_is_an_error_of_one_line() -> None:
    short = make(slots=2)
    short.listeners.append(ShortOfMemory(0))
    with pytest.warns(UserWarning, match="slots 1"), pytest.raises(InputError, match=r"with generation.slots 1: lower"):
        short.generate(ragged(3))


@pytest.mark.slow
def test_ranks_of_a_sharded_model_keep_step_with_uneven_prompts(tmp_path: Path) -> None:
    """2 processes, one with many prompts, one with few, then with none: the same completions as in one process."""
    Processes(run_rank, tmp_path, ranks=2, log=tmp_path / "log.txt").succeed()
    prompts, limits = ragged(14), limits_of(14)
    want = texts(make(slots=3).generate(prompts, max_new_tokens=limits))
    found = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2)]
    assert found[0]["uneven"] == want[:11]
    assert found[1]["uneven"] == want[11:]
    assert found[0]["one_idle"] == want[:4]
    assert found[1]["one_idle"] == []
    assert found[0]["passes"] == found[1]["passes"]


def run_rank(folder: Path) -> None:
    """What each process of the sharded test does."""
    rank = int(os.environ["LOCAL_RANK"])
    distributed.init_process_group("gloo", rank=rank, world_size=2)
    model = ARCHITECTURES["llama"]()
    mesh = init_device_mesh("cpu", (2,))
    for layer in model.model.layers:
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)
    generator = Generator(model, GenerationSettings(slots=3), pad_id=0, eos_ids=EOS, synced=True)
    recorder = Recorder()
    generator.listeners.append(recorder)
    prompts, limits = ragged(14), limits_of(14)
    mine = slice(0, 11) if rank == 0 else slice(11, 14)
    uneven = generator.generate(prompts[mine], max_new_tokens=limits[mine])
    few = slice(0, 4 if rank == 0 else 0)
    one_idle = generator.generate(prompts[few], max_new_tokens=limits[few])
    record = {"uneven": texts(uneven), "one_idle": texts(one_idle), "passes": len(recorder.passes)}
    (folder / f"{rank}.json").write_text(json.dumps(record))
    distributed.destroy_process_group()
