"""Sampling inside vLLM's workers, on batches that change as those of vLLM do."""

from enum import Enum
from types import SimpleNamespace
from typing import Any

import torch

from llm_modules.generation.token_sampling import row_uniforms, sample_tokens
from llm_modules.generation.vllm_worker.rod_sampling import RowSampling

VOCABULARY, LIMIT = 30, 20


class Direction(Enum):
    UNIDIRECTIONAL = 1
    SWAP = 2


def params(seed: int | None, temperature: float = 1.0, top_p: float = 1.0, top_k: int = 0, drawn: int = 0) -> Any:
    draws = {"seed": seed, "drawn": drawn, "temperature": temperature, "top_p": top_p, "top_k": top_k}
    return SimpleNamespace(max_tokens=LIMIT, extra_args={"draws": draws if seed is not None else None})


def update(removed: Any = (), added: Any = (), moved: Any = ()) -> Any:
    return SimpleNamespace(removed=removed, added=added, moved=moved)


def test_each_row_draws_from_the_stream_of_its_seed_wherever_it_is_in_the_batch() -> None:
    sampling = RowSampling(None, None, False)
    outputs: dict[str, list[int]] = {"a": [], "b": [], "c": [], "greedy": []}
    rows: dict[str, tuple[int, Any, Any, Any]] = {"a": (7, 1.0, 1.0, 0), "b": (8, 0.7, 0.9, 0), "c": (9, 1.0, 1.0, 5)}

    def added(index: int, name: str) -> Any:
        return index, params(*rows[name]) if name in rows else params(None), None, outputs[name]

    generator = torch.Generator().manual_seed(0)
    order = ["a", "greedy", "b"]
    sampling.update_state(update(added=[added(i, name) for i, name in enumerate(order)]))
    for step in range(8):
        if step == 3:  # a leaves, c takes its place, c and b change places
            sampling.update_state(update(removed=[0], added=[added(0, "c")], moved=[(0, 2, Direction.SWAP)]))
            order = ["b", "greedy", "c"]
        if step == 5:  # b leaves, the last row moves there
            sampling.update_state(update(removed=[0], moved=[(2, 0, Direction.UNIDIRECTIONAL)]))
            order = ["c", "greedy"]
        sampling.update_state(None)
        logits = torch.randn(len(order), VOCABULARY, generator=generator)
        before = logits.clone()
        chosen = sampling.apply(logits).argmax(dim=-1).tolist()
        for index, name in enumerate(order):
            if name == "greedy":
                assert torch.equal(logits[index], before[index])
            else:
                seed, temperature, top_p, top_k = rows[name]
                uniform = row_uniforms(seed, LIMIT)[len(outputs[name])]
                own = before[index : index + 1]
                assert chosen[index] == int(sample_tokens(own, uniform[None], temperature, top_p, top_k))
            outputs[name].append(chosen[index])
    assert [len(output) for output in outputs.values()] == [3, 5, 5, 8]


def test_a_row_that_another_engine_began_goes_on_in_its_stream() -> None:
    sampling, output = RowSampling(None, None, False), [4]
    sampling.update_state(update(added=[(0, params(7, drawn=5), None, output)]))
    logits = torch.randn(1, VOCABULARY, generator=torch.Generator().manual_seed(0))
    expected = int(sample_tokens(logits.clone(), row_uniforms(7, LIMIT)[6:7], 1.0))
    assert int(sampling.apply(logits).argmax()) == expected
