"""``rod make-twins``: benign near-twins of malicious requests, to be looked through before they are used."""

from collections.abc import Sequence
from pathlib import Path


def main(args: Sequence[str]) -> None:
    """Parse the options and make twins."""
    from rod.parser import Parser

    parser = Parser(prog="rod make-twins", description=(run.__doc__ or "").partition("Args:")[0])
    parser.add_argument("--config", action="config", help="YAML file with these options.")
    parser.add_function_arguments(run, as_group=False)
    options = parser.parse_args(list(args)).as_dict()
    options.pop("config")
    run(**options)


def run(
    requests: Path,
    output: Path,
    field: str = "question",
    words: Path | None = None,
    min_replaced: int = 1,
    limit: int | None = None,
    overwrite: bool = False,
) -> Path:
    """Swap words of malicious requests for harmless ones, and say which.

    Writes ``id``, ``malicious``, ``benign`` and ``replaced`` in each line: look through them and delete or mend what
    is not benign, or reads wrong. Requests in which too little could be replaced go to ``NAME.no_twin.jsonl``.

    Args:
        requests: JSONL file of malicious requests.
        output: JSONL file to write the pairs to.
        field: The file's name of the request's text (AdvBench: goal).
        words: Text file of ``old = new`` lines, in place of the list that comes with the project.
        min_replaced: Replacements that a twin must have.
        limit: Requests to take; all by default.
        overwrite: Replace files that an earlier run left.
    """
    from rich.console import Console

    from datamodules.errors import InputError
    from datamodules.mllr.twin_maker import SHIPPED, TwinMaker, make_twins, read_words
    from datamodules.records.questions import read_questions
    from datamodules.records.reader import to_json
    from datamodules.records.shards import write_lines
    from rod.verbs.files import require_new

    left = output.with_suffix(".no_twin.jsonl")
    require_new([output, left], overwrite)
    maker = TwinMaker(read_words(words or SHIPPED), min_replaced)
    records = read_questions(requests, fields={"question": field}, limit=limit)
    twins, without = make_twins(records, maker)
    if not twins:
        raise InputError(f"{requests}: no request has a word of the list; give a list for these with --words")
    write_lines(left, map(to_json, without))
    write_lines(output, map(to_json, twins))
    console = Console()
    for twin in twins[:5]:
        swaps = ", ".join(f"{r.old} -> {r.new}" for r in twin.replaced)
        console.print(f"{twin.malicious}\n  {twin.benign}  ({swaps})", highlight=False, soft_wrap=True)
    console.print(
        f"wrote {output}: {len(twins)} pairs to look through; {len(without)} requests without a twin: {left}",
        highlight=False,
        soft_wrap=True,
    )
    return output
