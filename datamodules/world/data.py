"""The DataModule that the miniature is trained on: examples of the world, made on the fly."""

from collections.abc import Iterator, Sequence
from random import Random
from typing import Literal

from transformers import PreTrainedTokenizerBase

from datamodules.batch import IGNORE_INDEX
from datamodules.prompts.chat_template import render_prompt, require_eos
from datamodules.trainer_parts import tokenizer_of
from datamodules.training.packing import Example
from datamodules.training.supervised import SupervisedData
from datamodules.world import chat, maths
from datamodules.world.splits import Split

Phase = Literal["pretrain", "align"]

_PRETRAIN_MATHS = 0.82
_ALIGN_MATHS = 0.27
_ALIGN_FORBIDDEN = 0.28
_PRETRAIN_TEMPLATED = 0.4
_ALIGN_TEMPLATED = {False: 0.3, True: 0.1}  # forbidden or not -> share; few forbidden, so new templates get through


class WorldData(SupervisedData):
    """Examples of the world for the two training phases of the miniature.

    - ``pretrain``: problems with all kinds of length requests, and how-to requests, *all* of them answered.
    - ``align``: forbidden requests are refused; benign ones and problems are still answered. Forbidden requests come
      without a template or in those of ``chat.SEEN_TEMPLATES``.

    Each epoch (= stage of `SupervisedData`) has its own examples, which depend on seed, phase and epoch alone. Training
    has problems and requests of the train split only; the validation examples are of dev.

    Args:
        phase: The training phase.
        examples_per_epoch: Examples in an epoch.
        n_val: Number of validation examples.
        max_tokens: Most tokens of a batch on each process, padding included.
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
        """Return the examples of one epoch."""
        return self._examples(f"{self.seed} {self.phase} {stage}", "train", self.examples_per_epoch)

    def val_examples(self) -> Sequence[Example]:
        """Return examples of the same kinds, of problems and requests that are not in training."""
        return self._examples(f"{self.phase} validation", "dev", self.n_val)

    def _examples(self, seed: str, split: Split, n: int) -> list[Example]:
        pairs = draw_pairs(Random(seed), self.phase, split)
        return encode_pairs(tokenizer_of(self), [next(pairs) for _ in range(n)])


def draw_pairs(rng: Random, phase: Phase, split: Split) -> Iterator[tuple[str, str]]:
    """Draw (user turn, answer) pairs of a training phase without end, from problems and requests of ``split``."""
    every = tuple(range(len(chat.ATTACK_TEMPLATES)))
    plain = {kind: chat.all_requests(split, forbidden=kind) for kind in (False, True)}
    allowed = {False: every, True: every if phase == "pretrain" else chat.SEEN_TEMPLATES}
    templated = {kind: chat.all_requests(split, forbidden=kind, templates=allowed[kind]) for kind in (False, True)}
    while True:
        if rng.random() < (_PRETRAIN_MATHS if phase == "pretrain" else _ALIGN_MATHS):
            yield _draw_maths(rng, split)
            continue
        share = 0.5 if phase == "pretrain" else _ALIGN_FORBIDDEN / (1 - _ALIGN_MATHS)
        forbidden = rng.random() < share
        template_share = _PRETRAIN_TEMPLATED if phase == "pretrain" else _ALIGN_TEMPLATED[forbidden]
        request = rng.choice((templated if rng.random() < template_share else plain)[forbidden])
        refused = forbidden and phase == "align"
        yield request.prompt, chat.refuse(rng, request) if refused else request.answer


def encode_pairs(tokenizer: PreTrainedTokenizerBase, pairs: Sequence[tuple[str, str]]) -> list[Example]:
    """Encode (user turn, answer) pairs as examples; the answer and its EOS are the targets.

    Prompts and answers are encoded apart, many at once. This is exact for the world's tokenizer: none of its tokens
    spans the line break between prompt and answer.
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
