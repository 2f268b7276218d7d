"""Make trace records of responses that another tool wrote."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from transformers import PreTrainedTokenizerBase

from datamodules.answers import AnswerChecker, AnswerRule
from datamodules.completions.thoughts import split_thought
from datamodules.errors import InputError
from datamodules.records import Trace, extract_gold
from datamodules.records.requests import Request, earlier_turns
from datamodules.records.same_text import squeeze
from datamodules.records.turns import Turn


@dataclass(frozen=True)
class ResponseRow(Request):
    """The responses to one question in one style; ``question_id`` and ``model`` are empty if the file lacks them."""

    question: str
    responses: tuple[str, ...] = field(metadata={"or_one": True})
    style: str = ""
    gold: str | None = None
    question_id: str = ""
    model: str = ""
    earlier: tuple[Turn, ...] = earlier_turns()

    response_field = "responses"


def traces_of(
    rows: Sequence[tuple[str, ResponseRow]],
    alphas: Mapping[str, float],
    tokenizer: PreTrainedTokenizerBase,
    checker: AnswerChecker,
    append_boxed: str | None = None,
) -> list[Trace]:
    r"""Return a trace for each response. What is unknown stays empty: no layers, the bare question as prompt.

    Args:
        rows: Pairs of a collection's name and a line of it. A question is identified by ``question_id`` and ``model``,
            whatever the collection; by the collection, too, if other questions have the same ``question_id``. Without
            one it is identified by collection, text and ``model``.
        alphas: Alpha by style.
        tokenizer: Counts tokens; an end-of-sequence token is added to each count.
        checker: Compares answers with the gold ones.
        append_boxed: Regular expression with one group, the answer; the answer of its last match is appended in
            ``\boxed{}`` to responses without a boxed answer.

    Raises:
        InputError: A style has no alpha, there is no response, or ``append_boxed`` is no expression with a group.
    """
    if unknown := sorted({row.style for _, row in rows} - alphas.keys()):
        raise InputError(f"--alphas: none for the styles {', '.join(map(repr, unknown))}; add one for each")
    single = [(source, row, _boxed(text, append_boxed)) for source, row in rows for text in row.responses]
    if not single:
        raise InputError(f"--responses: {len(rows)} lines without any response; map the field with --fields")
    texts = [text for _, _, text in single]
    lengths = [len(ids) + 1 for ids in tokenizer(texts, add_special_tokens=False)["input_ids"]]
    answers = [AnswerRule().extract(text) for text in texts]
    marks = checker.check([(row.gold or "", answer) for (_, row, _), answer in zip(single, answers, strict=True)])
    asked = defaultdict[tuple[str, str], set[str]](set)
    for _, row in rows:
        asked[row.question_id, row.model].add(squeeze(row.asked))
    samples: Counter[tuple[str, float]] = Counter()
    traces = []
    for (source, row, text), length, answer, right in zip(single, lengths, answers, marks, strict=True):
        collection = "" if row.question_id and len(asked[row.question_id, row.model]) == 1 else source
        question_id = "/".join(filter(None, (collection, row.question_id or row.asked, row.model)))
        alpha = float(alphas[row.style])
        sample = samples[question_id, alpha]
        samples[question_id, alpha] += 1
        traces.append(
            Trace(
                id=f"{question_id}|plain|-|a{alpha:g}|s{sample}",
                question_id=question_id,
                question=row.question,
                gold=row.gold,
                system="plain",
                alpha=alpha,
                layers=(),
                sample=sample,
                seed=0,
                prompt=row.asked,
                completion=text,
                n_tokens=length,
                finish_reason="stop",
                answer=answer,
                correct=right if row.gold is not None else None,
                model=row.model,
                layer_set="",
                earlier=row.earlier,
            )
        )
    return traces


def _boxed(text: str, pattern: str | None) -> str:
    r"""Append the answer that the pattern finds in ``\boxed{}``, unless the response has a boxed answer."""
    answer = extract_gold(split_thought(text).answer or "", pattern) if pattern is not None else None
    return text if answer is None or AnswerRule().extract(text) is not None else f"{text}\n\\boxed{{{answer}}}"
