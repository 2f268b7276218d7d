"""Traces from responses that another tool wrote."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from datamodules.answers.checker import AnswerChecker
    from datamodules.records.kinds import Trace


@dataclass(frozen=True)
class ResponseRow:
    """One line of responses: those to one question in one style.

    ``question_id`` and ``model`` are empty where a file has no such field.
    """

    question: str
    responses: tuple[str, ...]
    style: str = ""
    gold: str | None = None
    question_id: str = ""
    model: str = ""


def traces_of(
    rows: Sequence[tuple[str, ResponseRow]],
    alphas: Mapping[str, float],
    tokenizer: "PreTrainedTokenizerBase",
    checker: "AnswerChecker",
    append_boxed: str | None = None,
) -> list["Trace"]:
    """Trace records of responses. What is not known of their making is empty: no layers, the bare question as prompt.

    Args:
        rows: Each with the name of the collection it is from; questions are told apart by it, by ``question_id`` (else
            the question's words) and by ``model``.
        alphas: By style.
        tokenizer: Counts tokens; the end of sequence counts as one more.
        checker: Marks answers.
        append_boxed: As in `run`.

    Raises:
        InputError: A style without alpha, no response at all, or no regular expression with a group.
    """
    from datamodules.answers import extract_boxed
    from datamodules.errors import InputError
    from datamodules.records.kinds import Trace

    if unknown := sorted({row.style for _, row in rows} - alphas.keys()):
        raise InputError(f"--alphas: there is none for the styles {', '.join(map(repr, unknown))}")
    single = [(source, row, _boxed(text, append_boxed)) for source, row in rows for text in row.responses]
    if not single:
        raise InputError(f"--responses: {len(rows)} lines, but not one response in them")
    texts = [text for _, _, text in single]
    lengths = [len(ids) + 1 for ids in tokenizer(texts, add_special_tokens=False)["input_ids"]]
    answers = [extract_boxed(text) for text in texts]
    marks = checker.check([(row.gold or "", answer) for (_, row, _), answer in zip(single, answers, strict=True)])
    samples: Counter[tuple[str, float]] = Counter()
    traces = []
    for (source, row, text), length, answer, right in zip(single, lengths, answers, marks, strict=True):
        question_id = "/".join(filter(None, (source, row.question_id or row.question, row.model)))
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
                prompt=row.question,
                completion=text,
                n_tokens=length,
                finish_reason="stop",
                answer=answer,
                correct=right if row.gold is not None else None,
                model=row.model,
            )
        )
    return traces


def _boxed(text: str, pattern: str | None) -> str:
    r"""The response, with the answer that the pattern finds in a ``\boxed{}`` at its end if it has none."""
    from datamodules.answers import extract_boxed
    from datamodules.records.reader import extract_gold

    answer = extract_gold(text, pattern) if pattern is not None else None
    return text if answer is None or extract_boxed(text) is not None else f"{text}\n\\boxed{{{answer}}}"
