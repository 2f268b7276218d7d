"""Steering inside vLLM's workers, on layers that stand for those of vLLM: which tokens of which rows, however passes
are cut."""

import base64
import sys
from collections.abc import Sequence
from types import ModuleType, SimpleNamespace
from typing import Any, get_args

import pytest
import torch
from torch import Tensor, nn

from llm_modules.generation.vllm_process import FOLDER
from llm_modules.generation.vllm_worker import rod_steering
from llm_modules.generation.vllm_worker.rod_environment import SAMPLING
from llm_modules.generation.vllm_worker.rod_extension import SteeringExtension
from llm_modules.generation.vllm_worker.rod_steering import Part, PassSteering, cache_salt, decoder_layers, summed
from llm_modules.s3cot.steering import Positions

HIDDEN = 4
PROMPTS = {7: 5, 8: 3, 9: 6}  # row -> tokens of its prompt
STRENGTHS = {7: {"1": 2.0, "2": 2.0}, 8: {}, 9: {"0": -1.0, "2": -1.0}}


class Layer(nn.Module):
    """Returns what it adds and the stream, as vLLM's layers do."""

    def forward(self, change: Tensor, stream: Tensor) -> tuple[Tensor, Tensor]:
        return torch.zeros_like(change), stream + change


class Runner:
    """Computes parts of rows; keeps what was added to each (row, place, layer)."""

    def __init__(self, positions: str) -> None:
        self.layers = nn.ModuleList(Layer() for _ in range(3))
        vectors = torch.arange(1.0, 4)[:, None].expand(3, HIDDEN)
        self.parts: list[Part] = []
        self.pass_: Any = None
        self.going_on: set[int] = set()
        self.steering = PassSteering(
            self.layers, vectors, positions, lambda: self.pass_, lambda: self.parts, lambda: self.going_on
        )
        self.added: dict[tuple[int, int, int], float] = {}

    def __call__(self, *parts: tuple[int, int, int]) -> None:
        """Run a pass of parts (row, first place, tokens)."""
        self.parts, self.pass_, start = [], object(), 0
        for row, first, n in parts:
            self.parts.append(Part(str(row), row, STRENGTHS[row], PROMPTS[row], first, start, start + n))
            start += n
        change, stream = torch.zeros(start, HIDDEN), torch.full((start, HIDDEN), 10.0)
        for layer, module in enumerate(self.layers):
            before = change + stream
            change, stream = module(change, stream)
            for part in self.parts:
                for token in range(part.start, part.end):
                    added = float((change + stream - before)[token, 0])
                    self.added[part.row, part.first + token - part.start, layer] = added


def expected(positions: str, generated: int) -> dict[tuple[int, int, int], float]:
    def here(row: int, place: int) -> bool:
        prompt = PROMPTS[row]
        return {
            "all": True,
            "prompt": place < prompt,
            "last": place == prompt - 1,
            "generated": place >= prompt,
        }[positions]

    return {
        (row, place, layer): (layer + 1) * STRENGTHS[row].get(str(layer), 0.0) if here(row, place) else 0.0
        for row in PROMPTS
        for place in range(PROMPTS[row] + generated)
        for layer in range(3)
    }


def counts(runner: Runner) -> dict[int, int]:
    return {row: told[0] for row in PROMPTS if (told := runner.steering.told(row)) is not None}


def wanted(places: dict[tuple[int, int, int], float]) -> dict[int, int]:
    return {row: sum(bool(value) for (of, *_), value in places.items() if of == row) for row in PROMPTS}


@pytest.mark.parametrize("positions", get_args(Positions))
@pytest.mark.parametrize(
    "passes",
    [
        [[(7, 0, 5), (8, 0, 3), (9, 0, 6)], [(7, 5, 1), (8, 3, 1), (9, 6, 1)], [(7, 6, 1), (8, 4, 1), (9, 7, 1)]],
        # prompts in chunks, beside rows that are decoded, in changing order
        [[(9, 0, 2)], [(9, 2, 3), (7, 0, 1)], [(7, 1, 4), (9, 5, 1), (8, 0, 2)], [(8, 2, 1), (7, 5, 1), (9, 6, 1)],
         [(7, 6, 1), (9, 7, 1), (8, 3, 1)], [(8, 4, 1)]],
        # row 9 is set back, and computes its tokens again
        [[(7, 0, 5), (8, 0, 3), (9, 0, 6)], [(9, 6, 1)], [(7, 5, 1), (8, 3, 1)], [(7, 6, 1), (8, 4, 1), (9, 0, 7)],
         [(9, 7, 1)]],
    ],
)  # fmt: skip
def test_the_same_places_are_steered_and_counted_however_passes_are_cut(
    positions: str, passes: Sequence[Sequence[tuple[int, int, int]]]
) -> None:
    runner = Runner(positions)
    for parts in passes:
        runner(*parts)
    assert runner.added == expected(positions, 2)
    places = {row: places for row, places in wanted(runner.added).items() if STRENGTHS[row]}
    assert counts(runner) == places
    assert counts(runner) == places, "an answer may be lost, and is asked for again"
    assert runner.steering.told(8) is None, "nothing is kept of rows without strengths"


def test_places_of_a_reused_prefix_count_and_have_no_size_of_their_own() -> None:
    runner = Runner("all")
    runner((7, 4, 1))  # four tokens were computed by another row of the same strengths
    runner((7, 5, 1))
    told = runner.steering.told(7)
    assert told is not None
    places, computed, total = told
    assert (places, computed) == (2 * 6, 2 * 2)
    # 2 * 2 = 4 beside 10 in layer 1, 3 * 2 = 6 beside 14 in layer 2
    assert total == pytest.approx(2 * (4 / 10 + 6 / 14), rel=1e-6)


def test_passes_of_no_request_and_removed_hooks_change_nothing() -> None:
    runner = Runner("all")
    stream = torch.ones(2, HIDDEN)
    for _ in range(2):
        change, _ = runner.layers[1](torch.zeros(2, HIDDEN), stream)
        assert not change.any()
        runner((7, 0, 1))
        runner.steering.remove()


def test_many_rows_get_entries_of_their_own() -> None:
    runner = Runner("last")
    for row in range(100, 300):
        PROMPTS[row], STRENGTHS[row] = 1, {"1": float(row)}
    runner(*((row, 0, 1) for row in range(100, 300)))
    assert all(runner.added[row, 0, 1] == 2 * row for row in range(100, 300))
    assert [(runner.steering.told(row) or ())[:2] for row in range(100, 300)] == [(1, 1)] * 200
    for row in range(100, 300):
        del PROMPTS[row], STRENGTHS[row]


def test_rows_that_have_ended_are_forgotten_but_the_last_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rod_steering, "ROWS", 10)
    runner = Runner("all")
    rows = range(1000, 1200)
    PROMPTS.update(dict.fromkeys(rows, 1))
    STRENGTHS.update({row: {"1": 1.0} for row in rows})
    runner((1000, 0, 1), (1001, 0, 1))
    runner.going_on = {1000}  # set back, say: it is in no pass now
    for row in range(1002, 1199):
        runner((row, 0, 1), (1001, row - 1001, 1))
    seen = runner.steering.seen
    assert len(seen) <= 2 * 10 + 1
    assert len(runner.steering.sums) <= 64
    assert {1000, 1001, 1198} <= seen.keys()
    runner((1000, 1, 1))
    for row, places in ((1000, 2), (1001, 198), (1002, None), (1198, 1)):
        told = runner.steering.told(row)
        assert (told and told[:2]) == (places and (places, places)), row
    for row in rows:
        del PROMPTS[row], STRENGTHS[row]


def test_keys_and_values_are_shared_by_prompts_that_are_steered_alike() -> None:
    one = {"2": 1.0, "3": 1.0}
    assert cache_salt("s", "all", one, 5) == cache_salt("s", "all", dict(reversed(one.items())), 9)
    assert cache_salt("s", "all", one, 5) != cache_salt("s", "all", {"2": 1.0}, 5)
    assert cache_salt("s", "last", one, 5) != cache_salt("s", "last", one, 9), "the last token is another"
    assert cache_salt("s", "last", one, 5) != cache_salt("s", "prompt", one, 5)
    assert cache_salt("s", "last", one, 5) != cache_salt("t", "last", one, 5), "other vectors"


def test_workers_with_a_share_of_the_layers_are_summed() -> None:
    assert summed([[(4, 2, 1.0), (0, 0, 0.0)], None, [(2, 2, 3.0), (0, 0, 0.0)]]) == [(6, 1.0), (0, 0.0)]
    assert summed([[None, (1, 1, 2.0)], [None, (0, 0, 0.0)]]) == [None, (1, 2.0)], "a row that is not known"


def test_decoder_layers_are_the_list_of_their_number() -> None:
    model = nn.ModuleDict(
        {"vision_tower": nn.ModuleList(nn.Identity() for _ in range(3)), "layers": Runner("all").layers}
    )
    assert decoder_layers(model, 3) is model["layers"]
    with pytest.raises(ValueError, match="has no list of 4 decoder layers"):
        decoder_layers(model, 4)


class Worker(SteeringExtension):
    """What the extension sees of a worker of vLLM: its layers, and its requests by their name."""

    def __init__(self) -> None:
        self.layers = nn.ModuleList(nn.Linear(HIDDEN, HIDDEN) for _ in range(2))
        self.requests: dict[str, SimpleNamespace] = {}
        self.model_runner = SimpleNamespace(model=nn.ModuleDict({"layers": self.layers}), requests=self.requests)
        self.context: Any = None

    def steer(self, name: str, mark: str = "a") -> str:
        data = base64.b64encode(torch.ones(2, HIDDEN).numpy().tobytes()).decode()
        return self.rod_steer(name, data, 2, "all", mark)

    def begin(self, name: str, row: int) -> None:
        extra = {"row": row, "steering": name, "strengths": {"0": 1.0}}
        state = SimpleNamespace(sampling_params=SimpleNamespace(extra_args=extra), num_prompt_tokens=3)
        self.requests[str(row)] = state

    def run(self) -> None:
        """A pass of three tokens of each request."""
        ids = list(self.requests)
        starts = SimpleNamespace(np=[3 * index for index in range(len(ids) + 1)])
        self.model_runner.query_start_loc = starts
        self.model_runner.input_batch = SimpleNamespace(req_ids=ids, num_computed_tokens_cpu=[0] * len(ids))
        self.context = SimpleNamespace(attn_metadata={})
        for layer in self.layers:
            layer(torch.ones(3 * len(ids), HIDDEN))


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch) -> Worker:
    monkeypatch.syspath_prepend(str(FOLDER))
    made = Worker()
    for name, functions in {
        "vllm": {},
        "vllm.forward_context": {"get_forward_context": lambda: made.context},
        "vllm.distributed": {"get_tensor_model_parallel_rank": lambda: 0},
    }.items():
        module = ModuleType(name)
        vars(module).update(functions)
        monkeypatch.setitem(sys.modules, name, module)
    return made


def test_a_server_keeps_the_last_directions_and_those_of_running_rows(worker: Worker) -> None:
    first = worker.steer("first")
    worker.begin(first, 7)
    worker.run()
    others = [worker.steer(f"other{number}") for number in range(20)]
    assert worker.steer("other18") == others[18], "it is there already"
    assert all(len(layer._forward_hooks) == 5 for layer in worker.layers)
    assert worker.rod_steered(first, [7, 8]) == [(3, 3, pytest.approx(3 * HIDDEN**0.5 / sizes(worker))), None]
    assert worker.rod_steered(others[0], [7]) == [None]
    worker.requests.clear()
    worker.steer("one more")
    assert all(len(layer._forward_hooks) == 4 for layer in worker.layers)
    assert worker.rod_steered(first, [7]) == [None]


def test_a_direction_that_was_dropped_and_comes_again_has_another_name(worker: Worker) -> None:
    first = worker.steer("first", "a")
    for number in range(4):
        worker.steer(f"other{number}")
    worker.begin(first, 7)  # too late
    worker.run()
    again = worker.steer("first", "b")
    assert again != first
    worker.run()
    assert worker.rod_steered(first, [7]) == worker.rod_steered(again, [7]) == [None]


def test_the_extension_says_what_it_serves(worker: Worker) -> None:
    model = SimpleNamespace(dtype=torch.bfloat16, revision="v1", enforce_eager=True, logits_processors=[SAMPLING])
    worker.vllm_config = SimpleNamespace(model_config=model)
    assert worker.rod_about() == {"dtype": "bfloat16", "revision": "v1", "eager": True, "draws": True}


def sizes(worker: Worker) -> float:
    """Norm of what the first layer returns for a token of ones."""
    layer = worker.layers[0]
    assert isinstance(layer, nn.Linear)
    return float((layer.weight.sum(dim=1) + layer.bias).norm().detach())
