"""``rod evidence``: every claim measured on the miniature, with its controls and its spread over seeds."""

from pathlib import Path


def run(
    output: Path = Path("runs/evidence"),
    seeds: int | None = None,
    controls: bool = True,
    publish: Path | None = None,
    methods: list[str] | None = None,
) -> None:
    """Run the methods on the miniature for each seed, stage by stage, and print a table of each.

    What is done is not done again, so that an interrupted run goes on where it was.

    Args:
        output: The folder to work in.
        seeds: Seeds to run, 0, 1, ...; by default as many as each method is measured with.
        controls: Also run the controls; without them, only the base model and the tuned one.
        publish: Also write summary, tables and figures there.
        methods: Names of the methods to measure; all of them by default.
    """
    from datamodules.errors import InputError
    from rod.evidence.methods import METHODS
    from rod.evidence.report import report
    from rod.steps import run_steps

    known = {method.method: method for method in METHODS}
    if unknown := sorted(set(methods or ()) - known.keys()):
        raise InputError(f"--methods: there is no {unknown[0]}; there are {', '.join(known)}")
    chosen = [known[name] for name in methods or known]
    for method in chosen:
        for seed in range(seeds or method.seeds):
            run_steps(method.steps(output.resolve() / f"seed{seed}", seed, controls))
    report(chosen, output, seeds, publish)
