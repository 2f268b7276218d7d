"""A model and prompts on which engines are compared."""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from llm_modules.backbone.architecture import hidden_size, num_layers
from llm_modules.backbone.loading import load_model, load_tokenizer, resolve
from llm_modules.generation import Completion, GenerationEngine, GenerationSettings, Generator, TransformersGenerator
from llm_modules.generation.remote_model import RemoteModel
from llm_modules.generation.remote_steering import RemoteSteering
from llm_modules.generation.vllm_engine import VllmGenerator
from llm_modules.s3cot import Steering
from llm_modules.s3cot.steering import Positions

NEW = 24
# Passes of 64 tokens cut prompts and mix them with rows that are decoded; blocks of 32 tokens are reused.
OPTIONS = {"max_num_batched_tokens": 64, "block_size": 32, "max_model_len": 512}


class Model:
    """A model of this process, the same in vLLM, and prompts of many lengths, each twice."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.model: Any = load_model(name, dtype="float32").eval()
        tokenizer: Any = load_tokenizer(name)
        self.ends = [tokenizer.eos_token_id]
        self.is_large = self.model.config.vocab_size > 10_000
        things = ["a jar", "a vault without its key", "x", "a door that is stuck since the rain of last week", "it"]
        questions = [f"How do I open {thing}?" * (1 + 3 * (i % 3)) for i, thing in enumerate(things)]
        turns = [[{"role": "user", "content": question}] for question in questions]
        prompts = [tokenizer.apply_chat_template(t, add_generation_prompt=True, return_dict=False) for t in turns]
        self.prompts: list[list[int]] = [*prompts, *prompts]
        self.vectors = torch.randn(
            num_layers(self.model), hidden_size(self.model), generator=torch.Generator().manual_seed(0)
        )
        self.vectors *= 0.3 * self.residual() / self.vectors.norm(dim=1, keepdim=True)
        settings = GenerationSettings(engine="vllm", slots=6, max_new_tokens=NEW)
        settings.vllm.options = dict(OPTIONS)
        self.vllm = VllmGenerator(RemoteModel(resolve(name)), self.model, settings, pad_id=0, eos_ids=self.ends)

    @torch.no_grad()
    def residual(self) -> float:
        """Mean norm of the residual stream."""
        states = self.model(torch.tensor(self.prompts[:1]), output_hidden_states=True).hidden_states
        return float(torch.stack(states[1:]).norm(dim=-1).mean())

    @property
    def others(self) -> list[GenerationEngine]:
        settings = GenerationSettings(slots=6, max_new_tokens=NEW)
        return [kind(self.model, settings, pad_id=0, eos_ids=self.ends) for kind in (Generator, TransformersGenerator)]

    def strengths(self) -> Tensor:
        """0, and others in layers that differ from row to row."""
        found = torch.zeros(len(self.prompts), len(self.vectors))
        middle = len(self.vectors) // 2
        alphas = [0.0, 1.0, -1.0, 2.0, -0.5]
        for row in range(len(self.prompts)):
            found[row, middle - row % 5 % 2 : middle + 2] = alphas[row % 5]
        return found

    def steered(self, engine: GenerationEngine, positions: Positions) -> list[Completion]:
        kind: Any = Steering if isinstance(engine, Generator | TransformersGenerator) else RemoteSteering
        with kind(self.model, self.vectors, positions) as steering:
            steering.set_strengths(self.strengths())
            engine.listeners.append(steering)
            found = engine.generate(self.prompts)
            engine.listeners.remove(steering)
        return found


def check_samples(model: Model, tried: GenerationEngine, top_p: float, top_k: int) -> None:
    """Compare sampled tokens of an engine with those of the others."""
    seeds, limits = range(50, 50 + len(model.prompts)), [NEW - row for row in range(len(model.prompts))]
    engines = [tried, *model.others]
    before = tried.settings
    temperature = 0.7 if model.is_large else 2.0
    for engine in engines:
        engine.settings = replace(engine.settings, temperature=temperature, top_p=top_p, top_k=top_k)
    found = [engine.generate(model.prompts, seeds, limits) for engine in engines]
    tried.settings = before
    assert found[0] == found[1] == found[2]
    assert any(found[0][row].token_ids[:15] != found[0][row + 5].token_ids[:15] for row in range(5)), "two seeds"
