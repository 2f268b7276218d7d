"""``rod import-traces``: responses that another tool wrote, as trace records."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from datamodules.answers import AnswerChecker
    from datamodules.records import Trace


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


def main(args: Sequence[str]) -> None:
    """Parse the options and import."""
    from rod.parser import Parser

    parser = Parser(prog="rod import-traces", description=(run.__doc__ or "").partition("Args:")[0])
    parser.add_argument("--config", action="config", help="YAML file with these options.")
    parser.add_function_arguments(run, as_group=False, skip={"responses"})
    parser.add_argument("--responses", type=str, nargs="+", required=True, help="Files or glob patterns of responses.")
    options = parser.parse_args(list(args)).as_dict()
    options.pop("config")
    run(**options)


def run(
    responses: list[str],
    output: Path,
    tokenizer: Path,
    alphas: dict[str, float],
    fields: dict[str, str] | None = None,
    append_boxed: str | None = None,
    strict: bool = False,
    overwrite: bool = False,
) -> Path:
    r"""Make trace records of responses, so that they can be filtered and learnt from like sampled ones.

    Each line of the files has a question, a list of responses to it and, where wanted, their style, the gold answer,
    an id of the question and the name of the model. The style stands in for the strength of steering: what has
    alpha 0 is the initial chain of thought, the rest are its variants.

    Args:
        responses: JSONL files of responses, or glob patterns of such.
        output: JSONL file to write the traces to.
        tokenizer: Folder of the tokenizer that counts tokens; take the one of the model that will be trained.
        alphas: The alpha to record for each style.
        fields: The files' names of ``question``, ``responses``, ``style``, ``gold``, ``question_id``, ``model``, where
            they differ.
        append_boxed: Regular expression whose one group is the answer in a response; the answer of its last match is
            appended in a ``\boxed{}`` to responses that have none. Without it responses stay as they are.
        strict: Stop at the first bad line; otherwise bad lines are set aside and counted.
        overwrite: Replace an output file that exists.
    """
    from transformers import AutoTokenizer

    from datamodules.answers import AnswerChecker
    from datamodules.errors import InputError
    from datamodules.records import read_records, to_json
    from datamodules.shards import write_lines
    from rod.files import expand, require_new

    require_new([output], overwrite)
    if not tokenizer.is_dir():
        raise InputError(f"--tokenizer: '{tokenizer}' is no folder; give one with a tokenizer.json")
    output.parent.mkdir(parents=True, exist_ok=True)
    rows = [
        (path.stem, row)
        for path in expand("--responses", responses)
        for row in read_records(path, ResponseRow, fields=fields, strict=strict, rejected_dir=output.parent)
    ]
    with AnswerChecker() as checker:
        traces = traces_of(rows, alphas, AutoTokenizer.from_pretrained(tokenizer), checker, append_boxed)
    write_lines(output, map(to_json, traces))
    no_responses = sum(not row.responses for _, row in rows)
    no_answer = sum(trace.answer is None for trace in traces)
    print(
        f"wrote {output}: {len(traces)} traces of {len(rows)} lines; {no_responses} lines have no response, "
        f"{no_answer} traces no boxed answer"
    )
    return output


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
    from datamodules.records import Trace

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
    from datamodules.records import extract_gold

    answer = extract_gold(text, pattern) if pattern is not None else None
    return text if answer is None or extract_boxed(text) is not None else f"{text}\n\\boxed{{{answer}}}"
