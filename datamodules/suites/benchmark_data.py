"""Data of ``rod test``: any choice of suites, as prompts to complete and responses to score."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from datamodules.batch import PromptRow, ResponseBatch
from datamodules.errors import InputError
from datamodules.prompts.chat_template import ChatTemplate, encode_pair, encode_prompt, render_prompt, user_turn
from datamodules.prompts.control_tokens import tell_control_tokens
from datamodules.prompts.prompt_data import GenerationData
from datamodules.prompts.rows import PromptBatches, stable_seed
from datamodules.records.kinds import Question, System
from datamodules.suites.attack_templates import OPENING, AttackTemplate, render_attack
from datamodules.suites.items import Item, items_of, user_question
from datamodules.suites.suite import Suite
from datamodules.trainer_parts import shard_of, tokenizer_of
from datamodules.training.packing import Example, pad

RESPONSES_PER_BATCH = 16


@dataclass(frozen=True)
class Response:
    """A given response whose likelihood is measured."""

    id: str
    question_id: str
    suite: str
    example: Example

    @property
    def digest(self) -> str:
        """It changes with any token of the prompt or the response."""
        tokens = repr((self.example.input_ids, self.example.labels))
        return blake2b(tokens.encode(), digest_size=8).hexdigest()


class BenchmarkData(GenerationData):
    """Suites of prompts to measure a model on.

    Attributes:
        items: Items by question id, ``{suite}/{record}``, after ``setup``.
        responses: All responses of the perplexity suites, after ``setup``.
    """

    def __init__(
        self,
        suites: list[Suite] | None = None,
        folder: str | None = None,
        split: str | None = None,
        limit: int | None = None,
        samples: int | None = None,
        max_new_tokens: int | None = None,
        attack_templates: list[AttackTemplate] | None = None,
        alpha: float = 0.0,
        layer_set: str = "",
        rows_per_batch: int = 256,
        seed: int | None = None,
        chat_template: str | None = None,
        chat_template_kwargs: dict[str, Any] | None = None,
        system_prompt: str | None = None,
        shard: str | None = None,
    ) -> None:
        """Configure the suites; files are read in ``setup``.

        Args:
            suites: The suites; fragments in ``configs/suites`` add theirs with ``suites+:``.
            folder: Folder with the suites' local files; without it, data sets come from the hub.
            split: Split of every data set that is not a local file, in place of the suites' own.
            limit: Records of each suite at most, for a quick look.
            samples: Completions per prompt, in place of the suites' own number.
            max_new_tokens: Token budget of every completion, in place of the suites' own.
            attack_templates: Attack templates to render the requests of safety suites through; ``none`` is the plain
                request.
            alpha: Steering strength, for a run with the ``Steer`` callback.
            layer_set: Layers to steer; the callback's own by default.
            rows_per_batch: Rows handed to the generator at once, from which it refills its slots.
            seed: Seed of the sampling. By default that of ``seed_everything``.
            chat_template: ``plain`` or a jinja file, in place of the model's own template.
            chat_template_kwargs: Arguments of the template, such as ``{enable_thinking: false}``; see `ChatTemplate`.
            system_prompt: A system turn before every question.
            shard: Part of each suite's records for this run: ``2/8`` is the second of eight; see docs/scale.md.
        """
        super().__init__(rows_per_batch, seed, shard)
        suites = suites or []
        names = [suite.name for suite in suites]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise InputError(f"data.suites: two suites are called '{twice[0]}'; leave one fragment out")
        if not names:
            raise InputError("data.suites: no suite is given; add a fragment: --config suites/gsm8k")
        for key, value in (("limit", limit), ("samples", samples), ("max_new_tokens", max_new_tokens)):
            if value is not None and value < 1:
                raise InputError(f"data.{key}: must be 1 or more, is {value}")
        if attack_templates and len(set(attack_templates)) < len(attack_templates):
            raise InputError(f"data.attack_templates: {', '.join(attack_templates)}: name each once")
        self.suites = {s.name: replace(s, source=replace(s.source, folder=folder)) for s in suites}
        if split is not None:
            for name, suite in self.suites.items():
                if suite.source.path() is not None:
                    raise InputError(
                        f"data.split: suite '{name}' is read from the file {suite.source.path()}, which has no splits; "
                        "leave data.split out or name another file"
                    )
                self.suites[name] = replace(suite, source=replace(suite.source, split=split))
        self.limit, self.samples, self.max_new_tokens = limit, samples, max_new_tokens
        self.attack_templates: tuple[AttackTemplate, ...] = tuple(attack_templates or ("none",))
        self.alpha, self.layer_set = alpha, layer_set
        self.chat_template = ChatTemplate(chat_template, chat_template_kwargs or {})
        self.system_prompt = system_prompt
        self.items: dict[str, Item] = {}
        self._by_suite: dict[str, list[Item]] = {}
        self.responses: list[Response] = []

    def setup(self, stage: str) -> None:
        """Read the suites and render the prompts, before any weights are loaded.

        InputError if a file, an expression or the chat template cannot be used.
        """
        if self.items:
            return
        tokenizer = tokenizer_of(self)
        for suite in self.suites.values():
            items = [replace(item, id=f"{suite.name}/{item.id}") for item in self._part(suite)]
            own = [item for item in items if item.earlier and item.earlier[0].role == "system"]
            if own and self.system_prompt is not None:
                raise InputError(f"{own[0].where}: it has a system prompt of its own; leave data.system_prompt out")
            self._by_suite[suite.name] = items
            self.items.update((item.id, item) for item in items)
            if suite.kind == "perplexity":
                self.responses += [self._response(suite, item, tokenizer) for item in items]
            else:
                self.rows += [row for item in items for row in self._rows(suite, item, tokenizer)]
        texts = ((item.where, text) for item in self.items.values() for text in (item.asked, *item.options))
        tell_control_tokens(tokenizer, "data.suites", texts, "they end the turn, or begin another")

    def items_of(self, suite: Suite) -> list[Item]:
        """The items of one suite, after ``setup``."""
        return self._by_suite[suite.name]

    def test_dataloader(self) -> "_Batches":
        """This process's unfinished rows and responses."""
        rank, world_size = shard_of(self)
        pad_id = getattr(self.tokenizer, "pad_token_id", None) or 0
        responses = _response_batches(self.responses, self._done, pad_id, rank, world_size)
        steered = [replace(batch, alpha=self.alpha, layer_set=self.layer_set) for batch in responses]
        return _Batches(self.predict_dataloader(), steered)

    def _part(self, suite: Suite) -> list[Item]:
        """A suite's items after its offset, random subset and limits, and of the shard."""
        items = items_of(suite, suite.source.read())[suite.offset :]
        if suite.shuffle is not None:
            generator = torch.Generator().manual_seed(suite.shuffle)
            items = [items[index] for index in torch.randperm(len(items), generator=generator).tolist()]
        limit = min((n for n in (suite.limit, self.limit) if n is not None), default=None)
        if not items[:limit]:
            raise InputError(f"suite '{suite.name}': no record is left after offset {suite.offset}; lower it")
        return self.cut(items[:limit], f"suite '{suite.name}'")

    def _rows(self, suite: Suite, item: Item, tokenizer: PreTrainedTokenizerBase) -> Iterator[PromptRow]:
        templates = suite.attack_templates or (self.attack_templates if suite.kind == "safety" else ("none",))
        for system in suite.systems:
            for template in templates:
                attack = render_attack(template, user_question(item, suite), item.response or OPENING)
                yield from self._samples(suite, item, system, template, attack.user, attack.prefill, tokenizer)

    def _samples(
        self,
        suite: Suite,
        item: Item,
        system: System,
        attack_template: AttackTemplate,
        user: str,
        prefill: str,
        tokenizer: PreTrainedTokenizerBase,
    ) -> Iterator[PromptRow]:
        chat_template = self.chat_template.of(system)
        try:
            prompt = render_prompt(
                tokenizer,
                user_turn(user, system),
                system_prompt=self.system_prompt,
                earlier=item.earlier,
                template=chat_template,
            )
        except InputError as error:
            raise InputError(f"{item.where}: {error}" if item.earlier else str(error)) from error
        token_ids = tuple(encode_prompt(tokenizer, prompt + prefill))
        for sample in range(self.samples or suite.samples):
            yield PromptRow(
                id=f"{item.id}|{system}|{attack_template}|s{sample}",
                question=Question(item.id, item.question, item.gold, item.earlier),
                system=system,
                prompt=prompt,
                token_ids=token_ids,
                seed=stable_seed(self.seed, item.id, sample),
                sample=sample,
                alpha=self.alpha,
                layer_set=self.layer_set,
                suite=suite.name,
                attack_template=attack_template,
                prefill=prefill,
                max_new_tokens=self.max_new_tokens or suite.max_new_tokens,
                chat_template_kwargs=chat_template.kwargs,
            )

    def _response(self, suite: Suite, item: Item, tokenizer: PreTrainedTokenizerBase) -> Response:
        system = suite.systems[0]
        ids, labels = encode_pair(
            tokenizer,
            user_turn(user_question(item, suite), system),
            item.response,
            system_prompt=self.system_prompt,
            earlier=item.earlier,
            template=self.chat_template.of(system),
        )
        return Response(f"{item.id}|{system}|none|s0", item.id, suite.name, Example(tuple(ids), tuple(labels)))


class _Batches:
    def __init__(self, prompts: PromptBatches, responses: Sequence[ResponseBatch]) -> None:
        self.batches = [*prompts, *responses]

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Any]:
        yield from self.batches


def _response_batches(
    responses: Sequence[Response], done: Collection[str], pad_id: int, rank: int, world_size: int
) -> list[ResponseBatch]:
    """This process's batches of responses of similar length; every process gets the same number of batches.

    Batches are cut before finished ones are left out: a likelihood has the rounding of its batch, and a resumed run
    must give the same numbers. The last batch may be repeated to fill up the processes.
    """
    order = sorted(responses, key=lambda response: -len(response.example.input_ids))
    batches = [order[start : start + RESPONSES_PER_BATCH] for start in range(0, len(order), RESPONSES_PER_BATCH)]
    batches = [batch for batch in batches if any(response.id not in done for response in batch)]
    # A sharded model needs equally many forward passes on every process; duplicates are recognised by id.
    batches += batches[-1:] * (-len(batches) % world_size)
    return [
        ResponseBatch(tuple(r.id for r in batch), pad([r.example for r in batch], pad_id=pad_id))
        for batch in batches[rank::world_size]
    ]
