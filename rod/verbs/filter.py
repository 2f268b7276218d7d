"""``rod filter``: from sampled traces to what a curriculum trains on."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

_log = logging.getLogger(__name__)


def main(args: Sequence[str]) -> None:
    """Parse the options and filter."""
    from rod.parser import Parser

    parser = Parser(prog="rod filter", description=(run.__doc__ or "").partition("Args:")[0])
    parser.add_argument("--config", action="config", help="YAML file with these options.")
    parser.add_function_arguments(run, as_group=False, skip={"traces"})
    parser.add_argument("--traces", type=str, nargs="+", required=True, help="Files or glob patterns of traces.")
    options = parser.parse_args(list(args)).as_dict()
    options.pop("config")
    run(**options)


def run(
    traces: list[str],
    output: Path,
    by: Literal["gold", "agreement"] = "gold",
    strict: bool = False,
    overwrite: bool = False,
) -> Path:
    """Keep traces that are right, or questions whose traces agree; say what was dropped and why.

    Writes the items, and beside them ``NAME.dropped.jsonl`` (each dropped trace with its reason) and
    ``NAME.report.json``.

    Args:
        traces: JSONL files of traces, or glob patterns of such. A trace found twice counts once.
        output: JSONL file to write the items to.
        by: ``gold`` keeps traces with the right answer; ``agreement`` keeps questions whose traces all give the same
            answer, and needs no gold answers.
        strict: Stop at the first bad line; otherwise bad lines are set aside and counted.
        overwrite: Replace files that an earlier run left.
    """
    import json
    from dataclasses import asdict

    from rich.console import Console

    from datamodules.answers.checker import AnswerChecker
    from datamodules.records.kinds import Trace
    from datamodules.records.reader import read_records, to_json
    from datamodules.records.shards import write_lines
    from datamodules.s3cot.filtering import filter_by_agreement, filter_by_gold
    from rod.verbs.files import expand, require_new

    dropped_file, report_file = output.with_suffix(".dropped.jsonl"), output.with_suffix(".report.json")
    require_new([output, dropped_file, report_file], overwrite)
    found: dict[str, Trace] = {}
    read = [trace for path in expand("--traces", traces) for trace in read_records(path, Trace, strict=strict)]
    for trace in read:
        found.setdefault(trace.id, trace)
    if len(found) < len(read):
        _log.warning("%d traces are in more than one file and count once", len(read) - len(found))
    select = filter_by_gold if by == "gold" else filter_by_agreement
    with AnswerChecker() as checker:
        result = select(list(found.values()), checker)
    write_lines(dropped_file, map(to_json, result.dropped))
    write_lines(report_file, [json.dumps(asdict(result.report), indent=2)])
    write_lines(output, map(to_json, result.items))
    console = Console()
    console.print(result.report)
    console.print(f"wrote {output}", highlight=False, soft_wrap=True)
    return output
