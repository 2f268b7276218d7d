"""Ask a question of every voice of some models, token by token."""

import threading
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import Any

import torch

from datamodules.answers import AnswerChecker, AnswerRule
from datamodules.prompts import ChatTemplate, decode_completion, encode_prompt, render_prompt, user_turn
from datamodules.records.kinds import System
from llm_modules import generation
from llm_modules.causal_lm import CausalLM
from llm_modules.mogu.config import Mode
from llm_modules.mogu.decoding import MoGUGenerator
from llm_modules.mogu.module import MoGU
from llm_modules.s3cot import Steering, layer_indicator
from rod.play.direction import Steer

RULE = AnswerRule()


@dataclass(frozen=True)
class Voice:
    """One answer of the page: a model, its strength, and for a MoGU who writes."""

    name: str
    model: int
    alpha: float = 0.0
    mode: Mode | None = None


@dataclass(frozen=True)
class Options:
    """How a question is asked.

    Attributes:
        system: Instruction after the question: System 1, System 2 or none (``plain``).
        alpha: Strength of the steered voice.
        gate_shift: As in `llm_modules.mogu.module.MoGU`, for the mixture of a MoGU.
    """

    system: System = "plain"
    alpha: float = 0.0
    gate_shift: float = 0.0
    max_new_tokens: int = 512
    temperature: float = 0.0
    seed: int = 0


@dataclass
class Answer:
    """What a voice has said so far.

    Attributes:
        first_after: Seconds from the start of its generation to the first token.
        gates: After the end, for the mixture of a MoGU: each token of prompt and answer with the means over the layers
            of its glad and its unwilling gate.
        n_prompt: Tokens of the prompt.
    """

    voice: Voice
    tokenizer: Any
    token_ids: list[int] = field(default_factory=list)
    first_after: float | None = None
    finish: str | None = None
    gates: list[tuple[str, float, float]] = field(default_factory=list)
    n_prompt: int = 0

    @property
    def text(self) -> str:
        """The text so far."""
        return decode_completion(self.tokenizer, self.token_ids)

    @property
    def found(self) -> str | None:
        """The answer that is found in the text, by the rule for mathematics."""
        return RULE.extract(self.text, finished=self.finish == "stop") if self.token_ids else None


class Player:
    """Models, perhaps a direction, and the answers to the last question.

    One question is asked at a time: a second one waits until the iterator of the first has ended or is closed.

    Attributes:
        steer: Steers the first model; it may be replaced between questions.
    """

    def __init__(
        self,
        models: Sequence[CausalLM],
        names: Sequence[str],
        steer: Steer | None = None,
        template: ChatTemplate | None = None,
    ) -> None:
        """Keep the models with their names, at most two, and the chat template if it is not their tokenizers' own."""
        self.models, self.names, self.steer = list(models), list(names), steer
        self.template = template or ChatTemplate()
        self._busy = threading.Lock()

    @property
    def can_steer(self) -> bool:
        """Whether the first model may be steered: a MoGU is not."""
        return not isinstance(self.models[0], MoGU)

    def voices(self, alpha: float) -> list[Voice]:
        """The answers that a page has: of each model, and of a MoGU the mixture and both responders."""
        found: list[Voice] = []
        for index, (module, name) in enumerate(zip(self.models, self.names, strict=True)):
            before = f"{name}: " if len(self.models) > 1 else ""
            if isinstance(module, MoGU):
                modes: tuple[tuple[str, Mode], ...] = (
                    ("mixture", module.mode),
                    ("glad", "glad"),
                    ("unwilling", "unwilling"),
                )
                found += [Voice(f"{before}{word}", index, mode=mode) for word, mode in modes]
            else:
                found.append(Voice(f"{before}original" if self.steer and not index else name, index))
                if index == 0 and self.steer is not None:
                    found.append(Voice(f"{before}steered by {alpha:g}", index, alpha))
        return found

    def answers(self, alpha: float) -> list[Answer]:
        """An empty answer of each voice."""
        return [Answer(voice, self.models[voice.model].tokenizer) for voice in self.voices(alpha)]

    def ask(self, question: str, options: Options, answers: Sequence[Answer]) -> Generator[None, None, None]:
        """Fill the answers; yields after every token. Close the iterator to stop.

        Voices of one model and mode are rows of one batch. InputError if the question or an option cannot be asked.
        """
        with self._busy:
            for (model, mode), group in groupby(answers, lambda answer: (answer.voice.model, answer.voice.mode)):
                rows, begin = list(group), time.monotonic()
                for row, token in self._stream(self.models[model], mode, question, options, rows):
                    answer = rows[row]
                    if answer.first_after is None:
                        answer.first_after = time.monotonic() - begin
                    answer.token_ids.append(token)
                    ends = token in self.models[model].eos_ids
                    answer.finish = "stop" if ends else "length" if self._full(answer, options) else None
                    yield
                for answer in rows:
                    answer.finish = answer.finish or "length"
            yield

    def _full(self, answer: Answer, options: Options) -> bool:
        return len(answer.token_ids) >= options.max_new_tokens

    def _stream(
        self, module: CausalLM, mode: Mode | None, question: str, options: Options, answers: Sequence[Answer]
    ) -> Iterator[tuple[int, int]]:
        """Tokens of the rows of one model, as (row, token)."""
        tokenizer, generator = module.tokenizer, module.generator
        template = self.template.of(options.system)
        text = render_prompt(tokenizer, user_turn(question, options.system), template=template)
        prompt = encode_prompt(tokenizer, text)
        prompts, seeds = [prompt] * len(answers), [options.seed] * len(answers)
        generator.settings = replace(
            generator.settings, max_new_tokens=options.max_new_tokens, temperature=options.temperature
        )
        with ExitStack() as stack:
            if isinstance(generator, MoGUGenerator) and mode is not None:
                stack.callback(setattr, generator, "mode", generator.mode)
                generator.mode = mode
                stack.callback(generator.mogu.shift_gates, -options.gate_shift)
                generator.mogu.shift_gates(options.gate_shift)
            if self.steer is not None and any(answer.voice.alpha for answer in answers):
                self._steer(stack, module, [answer.voice.alpha for answer in answers])
            if isinstance(generator, generation.Generator):
                yield from stack.enter_context(closing(generator.stream(prompts, seeds)))
            else:  # a model without a cache does not stream
                for row, completion in enumerate(generator.generate(prompts, seeds)):
                    yield from ((row, token) for token in completion.token_ids)
            for answer in answers:
                answer.n_prompt = len(prompt)
                if isinstance(module, MoGU) and mode == module.mode:
                    answer.gates = gates_of(module, prompt + answer.token_ids)

    def _steer(self, stack: ExitStack, module: CausalLM, alphas: Sequence[float]) -> None:
        assert self.steer is not None
        steering = Steering(module.language_model, self.steer.direction.vectors, self.steer.positions)
        stack.enter_context(steering)
        rows = layer_indicator([self.steer.layers] * len(alphas), self.steer.direction)
        steering.set_strengths(torch.tensor(alphas)[:, None] * rows)
        module.generator.listeners.append(steering)
        stack.callback(module.generator.listeners.remove, steering)


def gates_of(module: MoGU, token_ids: Sequence[int]) -> list[tuple[str, float, float]]:
    """Each token with the means over the layers of its glad and its unwilling gate."""
    ids = torch.tensor([list(token_ids)], device=module.language_model.device)
    gates = module.mogu.gates(ids)[:, 0].float().mean(dim=0).tolist()
    texts = [str(module.tokenizer.decode([token])) for token in token_ids]
    return [(text, glad, unwilling) for text, (glad, unwilling) in zip(texts, gates, strict=True)]


def agreement(answers: Sequence[Answer], checker: AnswerChecker) -> list[str]:
    """For each answer, how it compares with the first one: ``""`` for the first, or if neither has an answer."""
    first = answers[0].found
    told = [""]
    for answer in answers[1:]:
        found = answer.found
        if first is None or found is None:
            told.append("" if first is found is None else "no answer found" if found is None else "")
        else:
            told.append("same answer" if checker.check([(first, found)])[0] else "another answer")
    return told
