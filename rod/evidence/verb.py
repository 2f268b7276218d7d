"""``rod evidence``: measure every claim on the miniature, with controls and several seeds."""

from pathlib import Path


def run(
    output: Path = Path("runs/evidence"),
    seeds: int | None = None,
    controls: bool = True,
    publish: Path | None = None,
    methods: list[str] | None = None,
    real: Path | None = None,
    redraw: Path | None = None,
) -> None:
    """Run every stage of the methods on the miniature for each seed, and print a table for each method.

    ``report.html`` in the output folder has all of it on one page. An interrupted run continues: finished stages are
    skipped.

    Args:
        output: Folder to work in.
        seeds: Number of seeds (0, 1, ...); by default each method's own number.
        controls: Run the controls too. Without them only the base model and the tuned one are measured.
        publish: Second folder for summary, tables and figures.
        methods: Names of the methods; all by default.
        real: Folder of published data sets: measure on SmolLM2-135M-Instruct with them, in place of the miniature.
        redraw: Published folder: draw its figures over all seeds again from its numbers, and measure nothing.
    """
    from datamodules.errors import InputError
    from rod.evidence import report
    from rod.evidence.methods import METHODS, on_real_model
    from rod.report.page import write_report
    from rod.steps import console, run_steps

    if seeds is not None and seeds < 1:
        raise InputError(f"--seeds: must be at least 1, not {seeds}")
    known = {method.method: method for method in (METHODS if real is None else on_real_model(real))}
    if unknown := sorted(set(methods or ()) - known.keys()):
        raise InputError(f"--methods: there is no {unknown[0]}; there are {', '.join(known)}")
    if redraw is not None:
        drawn = report.redraw([known[name] for name in methods or known], redraw)
        console.print(f"figures of {', '.join(drawn)} in {redraw}", highlight=False, soft_wrap=True)
        return
    chosen = [known[name] for name in methods or known if known[name].steps(output, 0, controls)]
    if not chosen:
        raise InputError(f"--controls: {', '.join(methods or known)} has controls only; leave it out")
    for method in chosen:
        if missing := [name for name in method.files if real is None or not (real / name).is_file()]:
            raise InputError(f"--real: the folder '{real}' has no {', '.join(missing)}, which {method.method} needs")
    for method in chosen:
        for seed in range(seeds or method.seeds):
            run_steps(method.steps(output.resolve() / f"seed{seed}", seed, controls))
    report.report(chosen, output, seeds, publish)
    page = write_report([output], output / "report.html")
    console.print(f"all of it on one page: {page.resolve().as_uri()}", highlight=False, soft_wrap=True)
