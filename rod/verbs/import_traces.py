"""``rod import-traces``: make trace records of responses that another tool wrote."""

from pathlib import Path


def run(
    responses: str | list[str],
    output: Path,
    tokenizer: Path,
    alphas: dict[str, float],
    fields: dict[str, str] | None = None,
    append_boxed: str | None = None,
    strict: bool = False,
    overwrite: bool = False,
) -> None:
    r"""Make trace records of responses that another tool wrote, to filter and train on like sampled ones.

    Each input line has a question and a list of responses to it; or it is a chat, in ``messages`` or
    ``conversations``, whose last request of the user is the question. It may also have the style of the responses, the
    gold answer, an id of the question, and the name of the model. The style stands in for the steering strength:
    responses whose style has alpha 0 are the initial chains of thought, the others are their variants.

    With ids of the questions, the styles may be in files of their own: lines of one id and text are of one question.
    Where files have other questions under one id, and without ids, each file has its own questions.

    Args:
        responses: JSONL files of responses, or glob patterns.
        output: JSONL file to write the traces to.
        tokenizer: Folder of the tokenizer that counts tokens: that of the model you will train.
        alphas: The alpha to record for each style.
        fields: The files' names of ``question``, ``responses``, ``style``, ``gold``, ``question_id`` and ``model``, if
            they differ: ``{question: problem}``.
        append_boxed: Regular expression with one group, the answer. The answer of its last match is appended in
            ``\boxed{}`` to responses without a boxed answer. By default responses stay as they are.
        strict: Stop at the first bad line. By default bad lines are set aside and counted.
        overwrite: Overwrite an existing file.
    """
    from transformers import AutoTokenizer

    from datamodules.answers.checker import AnswerChecker
    from datamodules.errors import InputError
    from datamodules.records import read_records, to_json
    from datamodules.records.shards import write_lines
    from datamodules.s3cot.imported_traces import ResponseRow, traces_of
    from rod.files import expand, require_new

    require_new([output], overwrite)
    if not tokenizer.is_dir():
        raise InputError(f"--tokenizer: there is no folder '{tokenizer}'; give one with a tokenizer.json")
    output.parent.mkdir(parents=True, exist_ok=True)
    rows = [
        (path.stem, row)
        for path in expand("--responses", responses)
        for row in read_records(
            path, ResponseRow, fields=fields, strict=strict, rejected_dir=output.parent, key="--fields"
        )
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
