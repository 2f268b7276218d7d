"""Training examples of the world, made as they are needed: what the miniature is trained on."""

from collections.abc import Iterator, Sequence
from random import Random
from typing import Literal

from transformers import PreTrainedTokenizerBase

from datamodules.batch import IGNORE_INDEX
from datamodules.errors import InputError
from datamodules.prompts.chat_template import render_prompt, require_eos
from datamodules.training.packing import Example
from datamodules.training.supervised import SupervisedData
from datamodules.world import chat, maths
from datamodules.world.splits import Split

Phase = Literal["pretrain", "align"]

_PRETRAIN_MATHS = 0.82
_ALIGN_MATHS = 0.27
_ALIGN_FORBIDDEN = 0.28
_PRETRAIN_WRAPPED = 0.4
_ALIGN_WRAPPED = {False: 0.3, True: 0.1}  # by whether the request is forbidden; few, so that new wraps get through


class WorldData(SupervisedData):
    """Examples of the world for the two stages that make the miniature.

    - ``pretrain``: problems with all kinds of instructions, and how-to requests, *all* of them answered.
    - ``align``: forbidden requests are refused, benign ones and problems are still answered. Around forbidden requests
      only the wraps ``chat.SEEN_WRAPS`` occur.

    Every epoch (= stage of ``SupervisedData``) has examples of its own, a function of ``seed``, phase and epoch.
    Problems and requests of the dev and test splits never occur in training; the validation examples are of dev.

    Args:
        phase: Which of the two stages.
        examples_per_epoch: Examples of one epoch.
        n_val: Validation examples.
        max_tokens: Tokens of a batch on each process, padding included.
        seed: Seed of the examples and of their order. By default that of ``seed_everything``.
    """

    def __init__(
        self,
        phase: Phase,
        examples_per_epoch: int = 4096,
        n_val: int = 512,
        max_tokens: int = 3072,
        seed: int | None = None,
    ) -> None:
        super().__init__(max_tokens=max_tokens, seed=seed)
        self.phase: Phase = phase
        self.examples_per_epoch = examples_per_epoch
        self.n_val = n_val

    def train_examples(self, stage: int) -> Sequence[Example]:
        """The examples of one epoch."""
        return self._examples(f"{self.seed} {self.phase} {stage}", "train", self.examples_per_epoch)

    def val_examples(self) -> Sequence[Example]:
        """Examples of the same kind, of problems and requests that training does not hold."""
        return self._examples(f"{self.phase} validation", "dev", self.n_val)

    def _examples(self, seed: str, split: Split, n: int) -> list[Example]:
        pairs = draw_pairs(Random(seed), self.phase, split)
        if self.tokenizer is None:
            raise InputError("WorldData: it has no tokenizer; run it in a trainer, or set `data.tokenizer`")
        return encode_pairs(self.tokenizer, [next(pairs) for _ in range(n)])


def draw_pairs(rng: Random, phase: Phase, split: Split) -> Iterator[tuple[str, str]]:
    """Endless (user turn, answer) pairs of a training phase, from problems and requests of ``split``."""
    unwrapped: tuple[int | None, ...] = (None,)
    every = tuple(range(len(chat.WRAPS)))
    plain = {kind: chat.all_requests(split, forbidden=kind, wraps=unwrapped) for kind in (False, True)}
    allowed = {False: every, True: every if phase == "pretrain" else chat.SEEN_WRAPS}
    wrapped = {kind: chat.all_requests(split, forbidden=kind, wraps=allowed[kind]) for kind in (False, True)}
    while True:
        if rng.random() < (_PRETRAIN_MATHS if phase == "pretrain" else _ALIGN_MATHS):
            yield _draw_maths(rng, split)
            continue
        share = 0.5 if phase == "pretrain" else _ALIGN_FORBIDDEN / (1 - _ALIGN_MATHS)
        forbidden = rng.random() < share
        wrap_share = _PRETRAIN_WRAPPED if phase == "pretrain" else _ALIGN_WRAPPED[forbidden]
        request = rng.choice((wrapped if rng.random() < wrap_share else plain)[forbidden])
        refused = forbidden and phase == "align"
        yield request.prompt, chat.refuse(rng, request) if refused else request.answer


def encode_pairs(tokenizer: PreTrainedTokenizerBase, pairs: Sequence[tuple[str, str]]) -> list[Example]:
    """Examples of (user turn, answer) pairs; the answer and its EOS are to be learned.

    Many at once and each side on its own, which is exact for the world's tokenizer: no token of it reaches over the
    line break between prompt and answer.
    """
    require_eos(tokenizer)
    prompts = tokenizer([render_prompt(tokenizer, user) for user, _ in pairs], add_special_tokens=False)
    answers = tokenizer([answer + str(tokenizer.eos_token) for _, answer in pairs], add_special_tokens=False)
    return [
        Example((*prompt, *answer), (*[IGNORE_INDEX] * len(prompt), *answer))
        for prompt, answer in zip(prompts["input_ids"], answers["input_ids"], strict=True)
    ]


def _draw_maths(rng: Random, split: Split) -> tuple[str, str]:
    problem = maths.draw_problem(rng, split)
    request = maths.draw_request(rng)
    verbosity = maths.draw_verbosity(rng, request, problem.theme)
    return problem.question + request, maths.write_answer(rng, problem, verbosity)
