"""``rod frontier``: accuracy against tokens over any runs, with their Pareto front and paired tests."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from rich.console import Console

    from callbacks.evaluation.budgets import BudgetAccuracy
    from callbacks.evaluation.conditions import Conditions, Run, Suites
    from callbacks.evaluation.frontier import GroupLoss, Point


def run(
    runs: list[str],
    /,
    output: Path,
    base: str = "",
    by: Literal["run", "group"] = "run",
    budgets: list[int] | None = None,
    wandb: str = "",
    overwrite: bool = False,
) -> None:
    """Plot accuracy against tokens of any runs, and hold each against the base.

    Writes ``frontier.csv``, ``.png`` and ``.svg`` (accuracy against mean tokens with 95 % intervals, the Pareto front,
    AES and paired tests with Holm's correction), ``budgets.csv``, ``.png`` and ``.svg`` (accuracy if answers were cut
    off at a token budget, without generating again), and ``groups.csv`` (which groups of questions lose).

    Args:
        runs: Folders of ``rod test``, ``rod score`` or ``rod predict`` (a strength sweep), their files, or patterns.
            System instructions, strengths and layer sets of a run are conditions of their own.
        output: Folder for the results.
        base: Name of the condition that the others are held against; by default the first.
        by: ``group`` makes each group of a run a condition of its own, such as the prompts of a file of another tool.
        budgets: Token budgets; by default 32, 64, 128, ... 32768.
        wandb: Project of Weights & Biases to log figures and numbers to; none by default.
        overwrite: Replace earlier results.
    """
    from callbacks.columns import terminal
    from callbacks.evaluation.conditions import answers_by_suite
    from callbacks.evaluation.frontier import group_losses, points_of
    from callbacks.evaluation.frontier_figures import plot_budgets, plot_frontier
    from rod.files import expand, require_new

    names = ("frontier.csv", "frontier.png", "frontier.svg", "budgets.csv", "budgets.png", "budgets.svg", "groups.csv")
    require_new([output / name for name in names], overwrite)
    found = _read([*map(Path, expand("runs", runs))], by)
    conditions = found.conditions
    base = _base(base, conditions)
    suites = answers_by_suite(conditions)
    points, losses = points_of(suites, base), group_losses(suites, base)
    rows = _budgets(suites, conditions, budgets)
    plot_frontier(points, base, output / "frontier.png", found.strengths)
    plot_budgets(rows, base, output / "budgets.png", found.strengths)
    _write(output, points, rows, losses)
    console = terminal()
    _print(points, base, console)
    for line in [*_other_bases(suites, base), *_lost(losses, points), *_doubts(points, base)]:
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    console.print(f"wrote {output}", highlight=False, soft_wrap=True)
    if wandb:
        _log(wandb, output, points)


def _read(paths: Sequence[Path], by: str) -> "Run":
    from callbacks.evaluation.conditions import Run, read_conditions
    from datamodules.errors import InputError
    from rod.files import run_names

    found = Run({}, {})
    for name, path in zip(run_names(paths), paths, strict=True):
        run = read_conditions(path, name if len(paths) > 1 or by == "run" else "", by == "group")
        if twice := sorted(run.conditions.keys() & found.conditions.keys()):
            raise InputError(f"{path}: another run has the condition '{twice[0]}' too; give each a folder of its own")
        found.conditions.update(run.conditions)
        found.strengths.update(run.strengths)
    return found


def _base(wanted: str, conditions: "Conditions") -> str:
    from datamodules.errors import InputError

    if wanted and wanted not in conditions:
        raise InputError(f"--base: there is no condition '{wanted}'; there are {', '.join(map(repr, conditions))}")
    return wanted or next(iter(conditions))


def _budgets(
    suites: "Suites", conditions: "Conditions", budgets: Sequence[int] | None
) -> "dict[tuple[str, str], list[BudgetAccuracy]]":
    from callbacks.evaluation.budgets import budget_accuracies
    from datamodules.answers import AnswerChecker
    from datamodules.suites.predictions import BUDGETS

    found: dict[tuple[str, str], list[BudgetAccuracy]] = {}
    with AnswerChecker() as checker:
        for suite, answers in suites.items():
            for condition, own in answers.items():
                names = {key: one.suite for key, one in own.items()}
                chosen = [p for p in conditions[condition] if names.get(f"{p.question}\0{p.gold}") == p.suite]
                found[suite, condition] = budget_accuracies(chosen, checker, budgets or BUDGETS)
    return found


def _write(
    folder: Path,
    points: "Sequence[Point]",
    rows: "dict[tuple[str, str], list[BudgetAccuracy]]",
    losses: "Sequence[GroupLoss]",
) -> None:
    from dataclasses import asdict, fields

    from callbacks.evaluation.budgets import BudgetAccuracy
    from callbacks.evaluation.frontier import GroupLoss, Point

    budgets = [
        {"suite": suite, "condition": condition} | asdict(row)
        for (suite, condition), own in rows.items()
        for row in own
    ]
    heads = [[field.name for field in fields(kind)] for kind in (Point, BudgetAccuracy, GroupLoss)]
    _csv(folder / "frontier.csv", heads[0], [asdict(point) for point in points])
    _csv(folder / "budgets.csv", ["suite", "condition", *heads[1]], budgets)
    _csv(folder / "groups.csv", heads[2], [asdict(loss) for loss in losses])


def _csv(path: Path, columns: Sequence[str], rows: Sequence[dict[str, object]]) -> None:
    import csv
    import io

    from datamodules.records.shards import write_lines

    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_lines(path, text.getvalue().splitlines())


def _print(points: "Sequence[Point]", base: str, console: "Console") -> None:
    from callbacks.columns import print_columns

    headings = ("suite", "condition", "n", "right %", "95 %", "tokens", "front", "AES", "difference", "p", "p (Holm)")
    rows = [
        [
            p.suite,
            p.condition,
            f"{p.n:,}",
            f"{100 * p.accuracy:.1f}",
            f"{100 * p.accuracy_low:.1f}-{100 * p.accuracy_high:.1f}",
            f"{p.tokens:.{0 if p.tokens >= 1000 else 1}f}",
            "*" if p.on_front else "",
            "-" if p.aes is None else f"{p.aes:.3f}",
            "-" if p.accuracy_difference is None else f"{100 * p.accuracy_difference:+.1f}",
            "-" if p.accuracy_p is None else f"{p.accuracy_p:.3g}",
            "-" if p.accuracy_p_holm is None else f"{p.accuracy_p_holm:.3g}",
        ]
        for p in points
    ]
    print_columns(console, headings, rows, names=2, title=f"against {base}")


def _other_bases(suites: "Suites", base: str) -> list[str]:
    """Suites that the base did not answer."""
    from callbacks.evaluation.frontier import base_of

    bases = {suite: base_of(answers, base) for suite, answers in suites.items()}
    return [f"{suite}: {base} has no answers to it; held against {own}" for suite, own in bases.items() if own != base]


def _lost(losses: "Sequence[GroupLoss]", points: "Sequence[Point]") -> list[str]:
    """The groups of questions that lose first, in order."""
    from callbacks.evaluation.frontier import lost_first

    return [
        f"{loss.suite}: '{loss.group}' loses from {point.tokens:.0f} tokens on ({loss.condition}: "
        f"{100 * loss.difference:+.1f} points, {100 * loss.low:+.1f} to {100 * loss.high:+.1f}, n {loss.records})"
        for loss, point in lost_first(losses, points)
    ]


def _doubts(points: "Sequence[Point]", base: str) -> list[str]:
    """What the table does not support: too few questions, or other questions than the base's."""
    from callbacks.evaluation.frontier import base_of

    lines = []
    for suite in dict.fromkeys(p.suite for p in points):
        records = {p.condition: p.records for p in points if p.suite == suite}
        held = base_of(records, base)
        for p in (p for p in points if p.suite == suite and p.condition != held):
            if not p.common:
                lines.append(
                    f"{suite}: {p.condition}: none of its {p.records:,} questions is the base's, by text and gold "
                    "answer; nothing is compared"
                )
            elif p.common < records[held]:
                lines.append(
                    f"{suite}: {p.condition}: has only {p.common:,} of the base's {records[held]:,} questions; its "
                    "accuracy, tokens and place on the front may be of easier or harder ones"
                )
        own = [p for p in points if p.suite == suite and p.accuracy_p is not None]
        if own:
            fewest = min(p.common for p in own)
            found = [p.detectable for p in own if p.detectable is not None]
            if len(found) < len(own):
                lines.append(f"{suite}: {fewest:,} questions show no difference, however large")
            elif largest := max(found):  # 0 if all answers are equal, which tells no spread
                lines.append(
                    f"{suite}: {fewest:,} questions show a difference of {100 * largest:.1f} points or more with a "
                    "probability of 80 %"
                )
        lines += [
            f"{suite}: {p.condition}: only {p.common:,} of its {p.records:,} questions are the base's; differences "
            "are over those, accuracy, tokens and place on the front over all of its own"
            for p in own
            if p.common < p.records
        ]
    return lines


def _log(project: str, folder: Path, points: "Sequence[Point]") -> None:
    import wandb

    numbers = {
        f"{p.suite}/{p.condition}/{key}": getattr(p, key) for p in points for key in ("accuracy", "tokens", "aes")
    }
    with wandb.init(project=project, name=folder.name, dir=str(folder), job_type="frontier") as logged:
        logged.summary.update({key: value for key, value in numbers.items() if value is not None})
        logged.log({name: wandb.Image(str(folder / f"{name}.png")) for name in ("frontier", "budgets")})
