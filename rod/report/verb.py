"""``rod report``: one HTML file of any run folders."""

from pathlib import Path


def run(runs: list[Path], /, output: Path = Path("report.html"), overwrite: bool = False) -> None:
    """Write one HTML file about any runs: warnings, what was run, tables, figures, comparisons, sample answers.

    The file holds all that it shows and needs no network. Tests of the same suites are compared question by question
    with the first of them. Answers to requests that should be refused are folded.

    Args:
        runs: Folders of runs of any verb, or folders that hold some, such as ``runs/demo``.
        output: The HTML file.
        overwrite: Replace an earlier file.
    """
    from rich.console import Console

    from rod.files import require_new
    from rod.report.page import write_report

    require_new([output], overwrite)
    write_report(runs, output)
    Console().print(f"wrote {output}", highlight=False, soft_wrap=True)
