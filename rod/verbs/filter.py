"""``rod filter``: make training items of sampled traces."""

import logging
from pathlib import Path
from typing import Literal

_log = logging.getLogger(__name__)


def run(
    traces: str | list[str],
    output: Path,
    by: Literal["gold", "agreement"] = "gold",
    strict: bool = False,
    overwrite: bool = False,
) -> None:
    """Keep traces with the right answer, or questions whose traces agree, and report what was dropped and why.

    Writes the kept items to the output file and, beside it, ``NAME.dropped.jsonl`` (the id of each dropped trace and
    the reason) and ``NAME.report.json`` (counts).

    Args:
        traces: JSONL files of traces, or glob patterns. A trace that is in several files counts once.
        output: JSONL file to write the items to.
        by: ``gold`` keeps traces with the right answer. ``agreement`` keeps questions whose traces all give the same
            answer, and needs no gold answers.
        strict: Stop at the first bad line or gold answer. By default bad lines are set aside, traces with a gold answer
            that cannot be read are dropped, and both are counted.
        overwrite: Overwrite existing files.
    """
    import json
    from dataclasses import asdict

    from rich.console import Console

    from datamodules.answers.checker import AnswerChecker
    from datamodules.errors import InputError
    from datamodules.records import Trace, read_records, to_json
    from datamodules.records.shards import write_lines
    from datamodules.s3cot.filtering import filter_by_agreement, filter_by_gold
    from rod.files import expand, require_new

    dropped_file, report_file = output.with_suffix(".dropped.jsonl"), output.with_suffix(".report.json")
    require_new([output, dropped_file, report_file], overwrite)
    read = [trace for path in expand("--traces", traces) for trace in read_records(path, Trace, strict=strict)]
    found: dict[str, Trace] = {}
    for trace in read:
        if (other := found.setdefault(trace.id, trace)) != trace:
            name = next(name for name, value in vars(trace).items() if value != getattr(other, name))
            raise InputError(
                f"--traces: the files have two traces '{trace.id}', whose {name} differs; filter them one at a time, "
                "or give their data ids that differ"
            )
    if len(found) < len(read):
        _log.warning("%d traces are in more than one file and count once", len(read) - len(found))
    with AnswerChecker() as checker:
        all_traces = list(found.values())
        by_gold = by == "gold"
        result = filter_by_gold(all_traces, checker, strict) if by_gold else filter_by_agreement(all_traces, checker)
    write_lines(dropped_file, map(to_json, result.dropped))
    write_lines(report_file, [json.dumps(asdict(result.report), indent=2)])
    write_lines(output, map(to_json, result.items))
    console = Console()
    console.print(result.report)
    console.print(f"wrote {output}", highlight=False, soft_wrap=True)
