"""Training data of MoGU: requests with two opposite responses, and requests with the right response."""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
from transformers import PreTrainedTokenizerBase

from datamodules.batch import IGNORE_INDEX, PromptRow
from datamodules.errors import InputError
from datamodules.mogu.batch import ResponderBatch, RouterBatch
from datamodules.mogu.branching import branch
from datamodules.mogu.records import ResponsePair
from datamodules.prompts.chat_template import ChatTemplate, encode_pair, turn_end_id
from datamodules.prompts.instruction_span import InstructionFinder
from datamodules.prompts.rows import build_rows
from datamodules.records.kinds import Question
from datamodules.records.questions import read_questions
from datamodules.records.reader import read_records
from datamodules.records.same_text import squeeze
from datamodules.records.turns import Turn
from datamodules.trainer_parts import tokenizer_of
from datamodules.training.packing import Example, pad
from datamodules.training.supervised import BatchLoader, SupervisedData

Role = Literal["glad", "unwilling"]
T = TypeVar("T")
_NONE = Example((), ())


@dataclass(frozen=True)
class OpposedExample(Example):
    """A response to learn, and the opposite response to the same request."""

    opposite: Example = _NONE

    @property
    def longest(self) -> int:
        """Tokens of the longer response."""
        return max(len(self.input_ids), len(self.opposite.input_ids))


@dataclass(frozen=True)
class RoutedExample(Example):
    """The right response to a request; the instruction is the tokens from ``start`` on, before ``end``."""

    malicious: bool = False
    start: int = 0
    end: int = 0


class _PairData(SupervisedData):
    """Files of `ResponsePair` records, which both stages read."""

    def __init__(
        self,
        pairs: Path,
        val_pairs: Path | None = None,
        limit: int | None = None,
        strict: bool = True,
        chat_template: str | None = None,
        chat_template_kwargs: dict[str, Any] | None = None,
        batch_size: int = 8,
        max_length: int | None = None,
        seed: int | None = None,
        num_workers: int = 0,
    ) -> None:
        """Describe the data; files are read in ``setup``.

        Args:
            pairs: JSONL file, as ``rod pairs`` writes it.
            val_pairs: Another such file, to choose the checkpoint on.
            limit: Pairs of each class to train on; all by default.
            strict: Stop at the first bad line; otherwise bad lines are set aside and counted.
            chat_template: ``plain``, or a jinja file, instead of the tokenizer's own template.
            chat_template_kwargs: Arguments of the template, such as ``{enable_thinking: false}``; see `ChatTemplate`.
            batch_size: Requests of a batch on each process.
            max_length: Longest example in tokens; longer ones are left out, counted and reported.
            seed: Seed of the order. By default that of ``seed_everything``.
            num_workers: Worker processes that make batches.

        Raises:
            InputError: A number is too small.
        """
        super().__init__(batch_size, None, False, max_length, seed, num_workers)
        if limit is not None and limit < 1:
            raise InputError(f"data.limit: must be 1 or more, is {limit}")
        self.pairs, self.val_pairs, self.limit, self.strict = pairs, val_pairs, limit, strict
        self.chat_template = ChatTemplate(chat_template, chat_template_kwargs or {})

    def setup(self, stage: str) -> None:
        """Read and encode the files."""
        super().setup(stage)
        _ = self.examples

    def train_examples(self, stage: int) -> Sequence[Example]:
        """The same examples in every epoch."""
        return self.examples[0]

    def val_examples(self) -> Sequence[Example]:
        """The examples of ``val_pairs``."""
        return self.examples[1]

    @cached_property
    def examples(self) -> tuple[list[Example], list[Example]]:
        """Encoded examples for training and for validation."""
        train, val = self.records
        encoded = self._encode(self.val_pairs, val) if self.val_pairs is not None else []
        return self._encode(self.pairs, train), encoded

    @cached_property
    def records(self) -> tuple[list[ResponsePair], list[ResponsePair]]:
        """The pairs for training and for validation."""
        val = self._read(self.val_pairs, None) if self.val_pairs is not None else []
        return self._read(self.pairs, self.limit), val

    @abstractmethod
    def _encode(self, path: Path, pairs: Sequence[ResponsePair]) -> list[Example]:
        """The examples to learn from the pairs of a file; ``path`` is for errors."""

    def _read(self, path: Path, limit: int | None) -> list[ResponsePair]:
        pairs = read_records(path, ResponsePair, strict=self.strict)
        return [pair for kind in (False, True) for pair in [p for p in pairs if p.malicious == kind][:limit]]

    def _respond(self, pair: ResponsePair, glad: bool) -> Example:
        return encode_response(tokenizer_of(self), pair, glad, self.chat_template.of("plain"))


class ResponderData(_PairData):
    """Malicious requests for the glad responder, benign ones for the unwilling one, with both responses (paper)."""

    def __init__(self, pairs: Path, role: Role, val_pairs: Path | None = None, **data: Any) -> None:
        """Describe the data.

        Args:
            pairs: JSONL file, as ``rod pairs`` writes it.
            role: ``glad`` learns the glad response to malicious requests, ``unwilling`` the rejection of benign ones.
            val_pairs: Another such file, to choose the checkpoint on.
            data: As in `_PairData`. A batch has two rows for each request of ``batch_size``.
        """
        super().__init__(pairs, val_pairs, **data)
        self.role: Role = role

    def collate(self, mean_targets: float | None, mean_items: float | None) -> Callable[[Sequence[Any]], Any]:
        """Put both responses to each request into one batch."""
        return partial(_collate_opposed, pad_id=_pad_id(self.tokenizer), mean_items=mean_items)

    def _encode(self, path: Path, pairs: Sequence[ResponsePair]) -> list[Example]:
        """Examples of the role's class; InputError if the file has no such request."""
        glad = self.role == "glad"
        own = [pair for pair in pairs if pair.malicious == glad]
        if not own:
            kind = "malicious" if glad else "benign"
            raise InputError(f"{path}: no {kind} request for the {self.role} responder; give pairs of both classes")
        examples: list[Example] = []
        for pair in own:
            wanted, opposite = self._respond(pair, glad), self._respond(pair, not glad)
            examples.append(OpposedExample(wanted.input_ids, wanted.labels, opposite, record=pair.id))
        return examples


class RouterData(_PairData):
    """Benign requests with glad responses and malicious ones with rejections, in equal numbers (paper)."""

    def __init__(
        self,
        pairs: Path,
        val_pairs: Path | None = None,
        val_requests: Path | None = None,
        val_fields: dict[str, str] | None = None,
        val_limit: int = 32,
        **data: Any,
    ) -> None:
        """Describe the data.

        Args:
            pairs: JSONL file, as ``rod pairs`` writes it.
            val_pairs: Another such file, to choose the checkpoint on.
            val_requests: JSONL file of benign requests of a source that the pairs do not have, for `OverRefusal`.
            val_fields: Names of the fields in that file, if they differ: ``{question: prompt}``.
            val_limit: Requests to take of that file, evenly spaced.
            data: As in `_PairData`.
        """
        super().__init__(pairs, val_pairs, **data)
        if val_limit < 1:
            raise InputError(f"data.val_limit: must be 1 or more, is {val_limit}")
        self.val_requests, self.val_fields, self.val_limit = val_requests, val_fields, val_limit

    def setup(self, stage: str) -> None:
        """Read and encode the files, the requests among them; InputError if one of the requests is in the pairs."""
        super().setup(stage)
        _ = self.val_rows

    @cached_property
    def val_rows(self) -> list[PromptRow]:
        """Prompts of ``val_requests``; none without the file."""
        if self.val_requests is None:
            return []
        found = read_questions(self.val_requests, fields=self.val_fields, strict=self.strict, key="data.val_fields")
        chosen = _spaced(found, self.val_limit)
        for path, pairs in zip((self.pairs, self.val_pairs), self.records, strict=True):
            known = {squeeze(pair.asked) for pair in pairs}
            if both := [question for question in chosen if squeeze(question.asked) in known]:
                raise InputError(
                    f"{self.val_requests}: request '{both[0].id}' is among the pairs of {path}; give "
                    "data.val_requests of a source that the pairs do not have"
                )
        return build_rows(chosen, tokenizer_of(self), systems=["plain"], chat_template=self.chat_template)

    @cached_property
    def malicious_rows(self) -> list[PromptRow]:
        """Prompts of malicious requests of ``val_pairs``, ``val_limit`` of them at most, evenly spaced."""
        chosen = _spaced([pair for pair in self.records[1] if pair.malicious], self.val_limit)
        systems = [() if pair.system is None else (Turn("system", pair.system),) for pair in chosen]
        asked = [
            Question(pair.id, pair.prompt, earlier=(*system, *pair.earlier))
            for system, pair in zip(systems, chosen, strict=True)
        ]
        return build_rows(asked, tokenizer_of(self), systems=["plain"], chat_template=self.chat_template)

    def collate(self, mean_targets: float | None, mean_items: float | None) -> Callable[[Sequence[Any]], Any]:
        """Put requests and their classes into one batch."""
        return partial(_collate_routed, pad_id=_pad_id(self.tokenizer), mean_items=mean_items)

    def predict_dataloader(self) -> BatchLoader:
        """The training examples, in file order, for probes."""
        examples = self._usable(self.examples[0], "predict")
        size = self.batch_size or 8
        batches = [list(range(i, min(i + size, len(examples)))) for i in range(0, len(examples), size)]
        return BatchLoader(examples, batches, self.collate(None, None), self.num_workers)

    def _encode(self, path: Path, pairs: Sequence[ResponsePair]) -> list[Example]:
        """Examples of both classes; InputError if one is missing, or a request is not found in its rendered prompt."""
        kinds = {pair.malicious for pair in pairs}
        if len(kinds) < 2:
            kind = "benign" if True in kinds else "malicious"
            raise InputError(f"{path}: no {kind} request; routers learn from both classes, give pairs of both")
        finder = InstructionFinder(tokenizer_of(self), self.chat_template.of("plain"))
        examples: list[Example] = []
        for pair in pairs:
            example = self._respond(pair, not pair.malicious)
            prompt = [i for i, label in zip(example.input_ids, example.labels, strict=True) if label == IGNORE_INDEX]
            try:
                span = finder.find(pair.prompt, prompt, pair.system, pair.earlier)
            except InputError as error:
                raise InputError(f"{path}: request '{pair.id}': {error}") from error
            examples.append(RoutedExample(example.input_ids, example.labels, pair.malicious, *span, record=pair.id))
        return examples


def encode_response(
    tokenizer: PreTrainedTokenizerBase, pair: ResponsePair, glad: bool, template: ChatTemplate | str | None = None
) -> Example:
    """The glad response to a request, or the rejection, as an example; an opening has no end of its turn."""
    text = pair.glad if glad else pair.reject
    try:
        ids, labels = encode_pair(
            tokenizer, pair.prompt, text, system_prompt=pair.system, earlier=pair.earlier, template=template
        )
    except InputError as error:
        raise InputError(f"pair '{pair.id}': {error}" if pair.earlier else str(error)) from error
    if glad and pair.glad_is_opening:
        ends = {tokenizer.eos_token_id, turn_end_id(tokenizer, template)}
        end = next((i for i, label in enumerate(labels) if label in ends), len(ids))
        ids, labels = ids[:end], labels[:end]
    return Example(tuple(ids), tuple(labels), record=pair.id)


def _spaced(found: Sequence[T], limit: int) -> list[T]:
    n = min(limit, len(found))
    return [found[i * len(found) // n] for i in range(n)]


def _pad_id(tokenizer: PreTrainedTokenizerBase | None) -> int:
    return int(getattr(tokenizer, "pad_token_id", None) or 0)


def _collate_opposed(examples: Sequence[OpposedExample], pad_id: int, mean_items: float | None) -> ResponderBatch:
    rows = pad([*examples, *(example.opposite for example in examples)], pad_id)
    return ResponderBatch(rows, branch([(example, example.opposite) for example in examples], pad_id), mean_items)


def _collate_routed(examples: Sequence[RoutedExample], pad_id: int, mean_items: float | None) -> RouterBatch:
    malicious = torch.tensor([example.malicious for example in examples])
    starts = torch.tensor([example.start for example in examples])
    ends = torch.tensor([example.end for example in examples])
    return RouterBatch(pad(examples, pad_id), malicious, starts, ends, mean_items)
