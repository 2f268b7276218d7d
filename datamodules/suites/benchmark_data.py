"""The data of ``rod test``: any choice of suites, as rows to generate for and responses to score."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from datamodules.batch import PromptRow, ResponseBatch, System
from datamodules.errors import InputError
from datamodules.prompts.chat_template import encode_pair, encode_prompt, render_prompt, user_turn
from datamodules.prompts.prompt_data import GenerationData, PromptBatches, stable_seed
from datamodules.records.kinds import Question
from datamodules.records.questions import shard_of, tokenizer_of
from datamodules.suites.attack_templates import OPENING, WrapName, wrap
from datamodules.suites.suite import Item, Suite, items_of, user_question
from datamodules.training.packing import Example, pad

RESPONSES_PER_BATCH = 16


@dataclass(frozen=True)
class Response:
    """A given response whose likelihood is measured."""

    id: str
    suite: str
    example: Example


class BenchmarkData(GenerationData):
    """Suites of prompts to measure a model on.

    Attributes:
        items: What each row's question came from, by the question's id, ``{suite}/{record}``.
        responses: Of the perplexity suites, all of them, after ``setup``.
    """

    def __init__(
        self,
        suites: list[Suite] | None = None,
        folder: str | None = None,
        split: str | None = None,
        limit: int | None = None,
        samples: int | None = None,
        max_new_tokens: int | None = None,
        wraps: list[WrapName] | None = None,
        alpha: float = 0.0,
        layer_set: str = "",
        rows_per_batch: int = 256,
        seed: int = 0,
        chat_template: str | None = None,
        system_prompt: str | None = None,
    ) -> None:
        """Say what to measure; files are read in ``setup``.

        Args:
            suites: The suites; fragments in ``configs/suites`` add theirs with ``suites+:``.
            folder: Folder with the local files that suites name; the hub is asked where it is not given.
            split: Of every set that is not a local file, in place of the suites' own: to choose settings on.
            limit: Records of each suite at most: for a quick look.
            samples: Completions of each prompt, in place of the suites' own number.
            max_new_tokens: Budget of every completion, in place of the suites' own.
            wraps: Jailbreak wraps to put safety suites through, one after the other; ``none`` puts them as they are.
            alpha: Strength of steering, for a run with the ``Steer`` callback.
            layer_set: Layers to steer; the callback's own by default.
            rows_per_batch: Rows handed to the generator at once, from which it refills its slots.
            seed: Of the sampling.
            chat_template: ``plain`` or a jinja file, for a model without one or instead of its own.
            system_prompt: A system turn before every question.
        """
        super().__init__(rows_per_batch, seed)
        suites = suites or []
        names = [suite.name for suite in suites]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise InputError(f"data.suites: '{twice[0]}' is there twice; leave one fragment out")
        if not names:
            raise InputError("data.suites: there is none; add a fragment, such as --config configs/suites/gsm8k.yaml")
        for key, value in (("limit", limit), ("samples", samples), ("max_new_tokens", max_new_tokens)):
            if value is not None and value < 1:
                raise InputError(f"data.{key}: must be 1 or more, is {value}")
        if wraps and len(set(wraps)) < len(wraps):
            raise InputError(f"data.wraps: {', '.join(wraps)}: name each once")
        self.suites = {s.name: replace(s, source=replace(s.source, folder=folder)) for s in suites}
        if split is not None:
            for name, suite in self.suites.items():
                if suite.source.path() is not None:
                    raise InputError(
                        f"data.split: suite '{name}' is read from {suite.source.path()}; name another file"
                    )
                self.suites[name] = replace(suite, source=replace(suite.source, split=split))
        self.limit, self.samples, self.max_new_tokens = limit, samples, max_new_tokens
        self.wraps: tuple[WrapName, ...] = tuple(wraps or ("none",))
        self.alpha, self.layer_set = alpha, layer_set
        self.chat_template, self.system_prompt = chat_template, system_prompt
        self.items: dict[str, Item] = {}
        self.responses: list[Response] = []

    def setup(self, stage: str) -> None:
        """Read the suites and render the prompts, before any weights are loaded.

        Raises:
            InputError: A file, a field mapping or the chat template is not usable.
        """
        if self.items:
            return
        tokenizer = tokenizer_of(self)
        for suite in self.suites.values():
            items = [replace(item, id=f"{suite.name}/{item.id}") for item in self._part(suite)]
            self.items.update((item.id, item) for item in items)
            if suite.kind == "perplexity":
                self.responses += [self._response(suite, item, tokenizer) for item in items]
            else:
                self.rows += [row for item in items for row in self._rows(suite, item, tokenizer)]

    def items_of(self, suite: Suite) -> list[Item]:
        """The records of one suite."""
        return [item for question_id, item in self.items.items() if question_id.startswith(f"{suite.name}/")]

    def test_dataloader(self) -> "_Batches":
        """This process's rows and responses that are not done."""
        rank, world_size = shard_of(self)
        pad_id = getattr(self.tokenizer, "pad_token_id", None) or 0
        responses = _response_batches(self.responses, self._done, pad_id, rank, world_size)
        steered = [replace(batch, alpha=self.alpha, layer_set=self.layer_set) for batch in responses]
        return _Batches(self.predict_dataloader(), steered)

    def _part(self, suite: Suite) -> list[Item]:
        """The records that a suite's offset, subset and limits leave."""
        items = items_of(suite, suite.source.read())[suite.offset :]
        if suite.shuffle is not None:
            generator = torch.Generator().manual_seed(suite.shuffle)
            items = [items[index] for index in torch.randperm(len(items), generator=generator).tolist()]
        limit = min((n for n in (suite.limit, self.limit) if n is not None), default=None)
        if not items[:limit]:
            raise InputError(f"suite '{suite.name}': no record is left after the first {suite.offset}")
        return items[:limit]

    def _rows(self, suite: Suite, item: Item, tokenizer: PreTrainedTokenizerBase) -> Iterator[PromptRow]:
        wraps = suite.wraps or (self.wraps if suite.kind == "safety" else ("none",))
        for system in suite.systems:
            for name in wraps:
                wrapped = wrap(name, user_question(item, suite), item.response or OPENING)
                yield from self._samples(suite, item, system, name, wrapped.user, wrapped.prefill, tokenizer)

    def _samples(
        self,
        suite: Suite,
        item: Item,
        system: System,
        wrap_name: WrapName,
        user: str,
        prefill: str,
        tokenizer: PreTrainedTokenizerBase,
    ) -> Iterator[PromptRow]:
        prompt = render_prompt(
            tokenizer, user_turn(user, system), system_prompt=self.system_prompt, template=self.chat_template
        )
        token_ids = tuple(encode_prompt(tokenizer, prompt + prefill))
        for sample in range(self.samples or suite.samples):
            yield PromptRow(
                id=f"{item.id}|{system}|{wrap_name}|s{sample}",
                question=Question(item.id, item.question, item.gold),
                system=system,
                prompt=prompt,
                token_ids=token_ids,
                seed=stable_seed(self.seed, item.id, sample),
                sample=sample,
                alpha=self.alpha,
                layer_set=self.layer_set,
                suite=suite.name,
                wrap=wrap_name,
                prefill=prefill,
                max_new_tokens=self.max_new_tokens or suite.max_new_tokens,
            )

    def _response(self, suite: Suite, item: Item, tokenizer: PreTrainedTokenizerBase) -> Response:
        system = suite.systems[0]
        ids, labels = encode_pair(
            tokenizer,
            user_turn(user_question(item, suite), system),
            item.response,
            system_prompt=self.system_prompt,
            template=self.chat_template,
        )
        return Response(f"{item.id}|{system}|none|s0", suite.name, Example(tuple(ids), tuple(labels)))


class _Batches:
    """Rows to generate for, then responses to score."""

    def __init__(self, prompts: PromptBatches, responses: Sequence[ResponseBatch]) -> None:
        self.batches = [*prompts, *responses]

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Any]:
        yield from self.batches


def _response_batches(
    responses: Sequence[Response], done: Collection[str], pad_id: int, rank: int, world_size: int
) -> list[ResponseBatch]:
    """This process's batches of about equally long responses; every process gets as many, the last ones maybe twice.

    Which responses are together depends on nothing else, not even on what is done: a likelihood has the rounding of
    the batch that it was computed in, and a run that goes on must give the same numbers.
    """
    order = sorted(responses, key=lambda response: -len(response.example.input_ids))
    batches = [order[start : start + RESPONSES_PER_BATCH] for start in range(0, len(order), RESPONSES_PER_BATCH)]
    batches = [batch for batch in batches if any(response.id not in done for response in batch)]
    # A sharded model needs as many forward passes everywhere; ids tell what was scored twice.
    batches += batches[-1:] * (-len(batches) % world_size)
    return [
        ResponseBatch(tuple(r.id for r in batch), pad([r.example for r in batch], pad_id=pad_id))
        for batch in batches[rank::world_size]
    ]
