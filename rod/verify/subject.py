"""What is checked, and how a check says what it found."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from datamodules.errors import first_line
from llm_modules.backbone.vocabulary import padding_id
from llm_modules.generation import GenerationEngine, GenerationSettings, Generator, TransformersGenerator
from llm_modules.generation.prefill import takes_no_cache

Status = Literal["passes", "fails", "does not apply"]
_TEXTS = (
    "The capital of France is",
    "How do I open a jar? First,",
    "Tom has 3 apples and buys 4 more. He eats 2. How many apples are left? Tom has",
    "Hello",
    "Once upon a time there was a small dog who lived in a big house near the sea, and every day it",
    "2 + 3 =",
)


class DoesNotApplyError(Exception):
    """The model lacks what a check is about; the message says what."""


@dataclass(frozen=True)
class Subject:
    """A model in evaluation mode, and the tokenizer that came with it; None for random weights without one."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase | None = None
    template: str | None = None
    template_kwargs: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def prompts(self) -> list[list[int]]:
        """Token ids of six prompts of different lengths, at least two tokens each."""
        if self.tokenizer is None:
            return [torch.arange(5, 5 + n).mul(7).remainder(90).tolist() for n in (4, 9, 5, 9, 12, 6)]
        found = [self.tokenizer(text)["input_ids"] for text in _TEXTS]
        return [ids if len(ids) > 1 else [*ids, *ids] for ids in found]

    @property
    def pad_id(self) -> int:
        """Any token of the vocabulary."""
        return 0 if self.tokenizer is None else padding_id(self.model, self.tokenizer)

    def generator(self, settings: GenerationSettings, eos_ids: Collection[int] = ()) -> GenerationEngine:
        """The engine that generates with the model: slots, or transformers for a family that takes no cache."""
        engine = TransformersGenerator if takes_no_cache(self.model.config.model_type) else Generator
        return engine(self.model, settings, pad_id=self.pad_id, eos_ids=eos_ids)

    @property
    def exact(self) -> float:
        """Largest difference of logits, as a share of their spread, that is rounding."""
        return 1e-4 if self.model.dtype == torch.float32 else 5e-2

    @torch.no_grad()
    def logits(self, prompt: list[int]) -> Tensor:
        """Logits of a prompt without a cache, (seq, vocab) in float32."""
        ids = torch.tensor([prompt], device=self.model.device)
        return self.model(input_ids=ids, use_cache=False).logits[0].float()

    def require_close(self, found: Tensor, expected: Tensor, what: str) -> str:
        """How close logits are; AssertionError beyond rounding."""
        difference = float((found.float() - expected.float()).abs().max())
        spread = float(expected.max() - expected.min())
        if not difference <= self.exact * spread:
            raise AssertionError(f"{what} differ by up to {difference:.2g}, the logits spread over {spread:.2g}")
        return "bit for bit" if difference == 0 else f"to {difference / spread:.0e}"


Check = Callable[[Subject], str]
"""Says what it found; raises `DoesNotApplyError`, or any other exception if the check fails."""


@dataclass(frozen=True)
class Result:
    """What a check found."""

    check: str
    status: Status
    found: str


def attempt(check: Check, subject: Subject) -> Result:
    """Run a check; any exception but `DoesNotApplyError` is a failure."""
    name = check.__name__.replace("_", " ")
    try:
        return Result(name, "passes", check(subject))
    except DoesNotApplyError as reason:
        return Result(name, "does not apply", str(reason))
    except Exception as error:
        return Result(name, "fails", first_line(error))
