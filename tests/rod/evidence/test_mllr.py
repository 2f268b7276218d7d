"""ML-LR's evidence: rates that follow their rule, steps that fit together, rows from what the commands wrote."""

import json
from pathlib import Path

import pytest

from rod.evidence.figures import TradeoffPoint, plot_swap, plot_tradeoff
from rod.evidence.mllr import steps as commands
from rod.evidence.mllr.evidence import MLLREvidence
from rod.evidence.rows import Rows, Value

PUBLISHED = Path(__file__).parents[3] / "docs/evidence/summary.json"


@pytest.mark.parametrize("task", commands.CHOSEN)
def test_the_chosen_rate_is_the_lowest_of_its_sweep_that_learns_the_task(task: str) -> None:
    """Against the published sweep: a rate that was chosen otherwise makes the comparison another one."""
    rows = json.loads(PUBLISHED.read_text(encoding="utf-8"))
    found = {
        (row["condition"], row["suite"]): row["mean"]
        for row in rows
        if row["method"] == "mllr" and row["metric"] == "accuracy" and row["suite"].startswith(f"sweep/{task}/")
    }
    chosen = {name: rate for name, rate in commands.CHOSEN[task].items() if name != "plain"}
    for condition, rate in chosen.items():
        task_of = {one: found[condition, f"sweep/{task}/{one:g}/task"] for one in commands.SWEEP[condition]}
        learnt = [one for one, accuracy in task_of.items() if accuracy >= commands.LEAST_TASK[task]]
        assert rate == min(learnt, default=max(task_of, key=task_of.__getitem__)), condition


def test_every_file_that_a_step_reads_is_written_by_an_earlier_one(tmp_path: Path) -> None:
    for controls in (False, True):
        done: set[str] = set()
        for step in commands.steps(tmp_path, 1, controls):
            words = [str(word) for word in step.words]
            if "--ckpt_path" in words:
                fit = Path(words[words.index("--ckpt_path") + 1]).parents[1]
                assert str(fit) in done, step.name
            if "--trainer.default_root_dir" in words:
                done.add(words[words.index("--trainer.default_root_dir") + 1])


def test_every_condition_has_steps_of_its_own_and_a_draw_for_each_seed(tmp_path: Path) -> None:
    names = [step.name for step in commands.steps(tmp_path, 3, controls=True)]
    assert len(names) == len(set(names))
    assert not any("sweep" in name for name in names), "rates are chosen on the first seed alone"
    [fit] = [
        [str(word) for word in step.words]
        for step in commands.steps(tmp_path, 3, controls=True)
        if step.name.endswith(str(commands.tuned("maths", "random_set")))
    ]
    assert fit[fit.index("--model.learning_rates.random_set") + 1] == "3"


def test_a_swap_becomes_rows_of_both_models(tmp_path: Path) -> None:
    table = tmp_path / commands.STAGES / "swap/swap.csv"
    table.parent.mkdir(parents=True)
    table.write_text("swapped,n,refused_tuned_restored,refused_aligned_tuned\nnothing,10,0.1,1.0\ndown,10,0.8,0.3\n")
    values = list(MLLREvidence().values(tmp_path))
    assert Value("plain", "swap/down", "refused_restored", 0.8, 10) in values
    assert Value("aligned", "swap/down", "refused_tuned", 0.3, 10) in values
    method, rows = MLLREvidence(), Rows("mllr", [values])
    [section] = method.sections(rows)
    assert [list(cells) for cells in section.cells] == [["nothing", "0.100", "1.000"], ["down", "0.800", "0.300"]]
    method.plot(rows, tmp_path / "figures")
    assert (tmp_path / "figures/mllr_swap.png").is_file()


def test_figures_are_the_same_bytes_from_the_same_numbers(tmp_path: Path) -> None:
    points = [TradeoffPoint("mllr", rate, task, 1 - task, rate == 2e-4) for rate, task in ((1e-4, 0.2), (2e-4, 0.9))]
    for name in ("a", "b"):
        plot_tradeoff(points, tmp_path / f"{name}.png")
        plot_swap({"down": (0.8, 0.1), "q": (0.1, 0.0)}, 0.1, tmp_path / f"{name}_swap.png")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert (tmp_path / "a_swap.png").read_bytes() == (tmp_path / "b_swap.png").read_bytes()
