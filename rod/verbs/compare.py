"""``rod compare``: compare test runs on the same records, with paired significance tests."""

from pathlib import Path


def run(runs: list[Path], /, output: Path | None = None) -> None:
    """Compare test runs record by record: every further run with the first.

    Right answers and verdicts of single samples are compared by McNemar's exact test, everything else by a paired
    bootstrap over records or, if they have clusters, over those. The last column is the smallest difference that so
    many records would show. The runs must have the same records.

    Args:
        runs: Two or more folders of test runs, or their ``predictions.jsonl`` files.
        output: JSON file for the numbers.
    """
    import json
    from dataclasses import asdict

    from callbacks.columns import terminal
    from callbacks.evaluation.comparison import compare_runs, print_comparisons, read_run
    from datamodules.errors import InputError
    from datamodules.records.shards import write_lines
    from rod.files import run_names

    if len(set(runs)) < max(2, len(runs)):
        raise InputError("rod compare: give two different runs or more")
    first, *others = [(name, read_run(run)) for name, run in zip(run_names(runs), runs, strict=True)]
    comparisons = [row for other in others for row in compare_runs(*first, *other)]
    console = terminal()
    print_comparisons(comparisons, console)
    if output is not None:
        write_lines(output, [json.dumps([asdict(row) for row in comparisons], indent=2, allow_nan=False)])
        console.print(f"wrote {output}", highlight=False)
