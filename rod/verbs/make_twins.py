"""``rod make-twins``: make benign twins of malicious requests, to review before use."""

from pathlib import Path


def run(
    requests: Path,
    output: Path,
    field: str = "question",
    words: Path | None = None,
    min_replaced: int = 1,
    limit: int | None = None,
    overwrite: bool = False,
) -> None:
    """Make benign twins of malicious requests: the same sentence with its harmful words replaced by harmless ones.

    Each output line has ``id``, ``malicious``, ``benign`` and ``replaced``. Review the lines: delete or correct twins
    that are not benign or read wrong. Requests with too few replaceable words go to ``NAME.no_twin.jsonl``.

    Args:
        requests: JSONL file of malicious requests.
        output: JSONL file to write the pairs to.
        field: Name of the request's field in the file (AdvBench: goal).
        words: Text file of ``old = new`` lines, instead of the built-in list.
        min_replaced: Least number of replacements in a twin.
        limit: Number of requests to read. All by default.
        overwrite: Overwrite existing files.
    """
    from rich.console import Console

    from datamodules.errors import InputError
    from datamodules.mllr.twin_maker import SHIPPED, TwinMaker, make_twins, read_words
    from datamodules.records import read_questions, to_json
    from datamodules.records.shards import write_lines
    from rod.files import require_new

    left = output.with_suffix(".no_twin.jsonl")
    require_new([output, left], overwrite)
    maker = TwinMaker(read_words(words or SHIPPED), min_replaced)
    records = read_questions(requests, fields={"question": field}, limit=limit, key="--field")
    twins, without = make_twins(records, maker)
    if not twins:
        raise InputError(f"{requests}: no request has a word of the list; give another list with --words")
    write_lines(left, map(to_json, without))
    write_lines(output, map(to_json, twins))
    console = Console()
    for twin in twins[:5]:
        swaps = ", ".join(f"{r.old} -> {r.new}" for r in twin.replaced)
        console.print(f"{twin.malicious}\n  {twin.benign}  ({swaps})", highlight=False, soft_wrap=True)
    console.print(
        f"wrote {output}: {len(twins)} pairs to review; {len(without)} requests without a twin: {left}",
        highlight=False,
        soft_wrap=True,
    )
