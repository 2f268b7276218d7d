"""``rod import-traces``: responses that another tool wrote, as trace records."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from datamodules.s3cot.imported_traces import ResponseRow, traces_of

if TYPE_CHECKING:
    pass


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

    from datamodules.answers.checker import AnswerChecker
    from datamodules.errors import InputError
    from datamodules.records.reader import read_records, to_json
    from datamodules.records.shards import write_lines
    from rod.verbs.files import expand, require_new

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
